"""Make the students' notebooks from the instructor's.

    python notebooks/exercises/release.py           # all exercises
    python notebooks/exercises/release.py 02

Reads source/02/02.ipynb, writes release/02/02.ipynb: solutions replaced by a stub, hidden tests taken out. The marks are
nbgrader's (### BEGIN SOLUTION, ### BEGIN HIDDEN TESTS), and nbgrader makes the same cells of them.
"""

import copy
from pathlib import Path

from nbformat import NotebookNode

from common import options
from common.console import say
from common.files import InputError
from notebooks.execute import read_notebook, write_notebook

FOLDER = Path(__file__).resolve().parent
STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")


def source_path(number: str) -> Path:
    """The instructor's notebook of an exercise.

    Raises:
        InputError: if there is none of this number.
    """
    path = FOLDER / "source" / number / f"{number}.ipynb"
    if not path.exists():
        raise InputError(f"There is no exercise {number!r}; choose from {', '.join(exercise_numbers())}.")
    return path


def release_path(number: str) -> Path:
    """The students' notebook of an exercise."""
    return FOLDER / "release" / number / f"{number}.ipynb"


def exercise_numbers() -> list[str]:
    """The numbers of all exercises: "01", "02", ..."""
    return sorted(path.stem for path in FOLDER.glob("source/*/*.ipynb"))


def without_answers(source: str) -> str:
    """The code of a cell as students get it: a stub for each solution, no hidden test."""
    lines, inside = [], ""
    for line in source.splitlines():
        mark = line.strip()
        if mark in ("### BEGIN SOLUTION", "### BEGIN HIDDEN TESTS"):
            inside = mark.removeprefix("### BEGIN ")
            if inside == "SOLUTION":
                indent = line[:line.index("#")]
                lines += [indent + stub for stub in STUB]
        elif mark == f"### END {inside}":
            inside = ""
        elif not inside:
            lines.append(line)
    return "\n".join(lines)


def student_version(source: NotebookNode) -> NotebookNode:
    """A copy of an instructor's notebook without answers and outputs."""
    notebook = copy.deepcopy(source)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source, cell.outputs, cell.execution_count = without_answers(cell.source), [], None
    return notebook


def main() -> None:
    parser = options.Parser(__doc__)
    parser.add_argument("numbers", nargs="*", metavar="NUMBER", help="01, 02, ... (default: all)")
    for number in parser.parse_args().numbers or exercise_numbers():
        notebook = student_version(read_notebook(source_path(number)))
        release_path(number).parent.mkdir(parents=True, exist_ok=True)
        write_notebook(release_path(number), notebook)
        say(f"release/{number}/{number}.ipynb")


if __name__ == "__main__":
    options.run_command(main)
