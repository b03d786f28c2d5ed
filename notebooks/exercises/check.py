"""Grade an exercise: points, and a hint for each part that is not done.

    python notebooks/exercises/check.py 02                      # release/02/02.ipynb, where you wrote your answers
    python notebooks/exercises/check.py 02 anna/02.ipynb        # any student's notebook
    python notebooks/exercises/check.py 02 --csv handed_in      # all notebooks in a folder and below: a table, one row each

Runs the student's cells in order in a fresh Python process, then the instructor's tests with the hidden ones. It ignores test
cells in the student's file. Needs no network. The code runs with your rights: grade strangers' files in a container. A cell may
take a minute and print 200,000 characters, and the process 4 GB. Programs that a cell starts end with it (`limits.py`).
That stops accidents, not malice. If a cell ends Python itself, the checker names it and grades the rest without it. Exit status
0 with full points or a table, 1 with fewer points.
"""

import ast
import contextlib
import copy
import csv
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import notebooks  # noqa: F401  # before nbformat is loaded
from common.support import options
from common.support.console import say, table
from common.support.files import InputError
from common.support.options import REQUIRED, Options, option


@dataclass(frozen=True)
class CheckOptions(Options):
    """The options of this command."""

    number: str = option(REQUIRED, "01, 02, ...", positional=True, metavar="NUMBER")
    file: Path | None = option(None, "the student's notebook (default: the one in release/)", Path, positional=True,
                               metavar="FILE")
    csv: Path | None = option(None, "grade all notebooks in this folder; prints a row for each", Path, metavar="FOLDER")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.csv and self.file:
            raise InputError("--csv grades a folder; leave out FILE; --help lists all options.")


if __name__ == "__main__":
    options.run_command(options.parse, CheckOptions, __doc__)  # --help and wrong options end here: imports take seconds

import nbformat.v4
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode

from notebooks.execute import read_notebook, run_notebook
from notebooks.exercises.release import exercise_numbers, release_path, student_version, tests_path

SECONDS_PER_CELL = 60
TEST = "<test>"  # the file of a test's lines, for tracebacks
TOLD = ("NotImplementedError", "Ended", "KeyboardInterrupt", "AssertionError", "NameError")  # errors with hints of their own
UNREADABLE = "test: "  # begins the kind of an error that happened in the test itself
ENDED = "ends Python itself, or has to be ended with it (os._exit, out of memory, a loop or a program that never ends)"
OURS = r"(?:common|ch_\w+|transformers)\b"
BORROWED = re.compile(rf"(?:from|import|import_module\(|__import__\()\s*[\"']?({OURS}[\w.]*)")


class Verdict(NamedTuple):
    """What one test says."""

    title: str  # the heading above it
    points: int
    possible: int
    hint: str  # why it failed; empty if it passed


def is_test(cell: NotebookNode) -> bool:
    """Whether a cell gives points."""
    return bool(mark(cell).get("grade"))


def mark(cell: NotebookNode) -> dict:
    """What nbgrader notes about a cell; nothing if there is no such note, or something else in its place."""
    found = cell.metadata.get("nbgrader")
    return found if isinstance(found, dict) else {}


def defined(cell: NotebookNode) -> set[str]:
    """The functions and classes that a cell defines, whether or not it is whole Python."""
    return set(re.findall(r"^(?:def|class)\s+(\w+)", cell.source, re.MULTILINE))


def answers_in(student: NotebookNode, source: NotebookNode) -> list[NotebookNode]:
    """The student's code without the tests, whose marks may be lost or copied: some tools strip them, and a cell that is split
    or copied hands its mark on. So a test is what reads like one; or is marked as one and defines nothing of its own."""
    tests = [cell for notebook in (source, student_version(source)) for cell in notebook.cells if is_test(cell)]
    texts, known = {cell.source.strip() for cell in tests}, set().union(*map(defined, tests))
    return [cell for cell in student.cells if cell.cell_type == "code" and cell.source.strip() not in texts
            and not (is_test(cell) and defined(cell) <= known)]


def lost_cells(answers: list[NotebookNode], source: NotebookNode) -> list[str]:
    """A sentence about each cell for an answer that is not there any more."""
    ids, names = {mark(cell).get("grade_id") for cell in answers}, set().union(*map(defined, answers))
    wanted = [cell for cell in source.cells if cell.cell_type == "code" and not is_test(cell) and defined(cell)]
    return [f"The cell for {' and '.join(sorted(defined(cell) - names))} is not in the notebook; copy it from the exercise as "
            "it was given out, and write your answer there." for cell in wanted
            if mark(cell).get("grade_id") not in ids and not defined(cell) & names]


def error_of(cell: NotebookNode) -> tuple[str, str] | None:
    """The kind and text of the error that a cell ended with, if it did."""
    return next(((output.ename, output.evalue) for output in cell.get("outputs", ()) if output.output_type == "error"), None)


def apart(test: NotebookNode) -> NotebookNode:
    """The same test with names of its own: what it defines does not replace a helper of the student's."""
    test = copy.deepcopy(test)
    test.source = f"exec(compile({test.source!r}, {TEST!r}, 'exec'), globals().copy())"
    return test


def in_the_test(cell: NotebookNode) -> bool:
    """Whether a test failed in its own lines, not in the student's."""
    told = "\n".join(line for output in cell.outputs if output.output_type == "error" for line in output.traceback)
    _, own, after = re.sub(r"\x1b\[[\d;]*m", "", told).rpartition(f"File {TEST}")  # without colours
    return bool(own) and "Cell In" not in after


def hint_for(kind: str, text: str) -> str:
    """One sentence for an error in a test."""
    if kind == "NotImplementedError":
        return "not done yet: write your code in the place of `raise NotImplementedError()`."
    if kind == "Ended":
        return f"your code {ENDED}."
    if kind == "KeyboardInterrupt":
        return f"takes longer than {SECONDS_PER_CELL} seconds; is there a loop that never ends?"
    if kind == "AssertionError":
        return text or "a test failed."
    if kind.startswith(UNREADABLE):
        return f"the test cannot use what your code gives: is it of the right kind? ({kind.removeprefix(UNREADABLE)}: {text})"
    return f"your code stops with {kind}: {text}"


def begins(cell: NotebookNode) -> str:
    """How a sentence about a cell names it."""
    return f"The cell that begins with {cell.source.strip().splitlines()[0]!r}"


def code_of(notebook: NotebookNode) -> list[str]:
    """The sources of all code cells."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def imported(code: str) -> Iterator[tuple[int, str]]:
    """Each module of the project that code imports, with its line, from 0; by the letters where this is not whole Python."""
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except SyntaxError:
        found = [BORROWED.search(line.partition("#")[0]) for line in code.splitlines()]
        yield from ((number, match[1]) for number, match in enumerate(found) if match)
        return
    for node in nodes:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            names = [str(node.args[0].value)] * (called in ("import_module", "__import__"))
        yield from ((node.lineno - 1, name) for name in names if re.match(OURS, name))


def borrowed(cells: list[NotebookNode], source: NotebookNode) -> list[str]:
    """A sentence about each cell that imports what the project has defined, beyond what the exercise gives."""
    given = {line for code in code_of(source) for line in code.splitlines()}
    found = [(cell, name) for cell in cells for line, name in imported(cell.source)
             if cell.source.splitlines()[line] not in given]
    return [f"{begins(cell)} imports {module}: an answer that is taken from there costs no points, but is not your own."
            for cell, module in found]


def end_programs(bounds: NotebookNode) -> None:
    """End what the process that ran this first cell has started: what ends Python itself leaves it behind."""
    for output in bounds.outputs:
        if "data" in output and hasattr(os, "killpg"):  # Windows knows no groups
            with contextlib.suppress(ProcessLookupError):  # nothing is left
                os.killpg(int(output.data["text/plain"]), signal.SIGKILL)


def run_without_those_that_end_it(cells: list[NotebookNode], folder: Path) -> list[NotebookNode]:
    """Run cells in a fresh process; where one ends the process, all others again, without it.

    Returns:
        The cells that ended it. The others hold their outputs.

    Raises:
        InputError: if it ended before the second cell.
    """
    ended: list[NotebookNode] = []
    while True:
        for cell in cells:
            cell.outputs = []
        started: list[NotebookNode] = []
        try:
            run_notebook(nbformat.v4.new_notebook(cells=cells), folder, SECONDS_PER_CELL, True, started.append)
            return ended
        except DeadKernelError as error:
            if len(started) < 2:
                raise InputError("The Python that runs notebooks ends at once; does `jupyter lab` work here?") from error
            ended.append(started[-1])
            cells = [cell for cell in cells if cell is not started[-1]]
        finally:
            end_programs(cells[0])


def grade(student: NotebookNode, source: NotebookNode, folder: Path) -> tuple[list[Verdict], list[str]]:
    """Run a student's answers and the instructor's tests. Nothing is run for a notebook in which nothing was written.

    Args:
        folder: where the code runs.

    Returns:
        One verdict per test, and a sentence about each of the student's cells that failed by itself or borrowed something.

    Raises:
        InputError: if no code can be run.
    """
    answers = copy.deepcopy(answers_in(student, source))
    titles, tests = [], []
    for cell in source.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("#"):
            title = cell.source.splitlines()[0].lstrip("# ")
        if is_test(cell):
            titles.append(title)
            tests.append(apart(cell))

    if code_of(student) == code_of(student_version(source)) != code_of(source):
        errors: list[tuple[str, str] | None] = [("NotImplementedError", "")] * len(tests)
        notes = []
    else:
        # To load PyTorch takes a minute on a machine that does much else; no cell of the student is to be ended for that.
        first = "import torch\n" * any("import torch" in code for code in code_of(source))
        bounds = nbformat.v4.new_code_cell(
            f"{first}from notebooks.exercises import limits\nlimits.apply(get_ipython(), {SECONDS_PER_CELL})")
        ended = run_without_those_that_end_it([bounds, *answers, *tests], folder)
        if error := error_of(bounds):
            if error[0] == "KeyboardInterrupt":
                raise InputError(f"Python needed more than {SECONDS_PER_CELL} s to begin; grade again when the machine is "
                                 "less busy.")
            raise InputError(f"The bounds for the notebook's code could not be set ({error[0]}: {error[1]}); is this project "
                             "installed for the Python that runs notebooks?")
        errors = [("Ended", "") if any(test is cell for cell in ended) else error_of(test) for test in tests]
        errors = [(UNREADABLE + error[0], error[1]) if error and error[0] not in TOLD and in_the_test(test) else error
                  for test, error in zip(tests, errors)]
        notes = [f"{begins(cell)} {ENDED}; it was left out." for cell in answers if any(cell is other for other in ended)]
        notes += [f"{begins(cell)} stops with {error[0]}: {error[1]}" for cell in answers if (error := error_of(cell))]
        notes += borrowed(answers, source) + lost_cells(answers, source)

    verdicts = []
    for title, test, error in zip(titles, tests, errors):
        possible = test.metadata.nbgrader.points
        verdicts.append(Verdict(title, 0 if error else possible, possible, hint_for(*error) if error else ""))
    return verdicts, notes


def grade_file(number: str, path: Path, source: NotebookNode) -> tuple[list[Verdict], list[str]]:
    """Grade the notebook in a file.

    Raises:
        InputError: if it cannot be read, or is not this exercise.
    """
    student = read_notebook(path)

    def belongs_to(exercise: NotebookNode) -> bool:
        """By a mark, or where these are lost by the text of a task or of a test."""
        ids = {grade_id for cell in exercise.cells if (grade_id := mark(cell).get("grade_id"))}
        texts = {cell.source.strip() for cell in student_version(exercise).cells if is_test(cell) or ("\n" in cell.source
                 and cell.cell_type == "markdown")}
        return any(mark(cell).get("grade_id") in ids or cell.source.strip() in texts for cell in student.cells)

    if not belongs_to(source):
        other = [known for known in exercise_numbers() if belongs_to(read_notebook(tests_path(known)))]
        raise InputError(f"{path} holds nothing of exercise {number}" + (f", but exercise {other[0]}" if other else "")
                         + f"; start from {release_path(number).name} in release/{number}.")
    return grade(student, source, path.resolve().parent)


def write_table(number: str, folder: Path, source: NotebookNode) -> None:
    """Grade all notebooks in a folder and those below it. Prints comma-separated values, one row for each."""
    paths = [path for path in sorted(folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
    if not paths:
        raise InputError(f"{folder} holds no notebooks (.ipynb); give the folder of what was handed in.")
    tests = [mark(cell) for cell in source.cells if is_test(cell)]
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["file", *(test["grade_id"].removesuffix("_test") for test in tests), "together", "notes"])
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            verdicts, notes = grade_file(number, path, source)
        except InputError as error:
            rows.writerow([name, *[""] * (len(tests) + 1), error])
        else:
            notes = [*notes, *(f"{v.title}: {v.hint}" for v in verdicts if v.hint)]
            rows.writerow([name, *(v.points for v in verdicts), sum(v.points for v in verdicts), "\n".join(notes)])
        sys.stdout.flush()


def main() -> None:
    args = options.parse(CheckOptions, __doc__)
    tests = tests_path(args.number)
    source = read_notebook(tests)
    if args.csv:
        write_table(args.number, args.csv, source)
        return

    verdicts, notes = grade_file(args.number, args.file or release_path(args.number), source)
    if tests == release_path(args.number):
        notes.append("There is no folder source/ here, so only the tests that you see were run; your teacher may have more.")
    points, possible = sum(v.points for v in verdicts), sum(v.possible for v in verdicts)
    say(table([f"exercise {args.number}", "points"], [[v.title, f"{v.points} of {v.possible}"] for v in verdicts]
              + [["together", f"{points} of {possible}"]]))
    for line in [*notes, *(f"{v.title}: {v.hint}" for v in verdicts if v.hint)]:
        say(f"\n{line}")
    if points < possible:
        sys.exit(1)


if __name__ == "__main__":
    options.run_command(main)
