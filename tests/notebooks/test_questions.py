"""The students' page, the rubric and the teachers' page: their figures are those of the project."""

import contextlib
import io
import json
import re
from math import log
from pathlib import Path

import numpy as np
import pytest

from ch_delift.greedy import maximize
from ch_delift.submodular import FacilityLocation
from ch_pretrain import classroom
from notebooks.execute import read_notebook
from tests.conftest import ROOT

QUESTIONS = (ROOT / "notebooks" / "questions.md").read_text(encoding="utf-8")
RUBRIC, TEACHERS = (" ".join((ROOT / "notebooks" / name).read_text(encoding="utf-8").split())
                    for name in ("rubric.md", "README.md"))
CODE = re.findall(r"```python\n(.*?)```", QUESTIONS, flags=re.S)


def printed(number: str) -> str:
    """All that a stored notebook prints."""
    [path] = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    return "\n".join(output.get("text", "") for cell in read_notebook(path).cells for output in cell.get("outputs", ()))


def test_each_chapter_has_two_questions_and_a_project_and_each_of_them_its_rubric():
    numbers = [f"{chapter}.{question}" for chapter in range(1, 5) for question in (1, 2)]
    for text in (QUESTIONS, RUBRIC):
        assert re.findall(r"\*\*(?:Question )?([1-4]\.[12])\b", text) == numbers
    assert QUESTIONS.count("**Project: ") == RUBRIC.count("**Project.**") == 4
    assert QUESTIONS.count("*Start*: ") == QUESTIONS.count("*A good answer*") == 4


@pytest.mark.parametrize(("number", "printed_there", "text", "said"), [
    ("01", "600 merges: 2.53 bytes per token", RUBRIC, "2.53 and 3.48 bytes a token"),
    ("01", "2815 merges: 3.48 bytes per token", RUBRIC, "2.53 and 3.48 bytes a token"),
    ("01", r"ln\(3072\) = 8.03 nats; your new model: 8.03", TEACHERS,
     "ln 3,072 = 8.03 nats, as unsure as among all tokens; the new model has 8.03"),
    ("01", r"0.2 +98%.*\n0.5 +97%[^%]*%\n.*\n1.0 +73%", TEACHERS,
     "98 % of the capitals are right there, 97 % at 0.5 and 73 % at 1.0"),
    ("02", r"no end +0\.0% +69\.2% +0\.0%", RUBRIC, "exact match is 0 %, while ROUGE-L stays at 69.2 %"),
    ("02", "Cut at the first line break, 85% of them are right", RUBRIC, "85 % of the answers are right"),
    ("02", "Cut at the first line break, 85% of them are right", TEACHERS, "85 % of the answers are right"),
    ("03", "33 of 192 training answers are wrong", RUBRIC, "33 of 192 answers are wrong"),
    ("03", "In the unconfident half: 33 of them", RUBRIC, "all 33 are there, so 63 right ones"),
    ("03", "examples the model is least sure of: 15 ", RUBRIC, "(15 of 33)"),
    ("03", "33 examples the model is least sure of: 15 ", TEACHERS, "of the 33 least sure examples 15 are wrong"),
    ("03", r"SFTMix minus NTP: .* ± 2\.\d points", TEACHERS, "four give about ± 2 points"),
    ("04", "itself: 0.192\n.*its family: 0.169", TEACHERS, "0.192 and 0.169"),
    ("04", "to the pair: 83%", TEACHERS, "83 % of the variance lies in the pairs")])
def test_what_a_page_takes_from_a_notebook_is_what_that_prints(number, printed_there, text, said):
    assert re.search(printed_there, printed(number)) and said in text


def test_each_session_has_goals_and_a_plan_that_fills_its_time():
    plans = re.findall(r"\*\*Goals\*\*: .*?\*\*Plan\*\* \((.*?)\): (.*?)(?:\. Exercises|\. - )", TEACHERS)
    assert [time for time, _ in plans] == ["two hours", "90 minutes", "90 minutes", "90 minutes", "60 minutes"]
    assert [sum(map(int, re.findall(r"(\d+)(?: ·|$)", plan))) for _, plan in plans] == [120, 90, 90, 90, 60]
    assert TEACHERS.count("**Ask before you run**: ") == 5


def test_the_calendars_hours_add_up():
    page = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| .*\|$", page.split("## Hours a week")[1].split("\n## ")[0], flags=re.M)
    _, *weeks, together = (re.split(r" *\| *", line)[1:-1] for line in lines)
    for column in (1, 2, 4, 5):
        assert sum(float(row[column] or 0) for row in weeks) == float(together[column])
    assert [len([row for row in weeks if row[place]]) for place in (0, 3)] == [6, 12]


def test_kinds_that_would_be_lost_are_those_that_notebook_03_lists():
    [listed] = re.findall(r"in the unconfident half:\n(.*?)\n\n", printed("03") + "\n\n", flags=re.S)
    lost = re.findall(r"(\w+) 100%", listed)
    assert lost and f"{', '.join(lost[:-1])} and {lost[-1]}: kinds" in RUBRIC


def test_sums_of_the_questions():
    assert (f"{1 / 2.53:.2f}", f"{1.29 / 3.48:.2f}") == ("0.40", "0.37") and "= 0.40 and" in RUBRIC and "= 0.37 nats" in RUBRIC
    logs = [sum(map(log, perplexities)) / 3 for perplexities in ((20, 1.1, 1.1), (4, 4, 4))]
    assert [f"{mean:.2f}" for mean in logs] == ["1.06", "1.39"] and "logarithms 1.06 and 1.39" in RUBRIC
    assert f"{80 / (0.7 * 20):.1f}" == "5.7" and "80 / 14 = 5.7" in RUBRIC
    assert 57 < 100 * 80 / (10 * 0.7 * 20) < 58 and "so 58 trainings" in RUBRIC


def test_greedy_choices_of_question_4_1():
    rows = re.findall(r"^\| [xyz] \|(.*)\|$", QUESTIONS, flags=re.M)
    similarities = np.array([[float(cell) for cell in row.split("|")] for row in rows], dtype=np.float32)
    assert similarities.shape == (3, 4)
    for what, scale in (("At first", np.ones((3, 4))), ("Row y times ten:", [[1], [10], [1]]),
                        ("Column d times ten:", [[1, 1, 1, 10]])):
        picks, gains = maximize(FacilityLocation((similarities * scale).astype(np.float32)), 2)
        (first, one), (second, two) = (("abcd"[pick], round(gain)) for pick, gain in zip(picks, gains))
        assert f"{what} {first} ({one}), then {second} ({two})" in RUBRIC


@pytest.mark.slow
def test_question_1_1_gives_the_rubrics_figures():
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(CODE[0], {})
    (first, again), (other, turned) = (map(float, re.findall(r"\d+\.\d+", line)) for line in out.getvalue().splitlines())
    assert first == other
    [said] = re.findall(r"([\d.]+) nats the first time, ([\d.]+) in the copy, and ([\d.]+) backwards", RUBRIC)
    assert [first, again, turned] == pytest.approx([float(number) for number in said], abs=0.02)


def test_the_other_pieces_of_code_can_be_run(tmp_path, monkeypatch):
    """That of question 2.2 needs a fine-tuned model: here it only has to be Python."""
    compile(CODE[1], "question 2.2", "exec")
    monkeypatch.chdir(tmp_path)
    exec(CODE[2], {})
    assert Path("skewed.json").stat().st_size > 10_000


def test_the_labs_files_have_the_same_questions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = [r for r in classroom.records() if r["family"] in ("opposite", "past_tense", "subtraction")]
    Path("few.json").write_text(json.dumps(records), encoding="utf-8")
    exec(CODE[3], {})
    parts = {n: json.loads(Path(f"few{n}.json").read_text(encoding="utf-8")) for n in (20, 80, 296)}
    assert [sum(r["split"] == "train" for r in part) for part in parts.values()] == [20, 80, 296]
    others = [[r for r in part if r["split"] != "train"] for part in parts.values()]
    assert others[0] == others[1] == others[2] and len(parts[296]) == len(records)
