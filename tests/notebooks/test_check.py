import copy
import csv
import io
import itertools
import json
import sys
import time

import nbformat.v4
import psutil
import pytest

from common.support.files import InputError
from notebooks.execute import read_notebook
from notebooks.exercises import check, release
from notebooks.exercises.check import grade
from notebooks.exercises.release import release_path, source_path, student_version
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


@pytest.fixture
def in_this_process(monkeypatch):
    """Cells run right here, where nothing is looked at that needs Jupyter: to start it takes more than a second."""
    def run(notebook, *_) -> None:
        names = {}
        for one in notebook.cells[1:]:  # the first bounds a process of its own
            try:
                exec(one.source, names)
            except (AssertionError, NameError) as error:
                one.outputs.append(nbformat.v4.new_output("error", ename=type(error).__name__, evalue=str(error)))

    monkeypatch.setattr(check, "run_notebook", run)


def assert_graded(folder, *cases: tuple[str, str, str | None]) -> None:
    """Grade one file with all of these wrong answers, as each start of Jupyter takes more than a second: each has a part of
    its own, where `double` is called double_0, double_1 and so on. A right part comes last; no answer may harm it.

    Args:
        cases: an answer, what is in the hint for its test, and what is in the note about its cell, if there is one.
    """
    parts, expected = [], []
    for number, case in enumerate(cases):
        part = json.loads(json.dumps(SOURCE.cells[:3]).replace("double", f"double_{number}"))
        parts.append([nbformat.from_dict(cell | {"id": f"{number}-{place}"}) for place, cell in enumerate(part)])
        expected.append([text and text.replace("double", f"double_{number}") for text in case])
    source = nbformat.v4.new_notebook(cells=[*itertools.chain(*parts), *SOURCE.cells[3:]])
    student = copy.deepcopy(source)
    for answer_cell, (answer, _, _) in zip(student.cells[1::3], expected):
        answer_cell.source = answer

    (*verdicts, half), notes = grade(student, source, folder)
    assert half.points == 3
    for verdict, (answer, hint, _) in zip(verdicts, expected, strict=True):
        assert verdict.points == 0 and hint in verdict.hint, answer
    noted = [note for *_, note in expected if note]
    assert len(notes) == len(noted) and all(part in note for part, note in zip(noted, notes)), notes


def test_right_answers_get_all_points(in_this_process, tmp_path):
    verdicts, notes = grade(SOURCE, SOURCE, tmp_path)
    assert [(v.title, v.points, v.possible, v.hint) for v in verdicts] == [("1. Double", 2, 2, ""), ("2. Half", 3, 3, "")]
    assert notes == []


@pytest.mark.slow
def test_a_wrong_answer_gets_a_hint_and_harms_no_other(tmp_path):
    pids = tmp_path / "pids"
    assert_graded(
        tmp_path,
        ("def double(x): return x + 1", "twice three is six", None),
        ("def double(x): raise NotImplementedError()", "not done yet", None),
        ("def double(x): return x.y", "your code stops with AttributeError", None),
        ("def double(x) return", "'double' is not defined", "begins with 'def double(x) return' stops with SyntaxError"),
        ("", "'double' is not defined", None),
        ("quit()", "'double' is not defined", "quit() and exit() end Python"),
        ("def double(x): exit()", "quit() and exit() end Python", None),
        ("import sys\ndef double(x): sys.exit()", "your code stops with SystemExit", None),
        # IPython cannot show this error.
        ("class Odd(Exception):\n    def _render_traceback_(self): raise ValueError\ndef double(x): raise Odd('odd')",
         "your code stops with Odd: odd", None),
        ("def double(x):\n    while True: print('again and again')", "more than 200,000 characters are printed", None),
        ("def double(x):\n    while True: display('again and again' * 99)", "more than 200,000 characters are printed", None),
        ("def double(x): return len(bytearray(10 << 30))", "your code stops with MemoryError", None),
        (starting_a_program(pids), "'double' is not defined", None))
    assert_ended(pids, 1)


def starting_a_program(pids) -> str:
    """Code that starts one which does not end, and notes its number in the file `pids`."""
    return f"""import os, subprocess
with open({str(pids)!r}, "a") as file:
    print(subprocess.Popen(["sleep", "600"]).pid, file=file)
"""


def assert_ended(pids, count: int) -> None:
    numbers = list(map(int, pids.read_text().split()))
    assert len(numbers) == count
    for pid in numbers:
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_code_that_ends_python_is_named_and_harms_no_other(tmp_path, monkeypatch, capfd):
    """And the programs that it started end with it; so do programs, and threads, that print without end."""
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # with it, ipykernel does not read what programs print
    monkeypatch.setattr(check, "SECONDS_PER_CELL", 300)
    started, pids = time.monotonic(), tmp_path / "pids"
    gone, ended = "'double' is not defined", "(os._exit, out of memory, a loop or a program that never ends); it was left out"
    assert_graded(
        tmp_path,
        (starting_a_program(pids) + "os._exit(1)", gone, "begins with 'import os, subprocess' ends Python itself"),
        (starting_a_program(pids) + "os.kill(os.getpid(), 9)", gone, "begins with 'import os, subprocess' ends Python itself"),
        ("import os\nos.system('yes')", gone, ended),
        ("import subprocess\nsubprocess.run(['yes'])", gone, ended),
        ("import os, threading\nthread = threading.Thread(target=lambda: [os.write(1, b'again') for _ in iter(int, 1)])\n"
         "thread.start()\nthread.join()", gone, ended),
        ("import os\ndef double(x): os._exit(1)", "your code ends Python itself", None))
    assert time.monotonic() - started < check.SECONDS_PER_CELL  # none had to be ended for its time
    assert_ended(pids, 2)
    assert capfd.readouterr() == ("", "")  # a table for --csv stays a table


@pytest.mark.slow
def test_a_loop_ends_after_its_time_even_if_it_cannot_be_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "SECONDS_PER_CELL", 2)
    stubborn = """import signal
from notebooks.exercises import limits
limits.GRACE = 2
def double(x):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True: pass"""
    assert_graded(tmp_path, (stubborn, "has to be ended with it", None),
                  ("def double(x):\n    while True: pass", "takes longer than 2 seconds", None))


def test_the_students_own_tests_do_not_count(in_this_process, tmp_path):
    student = with_answer("double", "def double(x): return 0")
    student.cells[2].source = "pass"
    (double, _), _ = grade(student, SOURCE, tmp_path)
    assert double.points == 0 and double.hint == "twice one is two"


def without_marks(notebook):
    notebook = copy.deepcopy(notebook)
    for one in notebook.cells:
        one.metadata = nbformat.NotebookNode()
    return notebook


def test_stripped_marks_cost_nothing(in_this_process, tmp_path):
    """As Colab and some submission systems leave a notebook: cells and their text, no notes about them."""
    student = without_marks(with_answer("half", "def half(x): return x"))
    verdicts, notes = grade(student, SOURCE, tmp_path)
    assert [v.points for v in verdicts] == [2, 0] and notes == []


def test_a_copied_mark_makes_no_test_of_an_answer(in_this_process, tmp_path):
    """Whoever writes the answer into a copy of the test's cell."""
    student = copy.deepcopy(SOURCE)
    student.cells[1] = cell("def double(x): return 2 * x", "double_test", 2)
    verdicts, notes = grade(student, SOURCE, tmp_path)
    assert [v.points for v in verdicts] == [2, 3] and notes == []


@pytest.mark.parametrize("marked", [True, False])
def test_a_lost_cell_is_named(marked, in_this_process, tmp_path):
    student = copy.deepcopy(SOURCE if marked else without_marks(SOURCE))
    del student.cells[1]
    (double, half), notes = grade(student, SOURCE, tmp_path)
    assert (double.points, half.points) == (0, 3)
    assert notes == ["The cell for double is not in the notebook; copy it from the exercise as it was given out, and write "
                     "your answer there."]


@pytest.mark.parametrize("number", ["01", "02", "03", "04", "05", "06"])
def test_an_exercise_without_marks_is_still_itself(number, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "grade", lambda student, source, folder: ([], []))
    nbformat.write(without_marks(read_notebook(release_path(number))), tmp_path / "mine.ipynb")
    assert check.grade_file(number, tmp_path / "mine.ipynb", read_notebook(source_path(number))) == ([], [])
    other = "03" if number != "03" else "04"
    with pytest.raises(InputError, match=f"holds nothing of exercise {other}, but exercise {number}; start from"):
        check.grade_file(other, tmp_path / "mine.ipynb", read_notebook(source_path(other)))


def test_what_is_borrowed_is_noted_and_costs_nothing(in_this_process, tmp_path):
    borrowed = "from ch_pretrain.bpe import join\ndef double(x): return 2 * x"
    (double, half), notes = grade(with_answer("double", borrowed), SOURCE, tmp_path)
    assert double.points == 2 and half.points == 3
    assert len(notes) == 1 and "begins with 'from ch_pretrain.bpe import join' imports ch_pretrain.bpe" in notes[0]


@pytest.mark.parametrize(("line", "found"), [
    ("import ch_delift.greedy as g", "ch_delift.greedy"), ("from common import gpt2", "common"),
    ("g = importlib.import_module('ch_sftmix.mixup')", "ch_sftmix.mixup"), ("import commonplace", None),
    ("from torch import Tensor", None)])
def test_what_counts_as_borrowed(line, found):
    notes = check.borrowed([cell(line, "a")], SOURCE)
    assert [f"imports {found}:" in note for note in notes] == ([True] if found else [])


@pytest.mark.parametrize(("code", "found"), [
    ("# from common sense; nothing is imported from ch_pretrain\nx = 1", []), ("x = 'import common.gpt2'", []),
    ("%time\nfrom common import gpt2  # from ch_sftmix", ["common"]),
    ("if x:\n    import ch_delift.greedy", ["ch_delift.greedy"])])
def test_words_in_comments_and_texts_import_nothing(code, found):
    assert [name for _, name in check.imported(code)] == found


def with_test(grade_id: str, source: str):
    notebook = copy.deepcopy(SOURCE)
    next(c for c in notebook.cells if check.mark(c).get("grade_id") == grade_id).source = source
    return notebook


def test_a_test_replaces_no_helper_of_the_student(in_this_process, tmp_path):
    source = with_test("double_test", "helper = 'some text'\nassert double(3) == 6")
    answer = "def helper(x): return x / 2\ndef half(x): return helper(x)"
    (double, half), _ = grade(with_answer("half", answer), source, tmp_path)
    assert (double.points, half.points) == (2, 3)


@pytest.mark.slow
def test_a_result_that_a_test_cannot_use_is_told_apart_from_code_that_stops(tmp_path):
    source = with_test("double_test", "assert abs(double(1)) == 2")
    for answer, hint in (("def double(x): return '2'", "the test cannot use what your code gives: is it of the right kind? (T"),
                         ("def double(x): return abs('2')", "your code stops with TypeError")):
        (double, _), _ = grade(with_answer("double", answer), source, tmp_path)
        assert double.points == 0 and double.hint.startswith(hint)


def test_what_an_exercise_gives_is_not_borrowed():
    source = read_notebook(source_path("02"))
    assert "from common.losses import IGNORE_INDEX" in "".join(check.code_of(source))
    assert check.borrowed(source.cells, source) == []


def run_main(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["check.py", *map(str, arguments)])
    check.main()


def test_nothing_is_run_where_nothing_was_written(monkeypatch, capsys):
    monkeypatch.setattr(check, "run_notebook", None)
    with pytest.raises(SystemExit) as end:
        run_main(monkeypatch, "01")
    assert end.value.code == 1
    out = capsys.readouterr().out
    assert "together" in out and " 0 of 10" in out and out.count("not done yet: write your code") == 5


@pytest.mark.slow
def test_the_command_grades_a_students_file(tmp_path):
    student = read_notebook(release_path("01"))
    shapes = next(c for c in student.cells if check.mark(c).get("grade_id") == "shapes")
    shapes.source = next(c.source for c in read_notebook(source_path("01")).cells if check.mark(c).get("grade_id") == "shapes")
    nbformat.write(student, tmp_path / "a.ipynb")
    done = run_command("notebooks/exercises/check.py", "01", "a.ipynb", folder=tmp_path, check=False,
                       PYTHONPROFILEIMPORTTIME="1")  # tells what is imported
    assert done.returncode == 1 and " 2 of 10" in done.stdout
    assert "TCP" not in done.stderr
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "nbformat" in imported and not imported & {"torch", "matplotlib"}  # which only what is graded needs


def test_a_notebook_of_something_else_is_refused(tmp_path, monkeypatch):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), tmp_path / "a.ipynb")
    with pytest.raises(InputError, match=r"a\.ipynb holds nothing of exercise 01; start from 01\.ipynb"):
        run_main(monkeypatch, "01", tmp_path / "a.ipynb")


def test_another_exercise_is_recognised(monkeypatch):
    with pytest.raises(InputError, match=r"02\.ipynb holds nothing of exercise 01, but exercise 02; start"):
        run_main(monkeypatch, "01", release_path("02"))


def test_a_folder_becomes_a_table(tmp_path, monkeypatch, capsys):
    (tmp_path / "anna").mkdir()
    for name, number in (("anna/a.ipynb", "01"), ("b.ipynb", "02")):
        nbformat.write(read_notebook(release_path(number)), tmp_path / name)
    (tmp_path / "c.ipynb").write_text("no notebook")
    run_main(monkeypatch, "01", "--csv", tmp_path)
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header == ["file", "shapes", "merge_step", "windows", "causal_weights", "top_k", "together", "notes"]
    assert [row[:7] for row in rows] == [["anna/a.ipynb", *"000000"], ["b.ipynb", *[""] * 6], ["c.ipynb", *[""] * 6]]
    assert "not done yet" in rows[0][7] and "but exercise 02" in rows[1][7] and "not a notebook" in rows[2][7]


def test_a_folder_without_notebooks_is_told(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="holds no notebooks"):
        run_main(monkeypatch, "01", "--csv", tmp_path)


def test_without_source_the_visible_tests_are_run_and_that_is_said(tmp_path, monkeypatch, capsys):
    path = tmp_path / "release" / "01" / "01.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(student_version(SOURCE), path)
    monkeypatch.setattr(release, "FOLDER", tmp_path)
    monkeypatch.setattr(check, "run_notebook", lambda *_: None)  # as if all cells passed
    run_main(monkeypatch, "01")
    out = capsys.readouterr().out
    assert "5 of 5" in out and "only the tests that you see were run" in out
    with pytest.raises(InputError, match="no exercise '09'; choose from 01"):
        run_main(monkeypatch, "09")


def test_a_machine_that_is_too_busy_to_begin_is_told(tmp_path, monkeypatch):
    """PyTorch is loaded before the student's first cell, so the time that this takes is not his."""
    ran = []

    def run_without(cells, folder):
        ran.extend(cells)
        cells[0].outputs = [nbformat.v4.new_output("error", ename="KeyboardInterrupt", evalue="", traceback=[])]
        return []

    monkeypatch.setattr(check, "run_without_those_that_end_it", run_without)
    source = copy.deepcopy(SOURCE)
    source.cells.insert(1, nbformat.v4.new_code_cell("import torch"))
    with pytest.raises(InputError, match="less busy"):
        grade(with_answer("double", "def double(x): return 2 * x"), source, tmp_path)
    assert ran[0].source.startswith("import torch\n") and "limits.apply" in ran[0].source
