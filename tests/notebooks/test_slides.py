"""Slides that need no network, and the sheets for pencil and paper."""

import re
from math import exp, log

import nbformat.v4
import numpy as np
import pytest
import torch

from ch_delift.greedy import maximize
from ch_delift.submodular import FacilityLocation
from ch_instruct.collate import collate
from ch_instruct.encoding import Example
from ch_sftmix.confidence import confidence, split
from common.losses import IGNORE_INDEX
from notebooks.execute import find_notebooks, read_notebook
from notebooks.slides import first_sentence, make_page, points, slides_of
from tests.conftest import ROOT

SHEETS = (ROOT / "notebooks" / "sheets.html").read_text(encoding="utf-8")
RUBRIC = " ".join((ROOT / "notebooks" / "rubric.md").read_text(encoding="utf-8").split())


def table(session: int, number: int) -> list[list[str]]:
    """The cells of one table of a sheet."""
    [sheet] = re.findall(rf'<section id="session{session}">(.*?)</section>', SHEETS, flags=re.S)
    rows = re.findall(r"<table>(.*?)</table>", sheet, flags=re.S)[number].split("</tr>")[:-1]
    return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in rows]


@pytest.mark.parametrize(("text", "sentence"), [
    ("One thing. Another.", "One thing."),
    ("**The price.** It is high. More.", "**The price.** It is high."),
    ("Where from? From x. Only this.", "Where from? From x."),
    ("2. **Scores**: as said, i.e. so. More.", "2. **Scores**: as said, i.e."),
    ("(In brackets. All of it.) More.", "(In brackets. All of it.) More."),
    ("The file `a.b c` and 0.5 stay. More.", "The file `a.b c` and 0.5 stay."),
    ("no end", "no end")])
def test_the_first_sentence(text, sentence):
    assert first_sentence(text) == sentence


def test_a_long_text_keeps_headings_tables_and_the_beginning_of_each_paragraph():
    text = "## Title\n\nFirst. Second.\n\n| a |\n|---|\n| b. c |\n\n- one. two\n  three.\n- four."
    assert points(text, 100) == text
    assert points(text, 3) == "## Title\n\nFirst.\n\n| a |\n|---|\n| b. c |\n\n- one.\n- four."


def test_headings_begin_slides_and_tags_choose_the_code():
    new = nbformat.v4
    drawn = new.new_output("display_data", data={"image/png": "AA=="})
    told = new.new_output("stream", text="told")
    cells = [new.new_markdown_cell("# A\n\ntext\n## B\n\ntext"), new.new_code_cell("hidden", outputs=[told]),
             new.new_code_cell("gone", outputs=[told], metadata={"tags": ["skip"]}),
             new.new_code_cell("shown", outputs=[told, drawn], metadata={"tags": ["show"]}), new.new_code_cell("silent")]
    notebook = new.new_notebook(cells=cells)
    assert [(title, text, [cell.source for cell in codes], [len(cell.outputs) for cell in codes])
            for title, text, codes in slides_of(notebook)] == [
        ("", "# A\n\ntext", [], []), ("", "## B\n\ntext", ["hidden"], [1]),
        ("B", "", ["shown"], [1]), ("B", "", ["shown"], [1])]
    page = make_page(notebook, "a < b")
    assert page.count("<section>") == 4 and "<title>a &lt; b</title>" in page
    assert page.count(">shown<") == 1 and ">hidden<" not in page and page.count("told") == 2


def test_formulas_are_drawn_and_links_are_text():
    page = make_page(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("so $a_1 < b$, see [here](../x.md)")]), "x")
    body = page[page.index("<body>"):page.index("<script>")]
    assert body.count('<img alt="a_1 &lt; b" class="math" src="data:image/svg+xml;base64,') == 2  # the slide and its notes
    assert "$" not in body and "x.md" not in body and "see here" in body


@pytest.mark.parametrize("path", find_notebooks([]), ids=lambda path: path.stem)
def test_every_notebook_becomes_slides_with_its_pictures_that_load_nothing(path):
    notebook = read_notebook(path)
    page = make_page(notebook, path.stem)
    pictures = [cell.metadata["alt"] for cell in notebook.cells for output in cell.get("outputs", ())
                if "image/png" in output.get("data", {})]
    assert page.count('src="data:image/png;base64,') == len(pictures) >= 5
    assert set(re.findall(r'(?:src|href)="(?!data:|#)[^"]*', page)) == set() and "@import" not in page
    shown = [cell for cell in notebook.cells if "show" in cell.metadata.get("tags", ())]
    assert shown and page.count('class="highlight') == len(shown)  # what the reader writes, and no other code
    assert 20 <= page.count("<section>") <= 60


def test_the_command_writes_pages(in_process, tmp_path):
    done = in_process("notebooks/slides.py", "02", "--out", "session2")
    assert done.stdout.strip().endswith("02_instruct.html")
    [page] = tmp_path.glob("cwd/session2/*")
    assert page.name == "02_instruct.html" and page.stat().st_size > 100_000


def test_answers_to_the_first_sheet():
    inputs = table(1, 0)[0][1:]
    assert f"{' '.join(inputs[1:])} end-of-text: seven" in RUBRIC
    scores, values = (torch.tensor([float(x) for x in row[1:]]) for row in table(1, 2)[:2])
    weights, masked = scores.softmax(dim=0), scores[:2].softmax(dim=0)
    assert weights.tolist() == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.002) and "1/8, 2/8, 5/8" in RUBRIC
    assert masked.tolist() == pytest.approx([1 / 3, 2 / 3], abs=0.002) and "1/3 and 2/3" in RUBRIC
    outputs = float(weights @ values), float(masked @ values[:2])
    assert [round(x, 1) for x in outputs] == [2.0, 5.3] and "output 2; with the mask 1/3 and 2/3, output 5.3" in RUBRIC
    losses = [-log(p) for p in (1 / 2, 1 / 4, 1 / 8)]
    mean = sum(losses) / 3
    assert f"{', '.join(f'{x:.2f}' for x in losses)}; mean {mean:.2f}; perplexity {exp(mean):.0f}" in RUBRIC


def test_answers_to_the_second_sheet():
    words = ["Add", "2", "and", "3", "A:", "5", ".", "end"]
    inputs, targets = collate([Example(list(range(8)), 5), Example(list(range(8)) + [7] * 2, 5)], pad_id=7)
    assert [words[i] for i in inputs[0].tolist()] == table(2, 0)[1][1:]
    counted = [t for t, target in enumerate(targets[0].tolist()) if target != IGNORE_INDEX]
    assert counted == [4, 5, 6] and "positions 4, 5 and 6 (targets 5, full stop, end-of-text)" in RUBRIC
    assert "mean over all targets (1 + 1 + 1 + 5) / 4 = 2, and the mean of means (1 + 5) / 2 = 3" in RUBRIC


def test_answers_to_the_third_sheet():
    rows = table(3, 0)[1:]
    sure = confidence(torch.tensor([[float(x) for x in row[1:4]] for row in rows]).T)
    assert ", ".join(f"{row[0]} {x:.2f}" for row, x in zip(rows, sure)) in RUBRIC
    assert sorted(rows[i][0] for i in split(sure)[0]) == ["B", "D"] and "B and D are the confident half" in RUBRIC
    mixed = 0.25 * np.array([4, 0]) + 0.75 * np.array([0, 2])
    assert f"({mixed[0]:g}, {mixed[1]:g})" in RUBRIC
    assert f"0.25 · 0.69 + 0.75 · 1.39 = {0.25 * log(2) + 0.75 * log(4):.2f}" in RUBRIC


def test_answers_to_the_fourth_sheet():
    before, after = (((1 - p) ** 2 / 2) ** 0.5 for p in (0.2, 0.6))
    assert f"{before:.2f} and {after:.2f}, utility {before - after:.2f}" in RUBRIC
    s = np.array([[float(x) for x in row[1:]] for row in table(4, 0)[1:4]], dtype=np.float32).clip(min=0)
    function = FacilityLocation(s)
    first = function.gains().tolist()
    picks, gains = maximize(FacilityLocation(s), 2)
    function.add(picks[0])
    second = function.gains().tolist()
    assert [("abcd"[p], g) for p, g in zip(picks, gains)] == [("a", 9), ("c", 3)]
    assert f"first {', '.join(f'{x:g}' for x in first)}: a. Then {', '.join(f'{x:g}' for x in second[1:])}: c" in RUBRIC
