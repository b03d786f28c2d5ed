"""The glossary: its words are code where it says so, and the notebooks' links to it lead somewhere."""

import re

import pytest

from notebooks.execute import find_notebooks, read_notebook
from tests.conftest import ROOT

GLOSSARY = (ROOT / "notebooks" / "glossary.md").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^- \*\*(.+?)\*\*: (.+)\n  (`.+)$", GLOSSARY, flags=re.M)


def test_each_word_has_two_lines_and_stands_once():
    assert len(ENTRIES) == len(re.findall(r"^- \*\*", GLOSSARY, flags=re.M)) >= 60
    words = [word for word, _, _ in ENTRIES]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize(("word", "places"), [(word, places) for word, _, places in ENTRIES])
def test_its_files_hold_what_they_are_said_to_hold(word, places):
    names = re.findall(r"`([^`]+)`", places)
    files = [name for name in names if "/" in name]
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in files)
    assert files and [name for name in names if name not in files and not re.search(rf"\b{name}\b", text)] == []


def test_links_from_notebooks_lead_to_a_part_of_it():
    parts = {title.lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", GLOSSARY, flags=re.M)}
    for path in find_notebooks([]):
        prose = "".join(cell.source for cell in read_notebook(path).cells if cell.cell_type == "markdown")
        assert "(glossary.md" in prose
        assert set(re.findall(r"\(glossary\.md#([^)]+)\)", prose)) <= parts
