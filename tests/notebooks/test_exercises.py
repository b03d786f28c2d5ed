"""Every exercise: the solution passes, the untouched version does not, and typical wrong answers fail on the right test."""

import copy
import itertools
import re

import pytest

from notebooks.execute import read_notebook
from notebooks.exercises.check import grade, is_test
from notebooks.exercises.release import FOLDER, exercise_numbers, release_path, source_path, student_version

NUMBERS = exercise_numbers()


def wrong_answers(number: str) -> dict[str, list[tuple[str, str]]]:
    """Solution cell -> (words of the hint, wrong answer), from wrong/NUMBER.txt: parts that begin `=== CELL | WORDS`."""
    found: dict[str, list[tuple[str, str]]] = {}
    text = (FOLDER / "wrong" / f"{number}.txt").read_text(encoding="utf-8")
    for grade_id, words, answer in re.findall(r"^=== (\S+) \| ([^\n]+)\n(.*?)(?=^===|\Z)", text, flags=re.M | re.S):
        found.setdefault(grade_id, []).append((words, answer))
    return found


def solutions(notebook) -> list[str]:
    """The ids of all cells that hold a solution."""
    return [cell.metadata.nbgrader.grade_id for cell in notebook.cells if "### BEGIN SOLUTION" in cell.source]


def test_there_are_exercises():
    assert NUMBERS and NUMBERS[0] == "01"


@pytest.mark.parametrize("number", NUMBERS)
def test_the_students_notebook_is_that_of_the_instructor(number):
    assert read_notebook(release_path(number)) == student_version(read_notebook(source_path(number))), \
        "run python notebooks/exercises/release.py"


@pytest.mark.parametrize("number", NUMBERS)
def test_each_exercise_says_goal_start_and_end_and_has_a_test(number):
    source = read_notebook(source_path(number))
    texts = [cell.source for cell in source.cells if cell.source.startswith("## ")]
    assert len(texts) >= 4
    assert [text for text in texts if not all(f"**{word}" in text for word in ("Goal", "Start", "Done"))] == []
    tests = [cell.metadata.nbgrader.grade_id for cell in source.cells if is_test(cell)]
    assert tests == [f"{name}_test" for name in solutions(source)] and len(tests) == len(texts)
    assert all(cell.metadata.nbgrader.schema_version == 3 for cell in source.cells if "nbgrader" in cell.metadata)
    assert all("### BEGIN HIDDEN TESTS" in cell.source for cell in source.cells if is_test(cell))


@pytest.mark.parametrize("number", NUMBERS)
def test_the_solution_gets_all_points(number, tmp_path):
    source = read_notebook(source_path(number))
    verdicts, notes = grade(source, source, tmp_path)
    assert [v for v in verdicts if v.points < v.possible] == [] and notes == []


@pytest.mark.parametrize("number", NUMBERS)
def test_the_untouched_notebook_gets_none_and_says_what_to_do(number, tmp_path):
    verdicts, notes = grade(read_notebook(release_path(number)), read_notebook(source_path(number)), tmp_path)
    assert [v for v in verdicts if v.points or "write your code" not in v.hint] == [] and notes == []


@pytest.mark.parametrize("number", NUMBERS)
def test_typical_wrong_answers_fail_on_the_right_test(number, tmp_path):
    source, wrong = read_notebook(source_path(number)), wrong_answers(number)
    assert {name: len(wrong.get(name, [])) >= 2 for name in solutions(source)} == dict.fromkeys(wrong, True)
    for turn in itertools.zip_longest(*([(name, *entry) for entry in entries] for name, entries in wrong.items())):
        entries = {name: (words, answer) for name, words, answer in filter(None, turn)}  # one wrong answer of each exercise
        student = copy.deepcopy(source)
        for cell in student.cells:
            name = cell.metadata.get("nbgrader", {}).get("grade_id")
            if name in entries:
                cell.source = entries[name][1]
        verdicts, notes = grade(student, source, tmp_path)
        assert notes == []
        for verdict in verdicts:
            words, _ = entries.get(verdict.grade_id.removesuffix("_test"), ("", ""))
            assert (words in verdict.hint) if words else verdict.hint == "", f"{verdict} for {words!r}"
