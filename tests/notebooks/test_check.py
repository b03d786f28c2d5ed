import copy
import sys
import time

import nbformat.v4
import pytest

from common.files import InputError
from notebooks.exercises import check
from notebooks.exercises.check import grade
from tests.conftest import run_command


def cell(source: str, grade_id: str, points: int | None = None):
    """An answer, or with points a test."""
    return nbformat.v4.new_code_cell(source, metadata={"nbgrader": {
        "grade_id": grade_id, "grade": points is not None, "points": points or 0}})


SOURCE = nbformat.v4.new_notebook(cells=[
    nbformat.v4.new_markdown_cell("## 1. Double\n\nMore words."), cell("def double(x): return 2 * x", "double"),
    cell("assert double(1) == 2, 'twice one is two'\nassert double(3) == 6, 'twice three is six'", "double_test", 2),
    nbformat.v4.new_markdown_cell("## 2. Half"), cell("def half(x): return x / 2", "half"),
    cell("assert half(2) == 1, 'half of two is one'", "half_test", 3)])


def with_answer(grade_id: str, source: str):
    student = copy.deepcopy(SOURCE)
    next(c for c in student.cells if c.metadata.get("nbgrader", {}).get("grade_id") == grade_id).source = source
    return student


@pytest.mark.slow
def test_right_answers_get_all_points(tmp_path):
    verdicts, notes = grade(SOURCE, SOURCE, tmp_path)
    assert [(v.title, v.points, v.possible, v.hint) for v in verdicts] == [("1. Double", 2, 2, ""), ("2. Half", 3, 3, "")]
    assert notes == []


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "hint", "note"), [
    ("def double(x): return x + 1", "twice three is six", None),
    ("def double(x): raise NotImplementedError()", "not done yet", None),
    ("def double(x): return x.y", "your code stops with AttributeError", None),
    ("def double(x) return", "'double' is not defined", "begins with 'def double(x) return' stops with SyntaxError"),
    ("", "'double' is not defined", None),
    ("def double(x):\n    while True: pass", "takes longer than 2 seconds", None)])
def test_a_wrong_answer_gets_a_hint_and_harms_no_other(answer, hint, note, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "SECONDS_PER_CELL", 2)
    (double, half), notes = grade(with_answer("double", answer), SOURCE, tmp_path)
    assert double.points == 0 and hint in double.hint
    assert half.points == 3
    assert [note in n for n in notes] == ([True] if note else [])


@pytest.mark.slow
def test_the_students_own_tests_do_not_count(tmp_path):
    student = with_answer("double", "def double(x): return 0")
    student.cells[2].source = "pass"
    (double, _), _ = grade(student, SOURCE, tmp_path)
    assert double.points == 0 and double.hint == "twice one is two"


@pytest.mark.slow
def test_code_that_ends_python_is_told(tmp_path):
    with pytest.raises(InputError, match="ended its Python process"):
        grade(with_answer("double", "import os; os._exit(1)"), SOURCE, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "hint"), [
    ("def double(x):\n    while True: print('again and again')", "more than 200,000 characters are printed"),
    ("def double(x): return len(bytearray(10 << 30))", "your code stops with MemoryError")])
def test_endless_output_and_memory_end_within_the_limits(answer, hint, tmp_path):
    started = time.monotonic()
    (double, half), _ = grade(with_answer("double", answer), SOURCE, tmp_path)
    assert hint in double.hint and half.points == 3
    assert time.monotonic() - started < check.SECONDS_PER_CELL


@pytest.mark.slow
def test_a_loop_that_cannot_be_interrupted_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "SECONDS_PER_CELL", 1)
    stubborn = "import signal\ndef double(x):\n    signal.signal(signal.SIGINT, signal.SIG_IGN)\n    while True: pass"
    with pytest.raises(InputError, match="a loop that cannot be interrupted"):
        grade(with_answer("double", stubborn), SOURCE, tmp_path)


@pytest.mark.slow
def test_the_untouched_notebook_gets_no_points_and_status_1(tmp_path):
    done = run_command("notebooks/exercises/check.py", "01", folder=tmp_path, check=False)
    assert done.returncode == 1 and "together" in done.stdout and " 0 of " in done.stdout
    assert "not done yet: write your code" in done.stdout
    assert "TCP" not in done.stderr


def test_a_notebook_of_something_else_is_refused(tmp_path, monkeypatch):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), tmp_path / "a.ipynb")
    monkeypatch.setattr(sys, "argv", ["check.py", "01", str(tmp_path / "a.ipynb")])
    with pytest.raises(InputError, match=r"a\.ipynb holds nothing of exercise 01; start from 01\.ipynb"):
        check.main()
