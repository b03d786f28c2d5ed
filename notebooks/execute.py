"""Run notebooks from top to bottom and store what they show.

    python notebooks/execute.py                                     # all of them
    python notebooks/execute.py 01 02                               # some
    NOTEBOOK_SMALL=1 python notebooks/execute.py 02 --out tried     # small sizes, to try a change

Each notebook runs in a fresh Python process. It is written back with its outputs and, in its metadata, the SHA-256 of its
code: a test fails when the code was changed after the outputs were made. When a cell fails, nothing is written.
"""

import argparse
import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import notebooks  # noqa: F401  # before nbformat is loaded
from common.support import options
from common.support.console import say
from common.support.files import InputError, parse_json, reading, write_text


def parse() -> argparse.Namespace:
    parser = options.Parser(__doc__)
    parser.add_argument("numbers", nargs="*", metavar="NUMBER", help="01, 02, ... (default: all)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: over the notebooks themselves)")
    args = parser.parse_args()
    if os.environ.get("NOTEBOOK_SMALL") and args.out is None:
        raise InputError("NOTEBOOK_SMALL is set, and the notebooks hold the outputs of full runs; unset it or give --out.")
    return args


if __name__ == "__main__":
    options.run_command(parse)  # --help and wrong options end here: the imports below take seconds

import nbformat.v4
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent


def find_notebooks(numbers: list[str], folder: Path = FOLDER) -> list[Path]:
    """The notebooks of these numbers ("01"), or all, in order.

    Raises:
        InputError: if there is no notebook of a number.
    """
    found = {path.name.partition("_")[0]: path for path in sorted(folder.glob("[0-9]*_*.ipynb"))}
    for number in numbers:
        if number not in found:
            raise InputError(f"There is no notebook {number!r}; choose from {', '.join(found)}.")
    return [found[number] for number in numbers or found]


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook file in today's format.

    Raises:
        InputError: if there is no such file, or it is no notebook.
    """
    with reading(path, "not a notebook", "save it again as .ipynb"):
        text = path.read_text(encoding="utf-8")
        parse_json(text, {"nbformat": int})  # whose texts can be written again
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
    return notebook


def write_notebook(path: Path, notebook: NotebookNode) -> None:
    """Write a notebook file, whole or not at all."""
    write_text(path, nbformat.writes(notebook) + "\n")


def code_hash(notebook: NotebookNode) -> str:
    """SHA-256 of all code cells: what the outputs depend on, as far as the notebook knows."""
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()


def run_notebook(notebook: NotebookNode, folder: Path, seconds_per_cell: int = 3600, allow_errors: bool = False,
                 before_each: Callable[[NotebookNode], object] | None = None) -> None:
    """Run all cells in a fresh process that works in `folder`. Their outputs come into the notebook, and nowhere else.

    Args:
        seconds_per_cell: a cell that takes longer is interrupted, which it shows as KeyboardInterrupt.
        allow_errors: go on after a cell that fails.
        before_each: is told each cell before it runs.

    Raises:
        CellExecutionError: if a cell fails, unless errors are allowed.
        DeadKernelError: if the process ends.
    """
    def show_error(cell: NotebookNode, cell_index: int, execute_reply: dict) -> None:
        if all(output.output_type != "error" for output in cell.outputs):  # IPython could not write its traceback
            cell.outputs.append(nbformat.v4.new_output(
                "error", ename=execute_reply["content"]["ename"], evalue=execute_reply["content"]["evalue"]))

    NotebookClient(notebook, timeout=seconds_per_cell, interrupt_on_timeout=True, allow_errors=allow_errors,
                   record_timing=False, coalesce_streams=True, kernel_name="python3",
                   resources={"metadata": {"path": str(folder)}},
                   on_cell_execute=before_each and (lambda cell, cell_index: before_each(cell)),
                   on_cell_error=show_error,
                   extra_arguments=["--log-level=ERROR"]  # no notes of its own about sockets
                   ).execute(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # or it repeats here what programs print


def main() -> None:
    args = parse()
    paths = find_notebooks(args.numbers)
    (args.out or FOLDER).mkdir(parents=True, exist_ok=True)
    for path in paths:
        notebook = read_notebook(path)
        start = time.monotonic()
        try:
            run_notebook(notebook, path.parent)
        except CellExecutionError as error:
            raise InputError(f"{path.name} stops with {error.ename}: {error.evalue}; nothing of it was written.") from error
        seconds = round(time.monotonic() - start)
        notebook.metadata["executed"] = {"code_sha256": code_hash(notebook), "seconds": seconds}
        write_notebook((args.out or FOLDER) / path.name, notebook)
        say(f"{path.name}: {seconds} s")


if __name__ == "__main__":
    options.run_command(main)
