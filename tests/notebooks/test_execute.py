import sys

import nbformat.v4
import pytest

from common.support.files import InputError
from notebooks import execute
from notebooks.execute import code_hash, find_notebooks, read_notebook, run_notebook, write_notebook


def notebook(*sources: str):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


@pytest.mark.slow
def test_cells_run_in_order_in_one_process_and_keep_their_outputs(tmp_path):
    made = notebook("x = 1", "import os; print(x + 1, os.getcwd())")
    run_notebook(made, tmp_path)
    assert made.cells[1].outputs[0].text == f"2 {tmp_path}\n"


@pytest.mark.slow
def test_a_cell_that_never_ends_is_interrupted(tmp_path):
    made = notebook("while True: pass", "print('on')")
    run_notebook(made, tmp_path, seconds_per_cell=1, allow_errors=True)
    assert made.cells[0].outputs[-1].ename == "KeyboardInterrupt" and made.cells[1].outputs[0].text == "on\n"


def test_the_hash_is_of_code_alone():
    made = notebook("a = 1")
    before = code_hash(made)
    made.cells.append(nbformat.v4.new_markdown_cell("words"))
    assert code_hash(made) == before != code_hash(notebook("a = 2"))
    assert code_hash(notebook("a", "b")) != code_hash(notebook("ab"))


def test_notebooks_are_found_by_number(tmp_path):
    for name in ("02_b.ipynb", "01_a.ipynb", "notes.ipynb"):
        (tmp_path / name).touch()
    assert [path.name for path in find_notebooks([], tmp_path)] == ["01_a.ipynb", "02_b.ipynb"]
    assert [path.name for path in find_notebooks(["02"], tmp_path)] == ["02_b.ipynb"]


@pytest.mark.parametrize("content", ["", "<html>", "[]", "{}", '{"cells": 3, "nbformat": 4, "nbformat_minor": 5}', "\0"])
def test_what_is_no_notebook_is_refused(content, tmp_path):
    (tmp_path / "a.ipynb").write_text(content)
    with pytest.raises(InputError, match=r"a\.ipynb is not a notebook"):
        read_notebook(tmp_path / "a.ipynb")


def test_what_is_written_is_read_again(tmp_path):
    write_notebook(tmp_path / "a.ipynb", notebook("a = 'ä'"))
    assert read_notebook(tmp_path / "a.ipynb").cells[0].source == "a = 'ä'"


def test_outputs_of_small_sizes_never_replace_the_stored_ones(monkeypatch):
    monkeypatch.setenv("NOTEBOOK_SMALL", "1")
    monkeypatch.setattr(sys, "argv", ["execute.py"])
    with pytest.raises(InputError, match=r"NOTEBOOK_SMALL is set.*--out"):
        execute.main()


@pytest.mark.slow
def test_a_notebook_that_fails_is_told_and_not_written(tmp_path, monkeypatch):
    write_notebook(tmp_path / "01_a.ipynb", notebook("1 / 0"))
    before = (tmp_path / "01_a.ipynb").read_bytes()
    monkeypatch.delenv("NOTEBOOK_SMALL", raising=False)
    monkeypatch.setattr(execute, "FOLDER", tmp_path)
    monkeypatch.setattr(execute, "find_notebooks", lambda numbers: [tmp_path / "01_a.ipynb"])
    monkeypatch.setattr(sys, "argv", ["execute.py", "01"])
    with pytest.raises(InputError, match=r"01_a\.ipynb stops with ZeroDivisionError: division by zero; nothing of it"):
        execute.main()
    assert (tmp_path / "01_a.ipynb").read_bytes() == before


@pytest.mark.slow
def test_a_whole_run_stores_outputs_and_the_hash_of_the_code(tmp_path, monkeypatch):
    write_notebook(tmp_path / "01_a.ipynb", notebook("print('seen')"))
    monkeypatch.setattr(execute, "find_notebooks", lambda numbers: [tmp_path / "01_a.ipynb"])
    monkeypatch.setattr(sys, "argv", ["execute.py", "01", "--out", str(tmp_path / "out")])
    execute.main()
    done = read_notebook(tmp_path / "out" / "01_a.ipynb")
    assert done.cells[0].outputs[0].text == "seen\n"
    assert done.metadata.executed.code_sha256 == code_hash(done)
