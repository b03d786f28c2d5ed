"""Breaks files, options and runs in every way, and counts what the commands do about it.

    python -m tests.broken --inputs 500 --kills 60 --seed 1      # the large version, about 40 minutes
    python -m pytest tests/test_broken.py                        # the small one: a row for each kind

A broken input must end in one sentence on stderr and exit status 2, and change nothing; or, where it is not broken after all,
do its work. A run that is killed at any moment must go on with --resume, or begin anew where it had not begun, and end with
the same weights, bit for bit.
"""

import argparse
import contextlib
import io
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from common.support import options
from common.support.files import write_json


def parse() -> argparse.Namespace:
    parser = options.Parser(__doc__)
    parser.add_argument("--inputs", type=options.natural, default=500, metavar="N", help="broken inputs (default: %(default)s)")
    parser.add_argument("--kills", type=options.natural, default=60, metavar="N", help="killed runs (default: %(default)s)")
    parser.add_argument("--seed", type=options.natural, default=0, help="which ones (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    options.run_command(parse)  # --help and wrong options end here: the imports below take seconds

import torch

from common.pretrained import load_pretrained, save_pretrained
from common.support.checkpoints import Run, save_state
from common.support.runs import data_hash
from common.tokenizer import Tokenizer
from common.training import TrainOptions, make_optimizer
from tests.conftest import ENVIRONMENT, ROOT, assert_same_weights, command, make_model

CLOSED = "http://127.0.0.1:9/v1"  # where no judge listens
RECORDS = [{"instruction": f"Say {word}.", "input": "", "output": f"{word}!"} for word in
           "one two three four five six seven eight nine ten eleven twelve".split()]


class Case(NamedTuple):
    """A file that a command reads: which, and the command's line; FOLDER in it is the folder with all files."""

    file: str
    line: tuple[object, ...]


def generate(model: str) -> tuple[object, ...]:
    return "ch_pretrain/generate.py", "--model", model, "--prompt", "hi", "--max-new-tokens", 2


TUNE = ("--data", "FOLDER/records.json", "--model", "FOLDER/model", "--epochs", 1, "--batch-size", 4, "--precision", "fp32")
CASES = [
    *(Case(f"model/{name}", generate("FOLDER/model")) for name in
      ("config.json", "vocab.json", "merges.txt", "tokenizer_config.json", "model.safetensors")),
    *(Case(f"parts/{name}", generate("FOLDER/parts")) for name in ("model.safetensors.index.json", "tokenizer.json")),
    Case("model/config.json", ("common/support/verify.py", "--model", "FOLDER/model")),
    Case("model/tokenizer_config.json", ("common/support/verify.py", "--model", "FOLDER/model")),
    Case("records.json", ("ch_instruct/respond.py", "--model", "FOLDER/model", "--data", "FOLDER/records.json", "--out",
                          "FOLDER/answers.json", "--max-new-tokens", 2)),
    Case("records.jsonl", ("ch_instruct/respond.py", "--model", "FOLDER/model", "--data", "FOLDER/records.jsonl", "--out",
                           "FOLDER/answers.json", "--max-new-tokens", 2)),
    Case("subset.json", ("ch_instruct/train.py", *TUNE, "--subset", "FOLDER/subset.json", "--out", "FOLDER/new")),
    Case("subset.json", ("ch_delift/lab/few_shot.py", "--subset", "FOLDER/subset.json", "--data", "FOLDER/records.json",
                         "--model", "FOLDER/model", "--max-new-tokens", 2, "--out", "FOLDER/shots.json")),
    Case("text.txt", ("ch_pretrain/train.py", "--data", "FOLDER/text.txt", "--smoke", "--vocab-size", 257, "--out",
                      "FOLDER/new")),
    Case("tuned/run.json", ("ch_instruct/train.py", *TUNE, "--out", "FOLDER/tuned", "--resume")),
    Case("tuned/training_state.pt", ("ch_instruct/train.py", *TUNE, "--out", "FOLDER/tuned", "--resume")),
    Case("mixed/ntp/perplexities-1.json", ("ch_sftmix/train.py", *TUNE, "--out", "FOLDER/mixed", "--resume")),
    Case("chosen/utility/facts.json", ("ch_delift/train.py", *TUNE, "--compare", "--out", "FOLDER/new", "--utility",
                                       "FOLDER/chosen")),
    Case("chosen/utility/data-data.npy", ("ch_delift/train.py", *TUNE, "--compare", "--out", "FOLDER/new", "--utility",
                                          "FOLDER/chosen")),
    Case("responses.json", ("ch_instruct/evaluation/to_alpaca_eval.py", "--responses", "FOLDER/responses.json", "--arm", "ntp",
                            "--out", "FOLDER/alpaca.json")),
    Case("questions.jsonl", ("ch_instruct/evaluation/judge.py", "--responses", "FOLDER/questions.jsonl", "--questions",
                             "FOLDER/questions.jsonl", "--judge-model", "m", "--url", CLOSED)),
    Case("questions.jsonl", ("ch_instruct/evaluation/two_turn.py", "--questions", "FOLDER/questions.jsonl", "--model",
                             "FOLDER/model", "--max-new-tokens", 2, "--out", "FOLDER/turns.jsonl")),
    Case("votes.jsonl", ("ch_instruct/evaluation/arena.py", "--models", "FOLDER/model", "FOLDER/parts", "--votes",
                         "FOLDER/votes.jsonl", "--port", 99999)),
    Case("student.ipynb", ("notebooks/exercises/check.py", "01", "FOLDER/student.ipynb")),
]

# Options and values that are not allowed for them, with a command that has them.
NUMBERS = ("-1", "nan", "-inf", "", "x", "1e400", "9" * 40, "0x10", "1,5", "\ud800", "\0", "1\n2")
TEXTS = ("", "\0", "\udcff", "no such thing")
OPTIONS = [(script, option, value) for script, some, values in [
    ("ch_pretrain/train.py", ("--epochs", "--width", "--layers", "--vocab-size", "--lr", "--seed", "--dropout"), NUMBERS),
    ("ch_instruct/train.py", ("--batch-size", "--max-length", "--lr", "--seed"), NUMBERS),
    ("ch_sftmix/train.py", ("--alpha", "--mu", "--seeds"), NUMBERS),
    ("ch_delift/train.py", ("--fraction", "--seeds"), NUMBERS),
    ("ch_pretrain/classroom.py", ("--noise", "--seed"), NUMBERS),
    ("ch_instruct/evaluation/judge.py", ("--timeout",), NUMBERS),
    ("ch_instruct/train.py", ("--out", "--model", "--data", "--subset", "--format", "--device"), TEXTS[:3]),
    ("ch_delift/train.py", ("--stage", "--pairs", "--kernel", "--utility"), TEXTS),
    ("ch_instruct/respond.py", ("--out", "--data"), TEXTS[:3]),
    ("notebooks/exercises/check.py", ("01",), ("", "\0", "missing.ipynb")),
] for option in some for value in values]


def prepare(folder: Path) -> None:
    """Write one good file of each kind, and let the commands write those that they read again."""
    save_pretrained(make_model(n_positions=512, n_embd=8, n_layer=1, n_head=2), Tokenizer.from_merges([]), folder / "model")
    shutil.copytree(folder / "model", folder / "parts")
    parts = folder / "parts"
    (parts / "model.safetensors").rename(parts / "one.safetensors")
    write_json(parts / "model.safetensors.index.json", {"weight_map": {"transformer.wte.weight": "one.safetensors"}})
    vocab = json.loads((parts / "vocab.json").read_text())
    (parts / "vocab.json").unlink()
    write_json(parts / "tokenizer.json", {"model": {"type": "BPE", "vocab": vocab, "merges": []}, "added_tokens": [],
                                          "pre_tokenizer": {"type": "ByteLevel"}})
    write_json(folder / "records.json", RECORDS)
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    write_json(folder / "subset.json", {"ids": list(range(len(RECORDS))), "data_sha256": data_hash(RECORDS)})
    (folder / "text.txt").write_text("one two three four five six seven\n" * 30)
    answers = {"answers": {"ntp": {"answer": "b", "stopped": True}}}
    write_json(folder / "responses.json", [record | answers for record in RECORDS])
    question = {"question_id": 1, "category": "x", "turns": ["a", "b"], "reference": ["c", "d"]}
    (folder / "questions.jsonl").write_text(json.dumps(question | {"choices": [{"turns": ["e", "f"]}]}) + "\n")
    vote = dict.fromkeys(("time", "vote", "question", "left", "right", "left_answer", "right_answer"), "left") | {"right": "b"}
    (folder / "votes.jsonl").write_text(json.dumps(vote) + "\n")
    write_json(folder / "student.ipynb", {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [
        {"cell_type": "code", "id": "a", "metadata": {}, "source": "1", "outputs": [], "execution_count": None}]})
    for name, script, more in (("tuned", "ch_instruct/train.py", ()), ("mixed", "ch_sftmix/train.py", ()),
                               ("chosen", "ch_delift/train.py", ("--compare",))):
        status, _, trouble = run_here((script, *TUNE, *more, "--out", f"FOLDER/{name}"), folder)
        assert status == 0, trouble
    # A state from the middle of the training, which has more to be broken than that from its end.
    model, _ = load_pretrained(folder / "model")
    optimizer = make_optimizer(model, TrainOptions(1, 4, 1, 1e-3, "fp32"))
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    optimizer.step()
    row = {"step": 0, "epoch": 0.0, "tokens": 0, "targets": 0}
    save_state(folder / "tuned", Run(step=1, history=[row, row | {"step": 1, "train_loss": 1.0}]), model, optimizer)


def run_here(line: tuple[object, ...], folder: Path) -> tuple[int, str, str]:
    """Run a command in this process: exit status (1 for an exception that nobody caught), stdout, stderr."""
    argv, cwd, stdout, stderr = sys.argv, Path.cwd(), io.StringIO(), io.StringIO()
    status = 0
    os.chdir(folder)
    sys.argv = [str(part).removeprefix("FOLDER/") for part in line]  # relative: a copied run goes on in its copy
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            runpy.run_path(str(ROOT / sys.argv[0]), run_name="__main__")
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:  # what a user would see as a traceback
        status = 1
        stderr.write(traceback.format_exc())
    finally:
        sys.argv = argv
        os.chdir(cwd)
    return status, stdout.getvalue(), stderr.getvalue()


def spoil(good: bytes, rng: random.Random) -> tuple[str, bytes]:
    """How a file is broken, and its new content."""
    at = rng.randrange(len(good))
    ways: dict[str, Callable[[], bytes]] = {
        "empty": lambda: b"", "cut": lambda: good[:at], "zeros": lambda: good[:at] + bytes(40) + good[at + 40:],
        "flipped byte": lambda: good[:at] + bytes([good[at] ^ (1 << rng.randrange(8))]) + good[at + 1:],
        "UTF-16": lambda: good.decode("latin-1").encode("utf-16"), "page": lambda: b"<!doctype html><html>Log in</html>",
        "deep": lambda: b"[" * 50_000 + b"]" * 50_000, "another JSON": lambda: json.dumps(strange(rng)).encode(),
        "null": lambda: b"null", "twice": lambda: good + good}
    with contextlib.suppress(ValueError):
        content = json.loads(good)
        ways |= {f"value {i}": lambda: json.dumps(changed(content, rng)).encode() for i in range(8)}
    how = rng.choice(sorted(ways))
    return how, ways[how]()


def strange(rng: random.Random) -> object:
    """A value that does not belong where it is put."""
    return rng.choice([None, True, 0, -1, 0.5, 10**18, float("nan"), float("inf"), "", "x", "\ud800", "x" * 5000, [], [[]], {},
                       {"a": 1}, [None], [-1], {"": ""}])


def changed(content: object, rng: random.Random) -> object:
    """A copy of JSON content in which one value, at any depth, is another one or missing."""
    if not isinstance(content, (dict, list)) or not content or rng.random() < 0.15:
        return strange(rng)
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    key = rng.choice(keys)
    copy = content.copy()
    if rng.random() < 0.25:
        del copy[key]
    else:
        copy[key] = changed(content[key], rng)
    return copy


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fault(status: int, stderr: str, before: dict[str, bytes], after: dict[str, bytes]) -> str:
    """What is wrong with how a command ended; nothing if it did its work, or refused as it should."""
    if status not in (0, 2) and not (status == 1 and not stderr):  # check.py ends with 1 where points are missing
        return f"status {status}: {(stderr.strip().splitlines() or ['nothing said'])[-1]}"
    if status == 2:
        errors = [line for line in stderr.splitlines() if line.strip() and not line.startswith("usage")]
        if len(errors) != 1 or not errors[0].startswith("error: "):
            return f"not one sentence: {stderr[-300:]!r}"
        if changes := sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)):
            return f"refused, but changed {changes}"
    return ""


def try_file(case: Case, content: bytes, good: Path) -> tuple[int, str]:
    """Run a case with this content in a copy of the good folder: the exit status, and what is wrong with it."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "all"
        shutil.copytree(good, folder)
        (folder / case.file).write_bytes(content)
        before = contents(folder)
        status, _, stderr = run_here(case.line, folder)
        return status, fault(status, stderr, before, contents(folder))


def try_option(script: str, option: str, value: str) -> str:
    """Run a command with one value that is not allowed; what is wrong with how it ends."""
    needed = {"ch_pretrain/classroom.py": ("--records", "a.json"), "ch_instruct/respond.py": ("--out", "a.json"),
              "ch_instruct/evaluation/judge.py": ("--responses", "a.json", "--judge-model", "m")}.get(script, ())
    with tempfile.TemporaryDirectory() as place:
        status, _, stderr = run_here((script, *needed, option, value), Path(place))
        return fault(status, stderr, {}, contents(Path(place))) or ("" if status == 2 else f"status {status}")


def try_kill(script: str, line: tuple[object, ...], after: float, straight: Path, folder: Path) -> str:
    """Kill a run after so many seconds, go on as told, and compare; what is wrong with the result."""
    out = folder / "killed"
    words = [str(part).replace("FOLDER", str(straight.parent)) for part in line]
    process = subprocess.Popen(command(script, *words, "--out", out), env=ENVIRONMENT, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    began = (out / "run.json").exists()
    for resume in [["--resume"]] if out.exists() else [[]]:
        done = subprocess.run(command(script, *words, "--out", out, *resume), env=ENVIRONMENT, capture_output=True, text=True)
        if done.returncode:
            return f"killed after {after:.2f} s, run.json {began}: {done.stderr.strip().splitlines()[-1:]}"
    if left := [path.name for path in out.rglob(".*.unfinished")]:
        return f"killed after {after:.2f} s: {left} is left"
    try:
        assert_same_weights(straight, out)
    except AssertionError as error:
        return f"killed after {after:.2f} s: other weights in {error}"
    return ""


def main() -> None:
    args = parse()
    rng, counts = random.Random(f"broken {args.seed}"), Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        good = Path(place) / "good"
        prepare(good)
        bad = rng.sample(OPTIONS, min(len(OPTIONS), args.inputs // 3))
        for script, option, value in bad:
            problem = try_option(script, option, value)
            counts["options: " + ("FAULT" if problem else "refused")] += 1
            if problem:
                print(f"{script} {option} {value!r}: {problem}", flush=True)
        for number in range(args.inputs - len(bad)):
            case = CASES[number % len(CASES)]
            how, content = spoil((good / case.file).read_bytes(), rng)
            status, problem = try_file(case, content, good)
            counts["files: " + ("FAULT" if problem else "refused" if status == 2 else "did its work")] += 1
            if problem:
                print(f"{case.line[0]} {case.file}, {how} {content[:60]!r}: {problem}", flush=True)
        for number in range(args.kills):
            script, line = KILLED[number % len(KILLED)]
            straight = good / f"straight-{number % len(KILLED)}"
            started = time.monotonic()
            if not straight.exists():
                words = [str(part).replace("FOLDER", str(good)) for part in line]
                subprocess.run(command(script, *words, "--out", straight), env=ENVIRONMENT, check=True, capture_output=True)
                SECONDS[number % len(KILLED)] = time.monotonic() - started
            with tempfile.TemporaryDirectory() as folder:
                problem = try_kill(script, line, rng.uniform(0, SECONDS[number % len(KILLED)]), straight, Path(folder))
            counts["kills: " + ("FAULT" if problem else "went on")] += 1
            if problem:
                print(f"{script}: {problem}", flush=True)
    for name, count in sorted(counts.items()):
        print(f"{count:5} {name}")
    sys.exit(any("FAULT" in name for name in counts))


SECONDS: dict[int, float] = {}  # how long each of KILLED takes
KILLED = [("ch_instruct/train.py", TUNE), ("ch_sftmix/train.py", TUNE), ("ch_delift/train.py", (*TUNE, "--compare", "random")),
          ("ch_pretrain/train.py", ("--data", "FOLDER/text.txt", "--smoke", "--vocab-size", 260, "--precision", "fp32"))]

if __name__ == "__main__":
    options.run_command(main)
