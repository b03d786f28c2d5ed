"""The project as a site with search: READMEs, notebooks and code become pages as they lie.

    pip install -r docs/requirements.txt
    sphinx-build -W -c docs . build/site        # then open build/site/index.html; no server is needed

Sphinx with MyST-NB is what Jupyter Book 1 is made of; used by itself, it needs this file only. Search needs no server, formulas
are MathML, and no page loads a script, a font or anything else from another site.
"""

import json
import re
import shutil
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.parsers import Parser

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ("ch_pretrain", "ch_instruct", "ch_sftmix", "ch_delift")
PAGES = {  # what the list at the side shows
    "Chapters": [path.relative_to(ROOT).with_suffix("").as_posix() for chapter in CHAPTERS
                 for path in sorted((ROOT / chapter).rglob("*.md"))],
    "Notebooks": ["notebooks/0*"],
    "The course": ["notebooks/README", *(f"notebooks/{path.stem}" for path in sorted((ROOT / "notebooks").glob("*.md"))
                                         if path.stem not in ("README", "students", "rubric")),
                   "notebooks/exercises/release/**"],
    "The house": [".github/*"]}

project = html_title = "Instruction tuning from scratch"
root_doc = "README"
include_patterns = ["README.md", *(f"{page}.*" for pages in PAGES.values() for page in pages),
                    "common/*.py", "common/*/*.py", "ch_*/*.py", "ch_*/*/*.py"]
exclude_patterns = ["**/__init__.py", "ch_delift/lab/conditions.py"]  # conditions.md has that place
extensions = ["myst_nb"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3  # links to headings, as on GitHub
suppress_warnings = ["misc.highlighting_failure"]  # what a command printed is no shell, and stands below it uncoloured
nb_execution_mode = "off"  # the outputs are stored
html_theme = "furo"
html_static_path, html_css_files = ["site.css"], ["site.css"]
html_copy_source = html_show_copyright = False
html_math_renderer = "mathml"


class CodeParser(Parser):
    """Makes a page of a Python file: its name and its lines."""

    supported = ("code",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Fill the document."""
        orphan = nodes.docinfo("", nodes.field("", nodes.field_name(text="orphan"), nodes.field_body()))  # not in the list
        name = f"{document.settings.env.docname}.py"
        document += [orphan, nodes.section("", nodes.title(text=name), nodes.literal_block(
            inputstring, inputstring, language="python"), ids=[nodes.make_id(name)], names=[name])]


def add_list(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the list of pages behind the first page's text."""
    if docname == root_doc:
        source[0] += "".join(f"\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"
                             for caption, pages in PAGES.items())


def colour_shell(app: Sphinx, docname: str, source: list[str]) -> None:
    """Say of blocks of commands, which on GitHub need no name, that they are shell."""
    if Path(app.env.doc2path(docname)).suffix == ".md":
        source[0] = re.sub(r"^```\n(?=(?:python3?|pip|torchrun|ruff|curl|\.ci/run) )", "```bash\n", source[0], flags=re.M)
        source[0] = re.sub(r"^```\n(?=\$ )", "```console\n", source[0], flags=re.M)


def describe_pictures(app: Sphinx, docname: str, source: list[str]) -> None:
    """Hand on what a notebook says of its pictures: MyST-NB looks elsewhere in a cell's metadata than nbconvert does."""
    if app.env.doc2path(docname).endswith(".ipynb"):
        notebook = json.loads(source[0])
        for metadata in (cell["metadata"] for cell in notebook["cells"]):
            if "alt" in metadata:
                metadata["mystnb"] = {"image": {"alt": metadata["alt"]}}
        source[0] = json.dumps(notebook)


def draw_math(translator, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML."""
    translator.body.append(convert(node.astext(), display="block" if isinstance(node, nodes.math_block) else "inline"))
    raise nodes.SkipNode


def make_index(app: Sphinx, error: Exception | None) -> None:
    """The first page, under the name that browsers ask for."""
    if error is None:
        shutil.copyfile(Path(app.outdir) / "README.html", Path(app.outdir) / "index.html")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_source_suffix(".py", "code")
    app.add_source_parser(CodeParser)
    app.add_html_math_renderer("mathml", (draw_math, None), (draw_math, None))
    app.connect("source-read", add_list)
    app.connect("source-read", colour_shell)
    app.connect("source-read", describe_pictures)
    app.connect("build-finished", make_index)
