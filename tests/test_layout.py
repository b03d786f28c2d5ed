"""The rules of the house, checked by reading its files."""

import ast
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest there

MAY_IMPORT = {"common": {"common"},
              "ch_pretrain": {"ch_pretrain", "common"},
              "ch_instruct": {"ch_instruct", "ch_pretrain", "common"},
              "ch_sftmix": {"ch_sftmix", "ch_instruct", "ch_pretrain", "common"},
              "ch_delift": {"ch_delift", "ch_instruct", "ch_pretrain", "common"},
              "notebooks": {"notebooks", "ch_delift", "ch_sftmix", "ch_instruct", "ch_pretrain", "common"}}
FOLDERS = sorted(path for path in ROOT.iterdir() if path.name in ("common", "notebooks") or path.name.startswith("ch_"))
SOURCES = sorted(path for folder in FOLDERS for path in folder.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOT_OURS = {".git", ".venv", "__pycache__", "build", "runs", ".hypothesis", ".pytest_cache", ".ruff_cache",
            ".ipynb_checkpoints", ".mypy_cache"}


@cache
def trees() -> dict[str, ast.Module]:
    """Parsed once, and only in the worker that checks them."""
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def nodes(kind: type | tuple[type, ...]) -> Iterator[tuple[str, ast.AST]]:
    """(file, node) for every node of this kind in common and the chapters."""
    return ((name, node) for name, tree in trees().items() for node in ast.walk(tree) if isinstance(node, kind))


def imported(tree: ast.AST) -> set[str]:
    """Top-level names of all modules that are imported anywhere below."""
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return {name.partition(".")[0] for name in plain | {
        node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}}


def named_in(*extras: str) -> set[str]:
    """Distributions that the project needs, by itself and for these extras, in normal form."""
    lines = PROJECT["dependencies"] + [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    return {normal(line) for line in lines}


def normal(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement).group()).lower()


def with_dependencies(names: set[str]) -> set[str]:
    """The distributions and all that they need, as far as it is installed."""
    found, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            try:
                waiting += [normal(needed) for needed in requires(name) or [] if "extra ==" not in needed]
            except PackageNotFoundError:
                pass  # for another system, or optional
    return found


def test_there_is_something_to_check():
    assert {"common", "ch_pretrain", "ch_instruct", "ch_sftmix"} <= {folder.name for folder in FOLDERS}
    assert len(SOURCES) > 25 and len(TESTS) > 10


@pytest.mark.slow
def test_imports_go_one_way():
    ours = {folder.name for folder in FOLDERS} | {"tests"}
    assert {folder.name for folder in FOLDERS} <= MAY_IMPORT.keys()
    wrong = [f"{name} imports {module}" for name, tree in trees().items()
             for module in imported(tree) & ours - MAY_IMPORT[name.partition("/")[0]]]
    assert wrong == []


@pytest.mark.slow
def test_imports_name_whole_modules():
    assert [name for name, node in nodes(ast.ImportFrom) if node.level] == []


@pytest.mark.slow
def test_no_module_shadows_another():
    """With `python ch_x/train.py` the folder ch_x comes first on the path, before every library."""
    distributions = with_dependencies(named_in("dev", "eval"))
    libraries = {module for module, names in packages_distributions().items() if distributions & set(map(normal, names))}
    assert {"torch", "numpy", "tqdm", "regex", "sympy", "pytest"} <= libraries
    taken = {*sys.stdlib_module_names, *libraries, *(folder.name for folder in FOLDERS)}
    assert [str(path.relative_to(ROOT)) for path in SOURCES if path.stem in taken] == []


@pytest.mark.slow
def test_model_is_defined_once():
    assert [name for name, node in nodes(ast.ClassDef) if node.name == "GPT2"] == ["common/gpt2.py"]


@pytest.mark.slow
def test_ignore_index_stands_in_one_place():
    minus_100 = [name for name, node in nodes(ast.UnaryOp)
                 if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant) and node.operand.value == 100]
    assert minus_100 == ["common/losses.py"]


def test_end_of_text_has_no_number():
    """The id depends on the vocabulary, so it is asked of the tokenizer."""
    assert [path for path in SOURCES if re.search(r"50[_,]?256", path.read_text(encoding="utf-8"))] == []


@pytest.mark.slow
def test_no_blanket_except():
    def caught(handler: ast.ExceptHandler) -> list[str]:
        kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        return [ast.unparse(kind) if kind else "everything" for kind in kinds]

    # One place may: where a file is read, and whatever a parser raises becomes one sentence.
    assert [name for name, node in nodes(ast.ExceptHandler)
            if {"everything", "Exception", "BaseException"} & set(caught(node))] == ["common/support/files.py"]


@pytest.mark.slow
def test_no_pickle():
    assert {name: found for name, tree in trees().items()
            if (found := imported(tree) & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"})} == {}


@pytest.mark.slow
def test_torch_loads_weights_only():
    loads = [(name, node) for name, node in nodes(ast.Call) if ast.unparse(node.func) in ("torch.load", "load")]
    assert loads
    assert [f"{name}:{node.lineno}" for name, node in loads
            if not any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)] == []


def test_everything_public_has_a_docstring():
    """Not asked: `main` and `parse` of commands, `forward` of modules, and what is private or inside a function."""
    def undocumented(tree: ast.AST, place: str) -> Iterator[str]:
        if not ast.get_docstring(tree):
            yield place
        for node in tree.body:
            public = isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")
            if public and node.name not in ("main", "parse", "forward"):
                where = f"{place}:{node.name}"
                if isinstance(node, ast.ClassDef):
                    yield from undocumented(node, where)
                elif not ast.get_docstring(node):
                    yield where

    found = [where for name, tree in trees().items() if tree.body for where in undocumented(tree, name)]
    assert found == [], "\n".join(found)


@pytest.mark.slow
def test_every_test_asserts_and_none_hides_another():
    """Of two tests with one name in a file, only the second would run."""
    def asserts(node: ast.AST) -> bool:
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            return called == "raises" or called.startswith("assert")
        return isinstance(node, ast.Assert)

    for path in TESTS:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
        assert [test.name for test in tests if not any(map(asserts, ast.walk(test)))] == [], path
        names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        assert len(names) == len(set(names)), path


@pytest.mark.slow
def test_requirements_name_all_that_is_imported():
    of_module = packages_distributions()
    ours = {folder.name for folder in FOLDERS}

    def missing(imports: set[str], *extras: str) -> set[str]:
        return {module for module in imports - ours - sys.stdlib_module_names
                if not named_in(*extras) & set(map(normal, of_module.get(module, [module])))}

    # What a try or `with needs(...)` encloses is optional: the command says what to install.
    optional = {module for _, node in nodes((ast.Try, ast.With)) for module in imported(node)}
    needed = {module for tree in trees().values() for module in imported(tree)}
    assert missing(needed - optional) == set()
    assert missing(optional, "dev", "eval", "gguf") == set()


def test_requirement_files_pin_only_what_the_project_allows():
    """pyproject.toml says what is needed; a requirements file adds which extra, and the PyTorch that was tested."""
    allowed = {normal(line): Requirement(line).specifier for line in PROJECT["dependencies"]}
    lines = [line for path in ROOT.glob("requirements*.txt") for line in path.read_text(encoding="utf-8").splitlines()]
    pins = [Requirement(line) for line in lines if re.match(r"\w", line)]
    assert [pin.name for pin in pins] == ["torch"]
    [version] = [spec.version for pin in pins for spec in pin.specifier]
    assert version in allowed["torch"]


RECORDS_WAY = ("ch_instruct.records", "ch_instruct.prompts", "ch_instruct.encoding", "ch_instruct.collate")


def test_a_records_way_never_turns_back():
    """records -> prompts -> encoding -> collate: each may import those before it, none a later one."""
    for i, module in enumerate(RECORDS_WAY):
        tree = trees()[module.replace(".", "/") + ".py"]
        names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not names & set(RECORDS_WAY[i:]), module


@pytest.mark.slow
def test_no_function_is_long():
    """75 lines fit on a screen, the docstring among them."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert [f"{name}:{node.name} has {node.end_lineno - node.lineno + 1} lines" for name, node in nodes(kinds)
            if node.end_lineno - node.lineno >= 75] == []


def test_the_way_through_the_code_is_an_evening_and_names_the_right_lines():
    """README's list: "[`file`](file):FIRST-LAST (`name` to `name`)", or a whole file."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## A way through the code")[2].partition("\n## ")[0]
    items = re.findall(r"^\d+\. \[`(.+?)`\]\((.+?)\)(?::(\d+)-(\d+) \(`(\w+)`(?: to `(\w+)`)?\))?:", text, flags=re.M)
    assert len(items) > 10 and len(items) == text.count("\n1") + len(re.findall(r"\n[2-9]\. ", text))
    lines = size = 0
    for path, link, first, last, begins, ends in items:
        assert path == link
        source = (ROOT / path).read_text(encoding="utf-8").splitlines(keepends=True)
        if first:
            at = {node.name: node for node in trees()[path].body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
            start = min([at[begins].lineno, *(decorator.lineno for decorator in at[begins].decorator_list)])
            assert (int(first), int(last)) == (start, at[ends or begins].end_lineno), path
            source = source[start - 1:int(last)]
        lines, size = lines + len(source), size + len("".join(source).encode())
    assert lines <= 1150 and size <= 50_000, (lines, size)


# Shown on projectors, in two-pane editors and on the site.
TAUGHT = ["common/gpt2.py", "common/llama.py", "common/losses.py", "common/training.py", "common/generation.py",
          "common/sampling.py", "ch_pretrain/bpe.py", "ch_pretrain/windows.py", "ch_instruct/prompts.py",
          "ch_instruct/encoding.py", "ch_instruct/collate.py", "ch_instruct/train.py", "ch_instruct/perplexity.py",
          "ch_sftmix/confidence.py", "ch_sftmix/mixup.py", "ch_delift/utility.py", "ch_delift/submodular.py",
          "ch_delift/greedy.py", "ch_delift/selection.py", "common/embedding.py", "ch_delift/baselines.py"]


@pytest.mark.parametrize("path", TAUGHT)
def test_taught_files_are_narrow(path):
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    assert [(number, len(line)) for number, line in enumerate(lines, 1) if len(line) > 100] == []


def test_the_plain_model_training_loop_and_decoder_are_short():
    lengths = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in TAUGHT}
    assert lengths["common/gpt2.py"] <= 170 and lengths["common/training.py"] <= 200
    assert lengths["common/llama.py"] <= 160


def test_lines_end_with_line_feeds_alone():
    def our_files(folder: Path) -> Iterator[Path]:
        for path in folder.iterdir():
            if path.is_dir() and path.name not in NOT_OURS and not path.name.endswith(".egg-info"):
                yield from our_files(path)
            elif path.is_file():
                yield path

    contents = {path: path.read_bytes() for path in our_files(ROOT)}
    texts = {path: content for path, content in contents.items() if b"\0" not in content}
    assert len(texts) > 50
    assert [str(path.relative_to(ROOT)) for path, content in texts.items() if b"\r\n" in content] == []


def test_no_line_of_text_begins_with_a_percent_sign():
    pages = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
             for folder in (ROOT, *FOLDERS) for path in folder.glob("*.md" if folder == ROOT else "**/*.md")}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        pages[path.name] = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    texts = {name: re.sub(r"^ *```.*?^ *```", "", page, flags=re.M | re.S) for name, page in pages.items()}
    assert len(texts) > 20 and [name for name, text in texts.items() if re.search(r"^\s*%", text, flags=re.M)] == []
