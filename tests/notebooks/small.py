"""Notebooks run with small sizes, and what they printed."""

from functools import cache

import pytest
from nbformat import NotebookNode

from notebooks.execute import find_notebooks, read_notebook, run_notebook


@cache
def run_small(number: str) -> NotebookNode:
    """The notebook of this number, run from top to bottom with NOTEBOOK_SMALL=1, without a network and with one thread."""
    [path] = find_notebooks([number])
    notebook = read_notebook(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
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
