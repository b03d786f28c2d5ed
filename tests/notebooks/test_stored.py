"""What is true of every stored notebook, without running it."""

import ast
import re

import pytest

from notebooks.execute import code_hash, find_notebooks, read_notebook

NOTEBOOKS = [(path.name, read_notebook(path), path.stat().st_size) for path in find_notebooks([])]
every_notebook = pytest.mark.parametrize(("name", "notebook", "size"), NOTEBOOKS, ids=[name for name, _, _ in NOTEBOOKS])


def code(notebook) -> list[str]:
    """The code cells as Python, without lines for IPython."""
    return ["\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
            for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook) -> list:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@every_notebook
def test_outputs_are_those_of_this_code(name, notebook, size):
    assert notebook.metadata.get("executed", {}).get("code_sha256") == code_hash(notebook), \
        f"run python notebooks/execute.py {name[:2]}"


@every_notebook
def test_outputs_hold_no_errors_no_warnings_and_no_paths(name, notebook, size):
    found = outputs(notebook)
    assert any("image/png" in output.get("data", {}) for output in found)
    assert [output for output in found if output.output_type == "error" or output.get("name") == "stderr"] == []
    texts = "".join(output.get("text", "") + "".join(text for kind, text in output.get("data", {}).items()
                                                     if kind.startswith("text/")) for output in found)
    assert re.findall(r"Warning|(?:/tmp|/home|/root|/work|/Users|C:\\)\S*", texts) == []


@every_notebook
def test_each_picture_has_a_text_of_its_own_that_says_what_is_seen(name, notebook, size):
    """In the metadata of its cell, where it stays when the notebook is executed. The site shows it, and nbconvert (classic)."""
    texts = [cell.metadata.get("alt", "") if pictures == 1 else "" for cell in notebook.cells if cell.cell_type == "code"
             and (pictures := sum("image/png" in output.get("data", {}) for output in cell.outputs))]
    assert len(texts) >= 5 and min(map(len, texts)) >= 40 and len(set(texts)) == len(texts)


@every_notebook
def test_no_line_of_a_paragraph_is_taken_for_a_list(name, notebook, size):
    """A paragraph whose line begins with "1. " becomes a list there."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert [match for text in texts for match in re.findall(r"[^\n]+\n(?:1\.|\+) ", text)] == []


@every_notebook
def test_it_is_small_enough_for_a_page(name, notebook, size):
    assert size < 1_500_000
    assert [i for i, output in enumerate(outputs(notebook)) if len(output.get("text", "").splitlines()) > 40] == []


@every_notebook
def test_it_imports_what_the_chapters_define(name, notebook, size):
    modules = {node.module.partition(".")[0] for source in code(notebook) for node in ast.walk(ast.parse(source))
               if isinstance(node, ast.ImportFrom)}
    assert modules & {"ch_pretrain", "ch_instruct", "ch_sftmix", "ch_delift"}


@every_notebook
def test_what_the_reader_writes_is_short_and_compared_with_the_projects(name, notebook, size):
    long = [source for source in code(notebook) if re.search(r"^(class|    def) ", source, flags=re.M)
            and len([line for line in source.splitlines() if line.strip()]) > 25]
    assert long == []
    told = "".join(output.get("text", "") for output in outputs(notebook))
    differences = re.findall(r"[Yy]ours and \S+ differ by (\S+)", told)
    same = re.findall(r"^Your .* the same: (\w+)|^by hand: (\S+), plain_utility: \2", told, flags=re.M)
    assert all(float(number) < 1e-4 for number in differences)
    assert [answer for answer, _ in same if answer not in ("yes", "")] == []


@every_notebook
def test_the_first_cell_chooses_model_and_sizes(name, notebook, size):
    first = code(notebook)[0]
    assert 'MODEL = "classroom"' in first and "gpt2" in first and "NOTEBOOK_SMALL" in first
