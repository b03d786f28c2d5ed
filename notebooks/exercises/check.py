"""Grade an exercise: points, and a hint for each part that is not done.

    python notebooks/exercises/check.py 02                      # release/02/02.ipynb, where you wrote your answers
    python notebooks/exercises/check.py 02 anna/02.ipynb        # any student's notebook

Runs the student's cells in order in a fresh Python process, then the instructor's tests, hidden ones among them; test cells
in the student's file are not looked at. Needs no network. The code runs with your rights: grade strangers' files in a
container. A cell may take a minute and print 200,000 characters, and the process take 4 GB (`limits.py`): that stops accidents,
not malice. Exit status 0 with full points, 1 with fewer.
"""

import copy
import sys
from pathlib import Path
from typing import NamedTuple

import nbformat.v4
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode

from common import options
from common.console import say, table
from common.files import InputError
from notebooks.execute import read_notebook, run_notebook
from notebooks.exercises.release import release_path, source_path

SECONDS_PER_CELL = 60


class Verdict(NamedTuple):
    """What one test says."""

    grade_id: str  # of the test cell
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


def error_of(cell: NotebookNode) -> tuple[str, str] | None:
    """The kind and text of the error that a cell ended with, if it did."""
    return next(((output.ename, output.evalue) for output in cell.get("outputs", ()) if output.output_type == "error"), None)


def hint_for(kind: str, text: str) -> str:
    """One sentence for an error in a test."""
    if kind == "NotImplementedError":
        return "not done yet: write your code in the place of `raise NotImplementedError()`."
    if kind == "KeyboardInterrupt":
        return f"takes longer than {SECONDS_PER_CELL} seconds; is there a loop that never ends?"
    if kind == "AssertionError":
        return text or "a test failed."
    return f"your code stops with {kind}: {text}"


def grade(student: NotebookNode, source: NotebookNode, folder: Path) -> tuple[list[Verdict], list[str]]:
    """Run a student's answers and the instructor's tests.

    Args:
        folder: where the code runs.

    Returns:
        One verdict per test, and a sentence about each of the student's cells that failed by itself.

    Raises:
        InputError: if the code ends the Python process.
    """
    answers = [copy.deepcopy(cell) for cell in student.cells if cell.cell_type == "code" and not is_test(cell)]
    titles, tests = [], []
    for cell in source.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("#"):
            title = cell.source.splitlines()[0].lstrip("# ")
        if is_test(cell):
            titles.append(title)
            tests.append(copy.deepcopy(cell))
    bounds = nbformat.v4.new_code_cell(
        f"from notebooks.exercises import limits\nlimits.apply(get_ipython(), {SECONDS_PER_CELL})")
    try:
        run_notebook(nbformat.v4.new_notebook(cells=[bounds, *answers, *tests]), folder, SECONDS_PER_CELL, allow_errors=True)
    except DeadKernelError as error:
        raise InputError("The notebook ended its Python process (os._exit, out of memory, or a loop that cannot be "
                         "interrupted?); mend that and try again.") from error

    if error := error_of(bounds):
        raise InputError(f"The bounds for the notebook's code could not be set ({error[0]}: {error[1]}); is this project "
                         "installed for the Python that runs notebooks?")
    verdicts = []
    for title, test in zip(titles, tests):
        error, possible = error_of(test), test.metadata.nbgrader.points
        verdicts.append(Verdict(test.metadata.nbgrader.grade_id, title, 0 if error else possible, possible,
                                hint_for(*error) if error else ""))
    notes = [f"The cell that begins with {cell.source.strip().splitlines()[0]!r} stops with {error[0]}: {error[1]}"
             for cell in answers if (error := error_of(cell))]
    return verdicts, notes


def main() -> None:
    parser = options.Parser(__doc__)
    parser.add_argument("number", metavar="NUMBER", help="01, 02, ...")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE",
                        help="the student's notebook (default: the one in release/)")
    args = parser.parse_args()
    source = read_notebook(source_path(args.number))
    path = args.file or release_path(args.number)
    student = read_notebook(path)
    known = [mark(cell)["grade_id"] for cell in source.cells if mark(cell)]
    if not any(mark(cell).get("grade_id") in known for cell in student.cells):
        raise InputError(f"{path} holds nothing of exercise {args.number}; start from {release_path(args.number).name} in "
                         f"release/{args.number}.")

    verdicts, notes = grade(student, source, path.resolve().parent)
    points, possible = sum(v.points for v in verdicts), sum(v.possible for v in verdicts)
    say(table([f"exercise {args.number}", "points"], [[v.title, f"{v.points} of {v.possible}"] for v in verdicts]
              + [["together", f"{points} of {possible}"]]))
    for line in [*notes, *(f"{v.title}: {v.hint}" for v in verdicts if v.hint)]:
        say(f"\n{line}")
    if points < possible:
        sys.exit(1)


if __name__ == "__main__":
    options.run_command(main)
