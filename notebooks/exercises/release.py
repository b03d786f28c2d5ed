"""Make the students' notebooks from the instructor's.

    python notebooks/exercises/release.py           # all exercises
    python notebooks/exercises/release.py 02
    python notebooks/exercises/release.py --bundle ../students      # a folder to hand out, with all that students get

Reads source/02/02.ipynb, writes release/02/02.ipynb: solutions replaced by a stub, hidden tests taken out. The marks are
nbgrader's (### BEGIN SOLUTION, ### BEGIN HIDDEN TESTS), and nbgrader makes the same cells of them.

With --bundle nothing is written but the folder: the chapters, the notebooks, exercises made from source/, and the checker,
without solutions, hidden tests, typical answers, the rubric and the teachers' page.
"""

import argparse
import copy
import os
import shutil
from pathlib import Path

import notebooks  # noqa: F401  # before nbformat is loaded
from common.support import options
from common.support.console import say
from common.support.files import InputError


def parse() -> argparse.Namespace:
    parser = options.Parser(__doc__)
    parser.add_argument("numbers", nargs="*", metavar="NUMBER", help="01, 02, ... (default: all)")
    parser.add_argument("--bundle", type=Path, metavar="FOLDER", help="make a new folder with all that students get")
    return parser.parse_args()


if __name__ == "__main__":
    options.run_command(parse)  # --help and wrong options end here: the imports below take seconds

from nbformat import NotebookNode

from notebooks.execute import read_notebook, write_notebook

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
STUDENTS_GET = ("LICENSE", ".github/CONTRIBUTING.md", "docs/xray/*", "pyproject.toml", "requirements*.txt", "common/**/*",
                "ch_*/**/*", "notebooks/**/*")
TEACHERS_KEEP = {"source", "release", "wrong", "right", "rubric.md"}  # release is made anew: somebody may have answered in it
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


def tests_path(number: str) -> Path:
    """The notebook with the tests of an exercise: the instructor's, or the students', where the folder source/ is not at hand.

    Raises:
        InputError: if there is none of this number.
    """
    if not (FOLDER / "source").exists() and number in exercise_numbers():
        return release_path(number)
    return source_path(number)


def exercise_numbers() -> list[str]:
    """The numbers of all exercises: "01", "02", ..."""
    return sorted({path.stem for kind in ("source", "release") for path in FOLDER.glob(f"{kind}/*/*.ipynb")})


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


def students_files() -> dict[str, Path]:
    """What students get as it lies: path in their folder -> file. README.md and notebooks/README.md there are theirs."""
    found = {path.relative_to(ROOT).as_posix(): path for pattern in STUDENTS_GET for path in sorted(ROOT.glob(pattern))
             if path.is_file() and not {*TEACHERS_KEEP, "__pycache__", ".ipynb_checkpoints"} & {*path.relative_to(ROOT).parts}}
    found["README.md"] = found.pop("notebooks/students.md")  # the project's speaks of tests, which students do not get
    found["notebooks/README.md"] = found.pop("notebooks/questions.md")
    return found


def bundle(folder: Path, numbers: list[str]) -> None:
    """Make the folder that students get, with the exercises of these numbers, whole or not at all.

    Raises:
        InputError: if there is something in the folder already, or it lies inside the project.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already and not an empty folder; give the name of a new one.")
    if ROOT in folder.parents:
        raise InputError(f"{folder} lies inside the project; give a folder outside of {ROOT}.")
    exercises = {number: student_version(read_notebook(source_path(number))) for number in numbers}
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        for name, path in students_files().items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, temporary / name)
        for number, notebook in exercises.items():
            path = temporary / release_path(number).relative_to(ROOT)
            path.parent.mkdir(parents=True)
            write_notebook(path, notebook)
        if folder.exists():
            folder.rmdir()  # it is empty, and Windows renames to new names only
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def main() -> None:
    args = parse()
    numbers = args.numbers or exercise_numbers()
    if not numbers:
        raise InputError(f"There is no exercise in {FOLDER / 'source'}; this needs the whole project, not what students get.")
    if args.bundle:
        bundle(args.bundle, numbers)
        say(f"{args.bundle}: chapters, notebooks, the checker, exercises {', '.join(numbers)}")
        return
    for number in numbers:
        notebook = student_version(read_notebook(source_path(number)))
        release_path(number).parent.mkdir(parents=True, exist_ok=True)
        write_notebook(release_path(number), notebook)
        say(f"release/{number}/{number}.ipynb")


if __name__ == "__main__":
    options.run_command(main)
