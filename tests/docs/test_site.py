"""The site: built without a warning, every link inside it leads somewhere, and nothing is fetched from elsewhere.

Imports nothing of the project, so that it runs where only docs/requirements.txt is installed:
`python -m pytest --noconftest -o addopts= tests/docs`.
"""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
for tool in ("sphinx", "myst_nb", "furo", "latex2mathml", "sphinx_copybutton"):
    pytest.importorskip(tool, reason=f"{tool}, which builds the site, is not installed (docs/requirements.txt)")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built anew. A link to a page or heading that is not there is a warning, and warnings are errors."""
    folder = tmp_path_factory.mktemp("site").resolve()
    done = subprocess.run([sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs", "-d", folder / "read",
                           ".", folder / "site"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "site"


class Page(HTMLParser):
    """What a page names: ids, where links lead, what is loaded with it; and its words."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.words = ""
        self.described: list[str] = []  # what is seen in each picture
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.ids |= {given["id"]} if "id" in given else set()
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in ("script", "img", "iframe", "source", "link"):
            self.loads += [given[name] for name in ("src", "href") if name in given]
            self.described += [given.get("alt", "")] if tag == "img" else []

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def pages(site) -> dict[str, Page]:
    return {path.relative_to(site).as_posix(): Page(path) for path in site.rglob("*.html")}


def test_every_page_is_there_under_the_name_of_its_source(site, pages):
    texts = [path for folder in ("ch_*", "ch_*/*") for path in ROOT.glob(f"{folder}/*.md")]
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    code = [ROOT / "common" / "gpt2.py", ROOT / "ch_instruct" / "evaluation" / "judge.py"]
    assert len(texts) >= 5 and len(notebooks) >= 4
    sources = [ROOT / "README.md", ROOT / "notebooks" / "README.md", *texts, *notebooks, *code]
    assert [str(source) for source in sources if source.relative_to(ROOT).with_suffix(".html").as_posix() not in pages] == []
    assert (site / "index.html").read_bytes() == (site / "README.html").read_bytes()
    assert code[0].read_text(encoding="utf-8").strip() in pages["common/gpt2.html"].words


def test_every_link_leads_to_a_place(site, pages):
    checked, broken = 0, []
    for name, page in pages.items():
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if not parts.scheme:
                target = (site / name).parent / unquote(parts.path) if parts.path else site / name
                known = pages.get(target.resolve().relative_to(site).as_posix()) if target.exists() else None
                checked += 1
                if not target.is_file() or (parts.fragment and known and unquote(parts.fragment) not in known.ids):
                    broken.append(f"{name}: {link}")
    assert checked > 1000 and broken == []


def test_nothing_is_loaded_from_another_site(site, pages):
    """Links may lead away; scripts, styles, fonts and pictures may not come from there."""
    assert [(name, load) for name, page in pages.items() for load in page.loads if re.match(r"(\w+:)?//", load)] == []
    styles = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.css")}
    assert styles and [path for path, text in styles.items() if re.search(r"(url\(|@import)\s*['\"]?(\w+:)?//", text)] == []


def test_commands_are_coloured_as_shell_and_wrap(site):
    for page, words in (("README", "python ch_sftmix/train.py"), ("ch_instruct/recipe", "compare.py"),
                        ("ch_instruct/README", "$ ")):
        text = (site / f"{page}.html").read_text(encoding="utf-8")
        blocks = re.findall(r'<div class="highlight-(?:bash|console)[^>]*>.*?</pre>', text, re.DOTALL)
        assert any(words in re.sub(r"<[^>]+>", "", block) for block in blocks)
        assert not any("python ch_" in re.sub(r"<[^>]+>", "", block)[:40] for block in re.findall(
            r'<div class="highlight-(?:default|none|python3)[^>]*>.*?</pre>', text, re.DOTALL))
    [style] = (path.read_text(encoding="utf-8") for path in site.rglob("site.css"))
    assert re.search(r"\.highlight-bash pre.*white-space: pre-wrap", style)


def test_formulas_need_no_script(site, pages):
    text = (site / "notebooks" / "03_sftmix.html").read_text(encoding="utf-8")
    assert text.count("<math") >= 4 and "\\lambda" not in text
    assert not any("mathjax" in load.lower() for load in pages["notebooks/03_sftmix.html"].loads)


def test_no_solution_is_shown(site):
    """Marks of the instructor's notebooks, and the rubric."""
    shown = [path for path in site.rglob("*") if path.is_file() and path.suffix in (".html", ".js", ".ipynb", ".txt")]
    assert shown and not any(b"BEGIN HIDDEN TESTS" in path.read_bytes() for path in shown if "exercises" in path.parts)
    assert not list(site.rglob("*source*/0*")) and not list(site.rglob("*rubric*"))


def test_search_knows_chapters_notebooks_and_code(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    for name in ("ch_sftmix/README", "notebooks/01_pretrain", "common/gpt2"):
        assert f'"{name}"' in index
    assert "induct" in index  # the stem of a word of notebook 01


def test_every_picture_is_described(pages):
    found = {name: page.described for name, page in pages.items()
             if page.described and not name.startswith("docs/xray/")}  # saved pages of the X-ray, with a map for each head
    assert {f"notebooks/{path.stem}.html" for path in (ROOT / "notebooks").glob("*.ipynb")} <= found.keys()
    assert [(name, text) for name, texts in found.items() for text in texts
            if len(text) < 40 or " " not in text] == []  # without one the file's name stands there
