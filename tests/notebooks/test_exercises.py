"""Every exercise: the solution passes, the untouched one does not, wrong answers fail on the right test, right ones pass."""

import re
from functools import cache

import pytest

from notebooks.execute import read_notebook
from notebooks.exercises.check import hint_for, is_test, mark
from notebooks.exercises.release import FOLDER, exercise_numbers, release_path, source_path, student_version

NUMBERS = exercise_numbers()
STUB = "write your code"  # what the hint for an untouched cell says


def answers(kind: str, number: str) -> list[tuple[str, str, str]]:
    """(solution cell, words of the hint, or how it is written, answer) from KIND/NUMBER.txt: parts begin `=== CELL | WORDS`."""
    text = (FOLDER / kind / f"{number}.txt").read_text(encoding="utf-8")
    return re.findall(r"^=== (\S+) \| ([^\n]+)\n(.*?)(?=^===|\Z)", text, flags=re.M | re.S)


def solutions(notebook) -> list[str]:
    """The ids of all cells that hold a solution."""
    return [cell.metadata.nbgrader.grade_id for cell in notebook.cells if "### BEGIN SOLUTION" in cell.source]


@cache
def names_of(number: str) -> dict[str, object]:
    """What stands when all cells of the solution but the tests have run, in this process."""
    names: dict[str, object] = {}
    for cell in read_notebook(source_path(number)).cells:
        if cell.cell_type == "code" and not is_test(cell):
            exec(cell.source, names)
    return names


def hints_of(kind: str, number: str, least: int) -> list[tuple[str, str, str]]:
    """(solution cell, words, hint) for each answer in KIND/NUMBER.txt, of which every part has so many at the least."""
    given = answers(kind, number)
    assert all([part for part, _, _ in given].count(name) >= least for name in solutions(read_notebook(source_path(number))))
    return [(part, words, hint_of(number, part, answer)) for part, words, answer in given]


def hint_of(number: str, part: str, answer: str) -> str:
    """What a student reads who gives this answer to a part, and right ones to the others; empty if it passes."""
    [test] = [cell.source for cell in read_notebook(source_path(number)).cells if mark(cell).get("grade_id") == f"{part}_test"]
    names = dict(names_of(number))
    exec(answer, names)
    try:
        exec(test, names)
    except Exception as error:
        return hint_for(type(error).__name__, str(error))
    return ""


def test_there_are_exercises():
    assert NUMBERS and NUMBERS[0] == "01"


def test_no_two_exercises_share_an_id():
    """The checker knows by them whether it was given the right notebook."""
    ids = [mark(cell)["grade_id"] for number in NUMBERS for cell in read_notebook(source_path(number)).cells if mark(cell)]
    assert len(ids) == len(set(ids))


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


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_solutions_pass_and_stubs_say_what_to_do(number):
    for path, words in ((source_path(number), ""), (release_path(number), STUB)):
        parts = [cell for cell in read_notebook(path).cells if mark(cell).get("solution")]
        found = {mark(cell)["grade_id"]: hint_of(number, mark(cell)["grade_id"], cell.source) for cell in parts}
        assert parts and [hint for hint in found.values() if (hint == "") != (words == "") or words not in hint] == []


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_wrong_answers_fail_on_the_right_test(number):
    assert [entry for entry in hints_of("wrong", number, 2) if entry[1] not in entry[2]] == []


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_right_answers_pass_however_they_are_written(number):
    assert [entry for entry in hints_of("right", number, 3) if entry[2]] == []
