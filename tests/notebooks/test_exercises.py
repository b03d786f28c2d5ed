"""Every exercise: the solution passes, the untouched version does not, and typical wrong answers fail on the right test."""

import itertools
import re

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from notebooks.execute import read_notebook, run_notebook
from notebooks.exercises.check import error_of, hint_for, is_test
from notebooks.exercises.release import FOLDER, exercise_numbers, release_path, source_path, student_version

NUMBERS = exercise_numbers()
STUB = "write your code"  # what the hint for an untouched cell says


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


@pytest.fixture(scope="module", params=NUMBERS)
def hints(request, tmp_path_factory) -> list[tuple[str, str, str]]:
    """(solution cell, words that the hint should hold, hint) for solutions, stubs and wrong answers, from a single run."""
    source, release = read_notebook(source_path(request.param)), read_notebook(release_path(request.param))
    wrong = wrong_answers(request.param)
    assert {name: len(wrong.get(name, [])) >= 2 for name in solutions(source)} == dict.fromkeys(wrong, True)
    tests = {cell.metadata.nbgrader.grade_id.removesuffix("_test"): cell for cell in source.cells if is_test(cell)}
    answers = [(cell.metadata.nbgrader.grade_id, words, cell.source) for notebook, words in ((source, ""), (release, STUB))
               for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    answers += [(name, words, answer) for name, entries in wrong.items() for words, answer in entries]

    given = [cell for cell in source.cells if cell.cell_type == "code" and cell.metadata.nbgrader.grade_id not in tests
             and not is_test(cell)]
    pairs = [(new_code_cell(answer), new_code_cell(tests[name].source)) for name, _, answer in answers]
    run_notebook(new_notebook(cells=[*given, *itertools.chain(*pairs)]), tmp_path_factory.mktemp("run"), allow_errors=True)
    assert [cell.source for cell in [*given, *(answer for answer, _ in pairs)] if error_of(cell)] == []
    errors = [error_of(test) for _, test in pairs]
    return [(name, words, hint_for(*error) if error else "") for (name, words, _), error in zip(answers, errors)]


@pytest.mark.slow
def test_solutions_pass_stubs_say_what_to_do_and_wrong_answers_fail_on_the_right_test(hints):
    assert [(name, words, hint) for name, words, hint in hints if (hint == "") != (words == "") or words not in hint] == []
