"""Notebooks run with small sizes, and what they printed."""

import tempfile
from functools import cache
from pathlib import Path

import pytest
from nbformat import NotebookNode

from notebooks.execute import find_notebooks, read_notebook, run_notebook
from tests.models import save_tiny

TINY = ("03", "04")  # what these show in a small run does not depend on what the model knows
SMALLER = {"01": ("from ch_pretrain.lab.look_back import", "from ch_pretrain.lab import look_back\n\nlook_back.LISTS = 4\n")}


@cache
def run_small(number: str) -> NotebookNode:
    """The notebook of this number, run from top to bottom with NOTEBOOK_SMALL=1, without a network and with one thread. Some
    with a tiny model, or with less of what has no small size of its own."""
    [path] = find_notebooks([number])
    notebook = read_notebook(path)
    if number in TINY:
        save_tiny(model := Path(tempfile.mkdtemp()))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            if number in TINY:
                cell.source = cell.source.replace('MODEL = "classroom"', f"MODEL = {str(model)!r}")
            mark, first = SMALLER.get(number, ("", ""))
            cell.source = first * (mark in cell.source) + cell.source
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("NOTEBOOK_SMALL", "1"), ("HF_HUB_OFFLINE", "1"), ("OMP_NUM_THREADS", "1")):
            patch.setenv(name, value)
        run_notebook(notebook, path.parent, seconds_per_cell=300)
    return notebook


def printed(notebook: NotebookNode) -> str:
    """All that its cells printed, in order."""
    return "\n".join(output.text for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
                     if output.output_type == "stream")


def pictures(notebook: NotebookNode) -> int:
    """How many pictures it drew."""
    return sum("image/png" in output.get("data", {}) for cell in notebook.cells if cell.cell_type == "code"
               for output in cell.outputs)
