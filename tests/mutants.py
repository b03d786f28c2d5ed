"""Would the tests notice a mistake? Makes small mistakes in source files, one at a time, and runs the quick tests.

    python tests/mutants.py                                    # 100 of all that could be made in the files of TESTS
    python tests/mutants.py --count 20 ch_instruct/collate.py  # 20 of this file

Such a mistake is called a mutant: `<` becomes `<=`, `+` becomes `-`, a number one more, `and` becomes `or`, a `not` comes or
goes, an argument, a call or a returned value is left out. A mutant is killed if a test fails. One that survives shows a line
that could be wrong unnoticed: either a test is missing, or the change makes no difference to anybody; only a reader can
tell which. Works on a copy in a temporary folder; the same seed draws the same mutants.
"""

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 120  # seconds; some mutants never end
TESTS = {  # source file -> the tests that should notice
    "common/training.py": ["common/test_training.py"],
    "common/support/checkpoints.py": ["common/test_training.py"],
    "common/fast/views.py": ["common/fast/test_views.py"],
    "common/losses.py": ["common/test_losses.py", "common/test_training.py"],
    "ch_instruct/encoding.py": ["ch_instruct/test_encoding.py", "ch_instruct/test_collate.py", "ch_instruct/test_chatml.py"],
    "ch_instruct/collate.py": ["ch_instruct/test_collate.py"],
    "ch_delift/selection.py": ["ch_delift/test_selection.py", "ch_delift/test_faults.py"],
    "ch_delift/greedy.py": ["ch_delift/test_greedy.py", "ch_delift/test_submodular.py"],
}
OTHERS = {  # operator -> what is put in its place
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,), ast.And: (ast.Or,), ast.Or: (ast.And,), ast.Add: (ast.Sub,), ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,), ast.Div: (ast.Mult,), ast.FloorDiv: (ast.Mult,)}


def changed(node: ast.AST, **fields: object) -> ast.AST:
    """A copy of the node in which these fields are different."""
    other = copy.copy(node)
    vars(other).update(fields)
    return other


def mistakes(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """What could be wrong at this node: what stands there, and what might stand there instead."""
    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                yield from ((node, changed(node, ops=[*ops[:i], other(), *ops[i + 1:]])) for other in OTHERS[type(op)])
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op):
            yield from ((node, changed(node, op=other())) for other in OTHERS.get(type(op), ()))
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            yield node, operand
        case ast.Constant(value=bool(value)):
            yield node, ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield node, ast.Constant(value + 1)
        case ast.Name(id="min" | "max" as name):
            yield node, ast.Name({"min": "max", "max": "min"}[name])
        case ast.Call(args=args, keywords=keywords):
            if len(args) > 1:
                yield node, changed(node, args=args[:-1])
            yield from ((node, changed(node, keywords=[k for k in keywords if k is not left_out])) for left_out in keywords)
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            if not isinstance(test, ast.Compare | ast.UnaryOp):  # which are turned round by themselves
                yield test, ast.UnaryOp(ast.Not(), test)
        case ast.Return(value=ast.expr()):
            yield node, ast.Return()
        case ast.Expr(value=ast.Call()):
            yield node, ast.Pass()


def looked_at(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all below it, except types, decorators and f-strings, which are mostly messages."""
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                    yield from looked_at(child)


def mutants(file: str) -> Iterator[tuple[str, int, str, bytes]]:
    """All mutants of a file: its name, the line, the change, and what the file holds then."""
    source = (ROOT / file).read_bytes()
    begins = [0]  # of each line, in bytes
    for line in source.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    for node in looked_at(ast.parse(source)):
        for old, new in mistakes(node):
            start = begins[old.lineno - 1] + old.col_offset
            end = begins[old.end_lineno - 1] + old.end_col_offset
            text = ast.unparse(new) if isinstance(new, ast.stmt) else f"({ast.unparse(new)})"
            yield (file, old.lineno, f"{ast.unparse(old)}  ->  {ast.unparse(new)}",
                   source[:start] + text.encode() + source[end:])


def tests_pass(folder: Path, files: list[str]) -> bool:
    """Whether the quick tests in these files pass in this copy; whoever takes too long does not."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow",
               *(f"tests/{file}" for file in files)]
    # No bytecode: a changed file of the same size and second would be taken for the one before.
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=TIMEOUT).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="source files, of those in TESTS (default: all of them)")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="how many mutants to draw (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the draw (default: %(default)s)")
    args = parser.parse_args()
    if unknown := set(args.files) - TESTS.keys():
        parser.error(f"TESTS names no tests for {', '.join(sorted(unknown))}; choose from {', '.join(TESTS)}")

    drawn = [mutant for file in args.files or TESTS for mutant in mutants(file)]
    drawn = random.Random(args.seed).sample(drawn, min(args.count, len(drawn)))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "copy"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "__pycache__", "runs", "build", "*.egg-info"))
        for file in {mutant[0] for mutant in drawn}:
            if not tests_pass(folder, TESTS[file]):
                sys.exit(f"The tests of {file} do not pass as it is; mend that first.")
        killed = 0
        for number, (file, line, change, source) in enumerate(sorted(drawn), 1):
            (folder / file).write_bytes(source)
            survived = tests_pass(folder, TESTS[file])
            shutil.copy(ROOT / file, folder / file)
            killed += not survived
            print(f"{number:4}  {'SURVIVED' if survived else 'killed':8}  {file}:{line}  {change}", flush=True)
    print(f"{killed} of {len(drawn)} killed")


if __name__ == "__main__":
    main()
