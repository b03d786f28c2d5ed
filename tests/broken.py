"""Breaks files, options and runs in every way, and counts what the commands do about it.

    python -m tests.broken --inputs 500 --kills 60 --seed 1      # the large version, about 20 minutes
    python -m pytest tests/test_broken.py                        # the small one: a row for each kind

A broken input must end in one sentence on stderr and exit status 2, within LONGEST seconds, and change nothing; or, where it
is not broken after all, do its work. What is surely wrong (a pipe instead of a file, a state that no training comes to, a
server that means ill, another file where a new one belongs) must be refused. A run that is killed at any moment must go on with
--resume, or begin anew where it had not begun, and end with the same weights, bit for bit. Ctrl-C is never a traceback.
"""

import contextlib
import gzip
import io
import itertools
import json
import os
import random
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from common.support import options
from common.support.files import write_json
from common.support.options import Options, natural, option


@dataclass(frozen=True)
class BrokenOptions(Options):
    """The options of this command."""

    inputs: int = option(500, "broken inputs (default: %(default)s)", natural, metavar="N")
    kills: int = option(60, "killed runs (default: %(default)s)", natural, metavar="N")
    seed: int = option(0, "which ones (default: %(default)s)", natural)


if __name__ == "__main__":
    options.run_command(options.parse, BrokenOptions, __doc__)  # --help and wrong options end here: imports take seconds
    os.environ["OMP_NUM_THREADS"] = "1"  # this process is forked, so it has one thread

import torch

from common.pretrained import load_pretrained, save_pretrained
from common.support.checkpoints import STATE_FILE, Run, save_state
from common.support.runs import data_hash
from common.tokenizer import Tokenizer
from common.training import TrainOptions, make_optimizer
from tests.conftest import ENVIRONMENT, ROOT, command
from tests.models import assert_same_weights, make_model

LONGEST = 30  # seconds that a refusal may take
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
    Case("tuned/report.json", ("common/support/compare.py", "FOLDER/tuned", "--out", "FOLDER/c.png")),
    Case("tuned/metrics.csv", ("common/support/compare.py", "FOLDER/tuned", "--out", "FOLDER/c.png")),
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

# What stands in the place of a file and is none. A pipe never begins, and the device never ends.
SPECIAL: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": Path.mkdir,
    "link in circles": lambda path: path.symlink_to(path), "link to nothing": lambda path: path.symlink_to("nowhere")}
# Places for new files where other files are, and would be gone.
OVERWRITING: list[tuple[object, ...]] = [
    *(("ch_instruct/train.py", *TUNE, "--save-data", f"FOLDER/{file}", "--out", f"FOLDER/{out}", "--resume")
      for file, out in [("records.json", "empty"), ("tuned/responses.json", "tuned"), ("empty/run.json", "empty"),
                        ("empty/new.json", "empty")]),
    ("ch_instruct/train.py", *TUNE, "--save-data", "FOLDER/subset.json", "--out", "FOLDER/new"),
    ("ch_instruct/train.py", *TUNE, "--out", "FOLDER/model"), ("ch_instruct/train.py", *TUNE, "--out", "FOLDER/text.txt"),
    *((script, *more, "--out", "FOLDER/responses.json") for script, *more in [
        ("ch_instruct/respond.py", "--model", "FOLDER/model", "--data", "FOLDER/records.json", "--max-new-tokens", 2),
        ("ch_instruct/evaluation/two_turn.py", "--questions", "FOLDER/questions.jsonl", "--model", "FOLDER/model"),
        ("ch_instruct/evaluation/to_alpaca_eval.py", "--responses", "FOLDER/responses.json", "--arm", "ntp")]),
    ("ch_instruct/evaluation/arena.py", "--models", "FOLDER/model", "FOLDER/parts", "--votes", "FOLDER/text.txt/v.jsonl")]

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
    (folder / "empty").mkdir()
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


class Hang(BaseException):
    """A command has not ended after LONGEST seconds."""


def kept_waiting() -> float:
    """Seconds for which this process could have run, but the processor had others to run (Linux)."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    return 0.0


@contextlib.contextmanager
def alarm() -> Iterator[None]:
    """Raises Hang in this thread after LONGEST seconds in which this process was neither stopped nor kept waiting."""
    seconds, before = itertools.count(1), kept_waiting()

    def ring(*_: object) -> None:
        if next(seconds) - (kept_waiting() - before) >= LONGEST:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise Hang

    handler = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 1, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def run_here(line: tuple[object, ...], folder: Path) -> tuple[int, str, str]:
    """Run a command in this process: exit status (1 for an exception that nobody caught), stdout, stderr."""
    argv, cwd, stdout, stderr = sys.argv, Path.cwd(), io.StringIO(), io.StringIO()
    status = 0
    os.chdir(folder)
    sys.argv = [str(part).removeprefix("FOLDER/") for part in line]  # relative: a copied run goes on in its copy
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), alarm():
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
                       10**400, -1.5, -10**18, 1e308, "\x1b[2J", reduce(lambda inner, _: [inner], range(400), 0),
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


def try_special(case: Case, kind: str, good: Path) -> str:
    """Run a case with something else in the place of its file, which must be refused; what is wrong."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "all"
        shutil.copytree(good, folder)
        (folder / case.file).unlink()
        SPECIAL[kind](folder / case.file)
        before = contents(folder)
        status, _, stderr = run_here(case.line, folder)
        return fault(status, stderr, before, contents(folder)) or ("" if status == 2 else f"status {status}")


def try_overwriting(line: tuple[object, ...], good: Path) -> str:
    """Run a command that would write over what is there, which must be refused; what is wrong."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "all"
        shutil.copytree(good, folder)
        before = contents(folder)
        status, _, stderr = run_here(line, folder)
        return fault(status, stderr, before, contents(folder)) or ("" if status == 2 else f"status {status}")


def wrong_state(content: dict[str, Any], rng: random.Random) -> str:
    """Change a training state to one that no training comes to, though its types are right. Returns what was changed."""
    state, weights, averages = content["state"], content["model"], content["optimizer"]["state"]
    name, number = rng.choice([name for name in weights if weights[name].shape[0] > 1]), rng.choice(list(averages))
    tensor, own = weights[name], averages[number]
    where, key, value = rng.choice([
        (weights, name, tensor[:1]), (weights, name, tensor.double()), (weights, name, tensor.long()),
        (weights, name, tensor.to(torch.complex64)), (weights, name, tensor * torch.nan), (weights, name, tensor[0, ...]),
        (weights, "more", tensor), (averages, number, {}), (averages, 10**6, own), (own, "step", own["step"] + 1),
        (own, "exp_avg", own["exp_avg"].flatten()[:1]), (own, "exp_avg_sq", own["exp_avg_sq"] - 1), (state, "step", -5),
        (state, "step", 10**9), (state, "best_step", 10**9), (state, "best_loss", float("nan")), (state, "done", True),
        (state, "stopped_early", True), (state, "history", []), (state, "seconds", float("inf")), (state, "waited", -1)])
    where[key] = value
    return f"{key} = {str(value)[:60]!r}"


def try_state(good: Path, rng: random.Random) -> tuple[str, str]:
    """Resume from a state that is wrong within its types, which must be refused: how it is wrong, and what is wrong with it."""
    [case] = [case for case in CASES if case.file.endswith(STATE_FILE)]
    content = torch.load(good / case.file, weights_only=True)
    how, file = wrong_state(content, rng), io.BytesIO()
    torch.save(content, file)
    status, problem = try_file(case, file.getvalue(), good)
    return how, problem or ("" if status == 2 else f"status {status}")


def endless(part: bytes, pause: float = 0.0) -> Iterator[bytes]:
    while True:
        yield part
        time.sleep(pause)


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ILL: dict[str, Callable[[], Iterator[bytes]]] = {  # how a server answers, whatever it is asked
    "nothing": lambda: iter([b""]), "silence": lambda: endless(b"", 0.1), "bytes": lambda: iter([bytes(range(256)) * 100]),
    "slow head": lambda: endless(b"x", 0.1),
    "slow body": lambda: (part for parts in ([OK + b"\r\n"], endless(b" ", 0.1)) for part in parts),
    "endless": lambda: (part for parts in ([OK + b"\r\n"], endless(b" " * 100_000)) for part in parts),
    "continue": lambda: endless(b"HTTP/1.1 100 Continue\r\n\r\n", 0.001),
    "chunk": lambda: (part for parts in ([OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n"], endless(b"x" * 100_000))
                      for part in parts),
    "deep": lambda: iter([OK + b"Content-Length: 200000\r\n\r\n" + b"[" * 100_000 + b"]" * 100_000]),
    "head without end": lambda: endless(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10_000),
    "gzip bomb": lambda: iter([OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b" " * (1 << 26))]),
    "circles": lambda: iter([b"HTTP/1.1 302 Found\r\nLocation: /v1/api/again\r\nContent-Length: 0\r\n\r\n"]),
    "elsewhere": lambda: iter([b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"]),
    "names": lambda: iter([OK + b'ETag: "../../x"\r\nX-Repo-Commit: ../../x\r\nContent-Length: 15\r\n\r\n{"sha": "../.."}']),
    "terminal": lambda: iter([b"HTTP/1.1 401 No\r\nContent-Length: 8\r\n\r\n\x1b[2J\x1b]0"])}


@contextlib.contextmanager
def means_ill(how: str) -> Iterator[str]:
    """The address of a server on this machine that answers so."""
    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(1 << 16)
            for part in ILL[how]():
                connection.sendall(part)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


def told_at_the_end(process: subprocess.Popen) -> str | None:
    """What a process has written to stderr, or None if it does not end. Seconds in which both are stopped do not count."""
    for _ in range(2 * LONGEST):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=1)[1]
    process.kill()
    process.communicate()
    return None


def try_server(how: str, kind: str, good: Path) -> str:
    """Run a command that asks a server which means ill, as a hub or as a judge; what is wrong."""
    with tempfile.TemporaryDirectory() as place, means_ill(how) as address:
        folder = Path(place) / "all"
        shutil.copytree(good, folder)
        before = contents(folder)
        if kind == "judge":
            status, _, stderr = run_here(("ch_instruct/evaluation/judge.py", "--responses", "FOLDER/questions.jsonl",
                                          "--questions", "FOLDER/questions.jsonl", "--judge-model", "m", "--timeout", 1,
                                          "--url", f"{address}/v1"), folder)
        else:  # the client reads its settings when it is imported
            environment = ENVIRONMENT | {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": f"{place}/cache"}
            process = subprocess.Popen(command(*generate("someone/tiny")), cwd=folder, env=environment, text=True,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            if (stderr := told_at_the_end(process)) is None:
                return "hangs"
            status = process.returncode
        if outside := {path.name for path in Path(place).iterdir()} - {"all", "cache"}:
            return f"wrote {outside}"
        wrong = "steers the terminal" if "\x1b" in stderr else ""
        return fault(status, stderr, before, contents(folder)) or wrong or ("" if status == 2 else f"status {status}")


def try_interrupt(line: tuple[object, ...], after: float, good: Path) -> str:
    """Press Ctrl-C after so many seconds; what is wrong with how the run ends."""
    with tempfile.TemporaryDirectory() as folder:
        words = [str(part).replace("FOLDER", str(good)) for part in line]
        # Python's start and the imports are what this is about: a new process, at whatever of them it is.
        # Where this runs in the background, Ctrl-C may be ignored, and children inherit that; at a terminal they do not.
        process = subprocess.Popen(command(*words, "--out", Path(folder) / "out"), env=ENVIRONMENT, text=True,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
        time.sleep(after)
        process.send_signal(signal.SIGINT)
        if (stderr := told_at_the_end(process)) is None:
            return f"Ctrl-C after {after:.2f} s: no end"
        # Python's own start, before any of our files, is Python's.
        wrong = "Traceback" in stderr and str(ROOT / "common") in stderr
        return f"Ctrl-C after {after:.2f} s: {stderr.strip().splitlines()[-1]}" if wrong else ""


def try_option(script: str, option: str, value: str) -> str:
    """Run a command with one value that is not allowed; what is wrong with how it ends."""
    needed = {"ch_pretrain/classroom.py": ("--records", "a.json"), "ch_instruct/respond.py": ("--out", "a.json"),
              "ch_instruct/evaluation/judge.py": ("--responses", "a.json", "--judge-model", "m")}.get(script, ())
    with tempfile.TemporaryDirectory() as place:
        status, _, stderr = run_here((script, *needed, option, value), Path(place))
        return fault(status, stderr, {}, contents(Path(place))) or ("" if status == 2 else f"status {status}")


def run_and_kill(line: tuple[object, ...], after: float, folder: Path) -> None:
    """Run a command in a child of this process, which has loaded all that takes seconds, and kill it after so many seconds."""
    child = os.fork()
    if not child:
        os._exit(run_here(line, folder)[0])
    until = time.monotonic() + after
    while time.monotonic() < until and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def try_kill(line: tuple[object, ...], after: float, straight: Path) -> str:
    """Kill a run after so many seconds, go on as told, and compare; what is wrong with the result."""
    with tempfile.TemporaryDirectory(dir=straight.parent) as place:
        out = Path(place) / "killed"
        line = (*line, "--out", out)
        run_and_kill(line, after, straight.parent)
        when = f"killed after {after:.2f} s, run.json {(out / 'run.json').exists()}"
        status, _, stderr = run_here((*line, *["--resume"] * out.exists()), straight.parent)
        if status:
            return f"{when}: {stderr.strip().splitlines()[-1:]}"
        if left := [path.name for path in out.rglob(".*.unfinished")]:
            return f"{when}: {left} is left"
        try:
            assert_same_weights(straight, out)
        except AssertionError as error:
            return f"{when}: other weights in {error}"
    return ""


def try_surely_wrong(number: int, good: Path, rng: random.Random) -> tuple[str, str]:
    """What must be refused, of one kind after the other: what it is, and what is wrong with how it ends."""
    case, kind, line, how = rng.choice(CASES), rng.choice(list(SPECIAL)), rng.choice(OVERWRITING), rng.choice(list(ILL))
    if number % 2:
        return try_state(good, rng)
    if number % 6 == 0:
        return f"{case.file}, {kind}", try_special(case, kind, good)
    if number % 6 == 2:
        return " ".join(map(str, line)), try_overwriting(line, good)
    return f"judge, {how}", try_server(how, "judge", good)


def main() -> None:
    args = options.parse(BrokenOptions, __doc__)
    rng, counts, seconds = random.Random(f"broken {args.seed}"), Counter[str](), dict[tuple[object, ...], float]()
    with tempfile.TemporaryDirectory() as place:
        good = Path(place) / "good"
        prepare(good)
        bad = rng.sample(OPTIONS, min(len(OPTIONS), args.inputs // 3))
        for script, option, value in bad:
            problem = try_option(script, option, value)
            counts["options: " + ("FAULT" if problem else "refused")] += 1
            if problem:
                print(f"{script} {option} {value!r}: {problem}", flush=True)
        rest = args.inputs - len(bad)
        hubs = [rng.choice(list(ILL)) for _ in range(rest // 32)]
        waiting = ThreadPoolExecutor(4)  # processes of their own, which wait for a hub rather than compute
        of_hubs = [waiting.submit(try_server, how, "hub", good) for how in hubs]
        for number in range(rest // 4 - len(hubs)):  # a quarter is what must be refused
            told, problem = try_surely_wrong(number, good, rng)
            counts["surely wrong: " + ("FAULT" if problem else "refused")] += 1
            if problem:
                print(f"{told}: {problem}", flush=True)
        for number in range(rest - rest // 4):
            case = CASES[number % len(CASES)]
            how, content = spoil((good / case.file).read_bytes(), rng)
            status, problem = try_file(case, content, good)
            counts["files: " + ("FAULT" if problem else "refused" if status == 2 else "did its work")] += 1
            if problem:
                print(f"{case.line[0]} {case.file}, {how} {content[:60]!r}: {problem}", flush=True)
        for how, found in zip(hubs, of_hubs):
            problem = found.result()
            counts["hubs: " + ("FAULT" if problem else "refused")] += 1
            if problem:
                print(f"hub, {how}: {problem}", flush=True)
        waiting.shutdown()  # before this process is forked
        for number in range(args.kills):
            line, straight = KILLED[number % len(KILLED)], good / f"straight-{number % len(KILLED)}"
            if not straight.exists():
                started = time.monotonic()
                status, _, trouble = run_here((*line, "--out", straight), good)
                assert status == 0, trouble
                seconds[line] = time.monotonic() - started
            problem = try_kill(line, rng.uniform(0, seconds[line]), straight)
            counts["kills: " + ("FAULT" if problem else "went on")] += 1
            interrupted = try_interrupt(line, rng.uniform(0.2, 4), good)
            counts["Ctrl-C: " + ("FAULT" if interrupted else "ended")] += 1
            for told in filter(None, (problem, interrupted)):
                print(f"{line[0]}: {told}", flush=True)
    for name, count in sorted(counts.items()):
        print(f"{count:5} {name}")
    sys.exit(any("FAULT" in name for name in counts))


KILLED: list[tuple[object, ...]] = [
    ("ch_instruct/train.py", *TUNE), ("ch_sftmix/train.py", *TUNE), ("ch_delift/train.py", *TUNE, "--compare", "random"),
    ("ch_pretrain/train.py", "--data", "FOLDER/text.txt", "--smoke", "--vocab-size", 260, "--precision", "fp32")]

if __name__ == "__main__":
    options.run_command(main)
