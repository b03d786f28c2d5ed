"""Make slides of a notebook: one HTML file that needs no network.

    python notebooks/slides.py                     # all notebooks, into the folder slides/
    python notebooks/slides.py 01 --out session1   # one of them

Each text cell becomes a slide, with what the code cells after it show. Where the text is long, the slide has the first sentence
of each paragraph: in our notebooks a paragraph begins with its point. The whole text is in the notes below the slide.

Tags in a cell's metadata (`"tags": [...]`): `show` puts the code on the slide, `skip` leaves the cell out.

In the browser: arrow keys turn the pages, N shows and hides the notes. Printing gives one page a slide (or a PDF).
"""

import argparse
import base64
import io
import re
from html import escape
from pathlib import Path
from string import Template

import notebooks  # noqa: F401  # before nbformat is loaded
from common.support import options
from common.support.console import say


def parse() -> argparse.Namespace:
    parser = options.Parser(__doc__)
    parser.add_argument("numbers", nargs="*", metavar="NUMBER", help="01, 02, ... (default: all)")
    parser.add_argument("--out", type=Path, default=Path("slides"), metavar="FOLDER", help="where to write (default: slides)")
    return parser.parse_args()


if __name__ == "__main__":
    options.run_command(parse)  # --help and wrong options end here: the imports below take seconds

import nbformat.v4
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from common.support.files import write_text
from notebooks.execute import find_notebooks, read_notebook

PAGE = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
MATH = re.compile(r"(\$\$?)(.+?)\1", flags=re.S)
SENTENCE = re.compile(r".+?[.?!]\**(?=\s|$)", flags=re.S)
ENOUGH = {True: 70, False: 150}  # words beside a picture or output, and alone: a text that is no longer is shown whole


def first_sentence(text: str) -> str:
    """The first sentence of a paragraph; with a question or a bold title in front, if it begins with one."""
    taken = ""
    for sentence in SENTENCE.findall(text) or [text]:
        taken += sentence
        title = re.fullmatch(r"(\S+ )?\*\*[^*]+\*\*", taken) or taken.rstrip("*").endswith("?")
        whole = taken.count("(") == taken.count(")") and all(taken.count(mark) % 2 == 0 for mark in ("`", "$", "**"))
        if whole and not title and not re.search(r"(^\d+|et al)\.$", taken):
            break
    return taken


def points(text: str, enough: int) -> str:
    """Markdown for a slide: of a text of more than `enough` words, the first sentence of each paragraph and list item."""
    blocks = []
    for block in re.split(r"\n{2,}", text):
        if re.match(r"#|\||>|```|\$\$", block) or len(text.split()) <= enough:
            blocks.append(block)
        else:
            parts = re.split(r"\n(?=- |\d+\. )", block)  # the items, if it is a list
            blocks.append("\n".join(first_sentence(" ".join(part.split())) for part in parts))
    return "\n\n".join(blocks)


def draw_math(text: str) -> str:
    """Formulas between dollar signs as pictures."""
    def draw(match: re.Match[str]) -> str:
        picture = io.BytesIO()
        math_to_image(f"${' '.join(match[2].split())}$", picture, FontProperties(size=21), format="svg")
        data = base64.b64encode(picture.getvalue()).decode()
        return f'<img class="math" alt="{escape(match[2])}" src="data:image/svg+xml;base64,{data}">'

    return MATH.sub(draw, text)


def text_cell(text: str) -> NotebookNode:
    """A cell of Markdown for a page of its own: formulas drawn, no links to files that do not lie beside it."""
    return nbformat.v4.new_markdown_cell(draw_math(re.sub(r"\[([^\]]+)\]\([^)\s]+\)", r"\1", text)))


def slides_of(notebook: NotebookNode) -> list[tuple[str, str, list[NotebookNode]]]:
    """(last heading, text, code cells after it) for each slide. A heading begins one; code that is shown has one of its own."""
    found: list[tuple[str, str, list[NotebookNode]]] = []
    title = ""
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", ())
        if "skip" in tags:
            continue
        if cell.cell_type == "markdown":
            for part in re.split(r"\n(?=##+ )", cell.source):
                heading = re.match(r"#+ (.+)", part)
                title = heading[1] if heading else title
                found.append(("" if heading else title, part, []))
        else:
            pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
            texts = [output for output in cell.outputs if output not in pictures]
            if "show" in tags:
                found += [(title, "", [nbformat.from_dict(cell | {"outputs": texts})]), (title, "", [])]
            outputs = pictures if "show" in tags else cell.outputs
            if outputs:
                hidden = cell.metadata | {"transient": {"remove_source": True}}
                found[-1][2].append(nbformat.from_dict(cell | {"outputs": outputs, "metadata": hidden}))
    return [slide for slide in found if slide[1] or slide[2]]


def make_page(notebook: NotebookNode, title: str) -> str:
    """The slides as one HTML page."""
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)

    def html(cells: list[NotebookNode]) -> str:
        return exporter.from_notebook_node(nbformat.v4.new_notebook(cells=cells))[0]

    slides = []
    for heading, text, cells in slides_of(notebook):
        short = text_cell(points(text, ENOUGH[bool(cells)]))
        slides.append(f'<section><div class="slide"><div class="body"><small>{escape(heading)}</small>{html([short, *cells])}'
                      f"</div></div><aside>{html([text_cell(text)])}</aside></section>")
    return PAGE.substitute(title=escape(title), colours=HtmlFormatter().get_style_defs(".highlight"), slides="\n".join(slides))


def main() -> None:
    args = parse()
    for path in find_notebooks(args.numbers):
        page = args.out / f"{path.stem}.html"
        args.out.mkdir(parents=True, exist_ok=True)
        write_text(page, make_page(read_notebook(path), path.stem.replace("_", " ")))
        say(str(page))


if __name__ == "__main__":
    options.run_command(main)
