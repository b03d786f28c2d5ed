"""Whatever stands in a file, a reader gives back what it should hold, or raises the one error that users see."""

import io
import json
import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ch_delift.fast.matrix_file import read
from ch_delift.selection import check_utility
from ch_instruct.evaluation import response_files, two_turn
from ch_instruct.evaluation.arena import load_votes
from ch_instruct.evaluation.judge import REPLY
from ch_instruct.records import load_records, split_records
from ch_instruct.support.subset import read_subset
from ch_sftmix.train import read_perplexities
from common.pretrained import load_pretrained, save_pretrained
from common.support import runs
from common.support.checkpoints import STATE_FILE, Run, load_state, save_state
from common.support.files import InputError, Journal, check, read_json
from common.support.options import FolderOptions, RunOptions
from common.tokenizer import Tokenizer
from common.training import TrainOptions, make_optimizer
from notebooks.execute import read_notebook
from tests.models import make_model

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

NAMES = ["ids", "data_sha256", "options", "facts", "precision", "model_type", "n_embd", "weight_map", "question", "vote",
         "turns", "instruction", "output", "messages", "role", "content", "cells", "metadata", "nbformat", "a", "split"]
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-3, 10**20), st.floats(), st.text(max_size=4), st.sampled_from(NAMES),
                   st.just("\ud800"))
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(NAMES) | st.text(max_size=3), inner, max_size=4), max_leaves=8)


def spoil(good: bytes, draw: Callable) -> bytes:
    """Another content for a file that held `good`."""
    how = draw(st.sampled_from(["bytes", "json", "key", "cut", "utf-16", "deep", "flip", "lines"]))
    if how == "bytes":
        return draw(st.binary(max_size=40))
    if how == "json":
        return json.dumps(draw(VALUES)).encode()
    if how == "cut":
        return good[:draw(st.integers(0, len(good)))]
    if how == "utf-16":
        return good.decode("latin-1").encode("utf-16")
    if how == "deep":
        return b"[" * 100_000
    if how == "flip":
        at = draw(st.integers(0, len(good) - 1))
        return good[:at] + bytes([draw(st.integers(0, 255))]) + good[at + 1:]
    if how == "lines":
        return b"\n".join(json.dumps(draw(VALUES)).encode() for _ in range(3)) + b"\n"
    try:
        content = json.loads(good)
    except ValueError:
        return b""
    if isinstance(content, list) and content:
        content[draw(st.integers(0, len(content) - 1))] = draw(VALUES)
    elif isinstance(content, dict) and content:
        content[draw(st.sampled_from(sorted(content)))] = draw(VALUES)
    return json.dumps(content).encode()


def reads_or_refuses(path: Path, reader: Callable[[Path], object]) -> None:
    """Let hypothesis spoil the file again and again; the reader may raise an InputError of one line, and nothing else."""
    good = path.read_bytes()

    @FEW
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        path.write_bytes(spoil(good, data.draw))
        content = path.read_bytes()
        try:
            reader(path)
        except InputError as error:
            assert len(str(error).splitlines()) == 1 and str(error).endswith((".", "train.py wrote."))
            str(error).encode("utf-8", "backslashreplace")
        assert path.read_bytes() == content  # reading changes nothing

    try:
        attempt()
    finally:
        path.write_bytes(good)


VOTE = {"time": "now", "vote": "left", "question": "?", "left": "a", "right": "b", "left_answer": "c", "right_answer": "d"}
RECORDS = [{"instruction": f"Say {i}.", "output": str(i)} for i in range(20)]
TURNS = {"question_id": 1, "category": "x", "turns": ["a", "b"], "reference": ["c"]}
CELL = {"cell_type": "code", "id": "a", "metadata": {"nbgrader": {"grade_id": "x"}}, "source": "1", "outputs": [],
        "execution_count": None}


def as_json(content: object) -> bytes:
    return json.dumps(content).encode()


READERS: dict[str, tuple[str, bytes, Callable[[Path], object]]] = {  # kind of file -> its name, a good one, its reader
    "run": ("run.json", as_json({"options": {"seed": 0}, "facts": {"precision": "fp32"}}), lambda path: runs.recorded_precision(
        FolderOptions(out=path.parent, resume=True), "fp32")),
    "run that is resumed": ("run.json", as_json({"options": {"seed": 0, "smoke": False}, "facts": {}}),
                            lambda path: runs.check_run(RunOptions(out=path.parent, resume=True))),
    "subset": ("subset.json", as_json({"ids": [0, 2], "data_sha256": "abc"}), lambda path: read_subset(path, "abc", 3)),
    "perplexities": ("p.json", b"[1.5, 2.5]", lambda path: read_perplexities(path, 2)),
    "facts of utilities": ("facts.json", as_json({"seed": 0}), lambda path: check_utility(path.parents[1], {"seed": 0}, [])),
    "votes": ("votes.jsonl", as_json(VOTE) + b"\n", load_votes),
    "replies": ("replies.jsonl", as_json({"request": "a", "reply": "b"}) + b"\n",
                lambda path: Journal(path, REPLY, "no reply")),
    "records": ("records.json", as_json(RECORDS), lambda path: split_records(load_records(str(path)).records, 0)),
    "lines of records": ("records.jsonl", b"\n".join(map(as_json, RECORDS)), lambda path: split_records(
        load_records(str(path)).records, 0)),
    "responses": ("responses.json", as_json([{"instruction": "a", "answers": {"ntp": {"answer": "b"}}}]),
                  lambda path: response_files.read_responses(path, "--responses", "ntp", "--arm")),
    "MT-Bench": ("answers.jsonl", as_json({"question_id": 1, "turns": ["a"], "choices": [{"turns": ["b"]}]}) + b"\n",
                 lambda path: response_files.read_mt_bench(path, path)),
    "two-turn questions": ("questions.jsonl", as_json(TURNS) + b"\n", two_turn.load_questions),
    "notebook": ("a.ipynb", as_json({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [CELL]}), read_notebook),
    "matrix": ("data-data.npy", b"", lambda path: read(path, (2, 3))),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_a_reader_reads_or_raises_the_one_error(kind, tmp_path):
    name, good, reader = READERS[kind]
    folder = tmp_path / "utility"
    folder.mkdir()
    np.save(folder / "data-data.npy", np.ones((2, 3), dtype=np.float32))
    path = folder / name
    if good:
        path.write_bytes(good)
    assert reader(path) is not InputError  # the good one is read
    reads_or_refuses(path, reader)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", "vocab.json", "merges.txt", "tokenizer_config.json", "model.safetensors",
                                  "model.safetensors.index.json", "tokenizer.json"])
def test_a_checkpoint_is_loaded_or_refused(name, tmp_path):
    save_pretrained(make_model(n_embd=4, n_layer=1, n_head=2), Tokenizer.from_merges([(b"a", b"b")] * 0), tmp_path)
    if name == "model.safetensors.index.json":
        (tmp_path / "model.safetensors").rename(tmp_path / "part.safetensors")
        (tmp_path / name).write_text('{"weight_map": {"transformer.wte.weight": "part.safetensors"}}')
    if name == "tokenizer.json":
        vocab = json.loads((tmp_path / "vocab.json").read_text())
        end = [{"content": "<|endoftext|>", "id": vocab.pop("<|endoftext|>")}]
        (tmp_path / name).write_text(json.dumps({"model": {"type": "BPE", "vocab": vocab, "merges": []}, "added_tokens": end,
                                                 "pre_tokenizer": {"type": "ByteLevel"}}))
        (tmp_path / "vocab.json").unlink()
    model, tokenizer = load_pretrained(tmp_path)  # the good one is read
    assert model.config.n_embd == 4 and tokenizer.vocab_size == 257

    def load(_: Path) -> None:
        loaded, tokenizer = load_pretrained(tmp_path)
        assert loaded(torch.tensor([tokenizer.encode("hello")])).isfinite().all()

    reads_or_refuses(tmp_path / name, load)


OPTIONS = TrainOptions(1, 1, 1, 1e-3, "fp32")


@pytest.fixture
def half_way(tmp_path):
    """A model, its optimizer, and a folder with the state of an unfinished training of it."""
    model = make_model(n_embd=4, n_layer=1, n_head=2)
    optimizer = make_optimizer(model, OPTIONS)
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    optimizer.step()
    history = [{"step": 0, "epoch": 0.0, "tokens": 0, "targets": 0, "validation_loss": 3.0},
               {"step": 1, "epoch": 0.5, "tokens": 9, "targets": 9, "lr": 1e-3, "train_loss": 2.0}]
    save_state(tmp_path, Run(step=1, history=history), model, optimizer)
    return model, optimizer, tmp_path


@pytest.mark.slow
def test_a_training_state_is_loaded_or_refused(half_way):
    model, optimizer, folder = half_way
    assert load_state(folder, model, optimizer, OPTIONS).step == 1
    reads_or_refuses(folder / STATE_FILE, lambda _: load_state(folder, model, optimizer, OPTIONS))


def put(*keys: object, value: object) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value
    return change


def drop(*keys: object) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]
    return change


STATES = [drop("state"), drop("model"), drop("optimizer"), drop("rng"), drop("state", "step"), drop("state", "history"),
          drop("model", "wte.weight"), drop("optimizer", "state"), drop("optimizer", "state", 0, "exp_avg"),
          put("state", value=3), put("state", "step", value="1"), put("state", "step", value=None),
          put("state", "step", value=7),
          put("state", "done", value=1), put("state", "history", value={}), put("state", "history", 1, value=None),
          put("state", "history", 1, "step", value=1.5), put("state", "surprise", value=1), put("model", value=[]),
          put("model", "wte.weight", value=torch.ones(2, 2)), put("model", "wte.weight", value=None), put("optimizer", value=0),
          put("optimizer", "state", 0, value={}), put("optimizer", "state", 0, "exp_avg", value=torch.ones(3)),
          put("optimizer", "param_groups", value=[]), put("rng", value=None), put("rng", value=torch.ones(3)),
          put("rng", value=torch.zeros(3, dtype=torch.uint8)), put("state", "best_loss", value="low"),
          put("state", value=Path("elsewhere")),  # neither a tensor nor a plain value
          # Right types, and values that no training comes to. Each was taken once, and the run went on wrong.
          put("model", "wte.weight", value=torch.ones(4)), put("model", "wte.weight", value=torch.ones(257, 1)),
          put("model", "wte.weight", value=torch.ones(257, 4, dtype=torch.int64)),
          put("model", "wte.weight", value=torch.ones(257, 4, dtype=torch.complex64)),
          put("model", "wte.weight", value=torch.ones(257, 4, dtype=torch.float64)),
          put("model", "wte.weight", value=torch.full((257, 4), torch.nan)), put("model", "surprise", value=torch.ones(1)),
          put("model", "wte.weight", value=torch.ones(257, 4).to_sparse()),
          drop("optimizer", "state", 3), put("optimizer", "state", 99, value={}), put("optimizer", "state", value={}),
          put("optimizer", "state", 0, "surprise", value=torch.ones(1)), 
          put("optimizer", "state", 0, "step", value=torch.tensor(9.0)),
          put("optimizer", "state", 0, "exp_avg", value=torch.ones(4)),
          put("optimizer", "state", 0, "exp_avg_sq", value=-torch.ones(257, 4)),
          put("optimizer", "param_groups", 0, "betas", value=(0.5, 2.0)),
          put("optimizer", "param_groups", 0, "weight_decay", value=9.0),
          put("optimizer", "param_groups", 0, "params", value=[]),
          put("state", "step", value=-5), put("state", "step", value=10**9), put("state", "best_step", value=7),
          put("state", "best_loss", value=math.nan), put("state", "done", value=True),
          put("state", "stopped_early", value=True),
          put("state", "seconds", value=math.inf), put("state", "waited", value=-1), put("state", "history", value=[]),
          put("state", "history", 1, "epoch", value=math.nan), put("state", "history", 1, "epoch", value=3.0),
          put("state", "history", 1, "train_loss", value=10**400), put("state", "history", 0, "step", value=-1)]


@pytest.mark.parametrize("number", range(len(STATES)))
def test_a_state_with_other_content_is_damaged(number, half_way):
    model, optimizer, folder = half_way
    content = torch.load(folder / STATE_FILE, weights_only=True)
    STATES[number](content)
    torch.save(content, folder / STATE_FILE)
    with torch.no_grad():
        for p in model.parameters():
            p += 1  # so that what is put back is seen
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(InputError, match=r"training_state\.pt is damaged .*remove it, and --resume trains from the start"):
        load_state(folder, model, optimizer, OPTIONS)
    assert all(map(torch.equal, before, model.parameters()))  # nothing was put back


def test_a_damaged_state_keeps_the_best_checkpoint_and_names_the_command(half_way, tmp_path):
    model, optimizer, folder = half_way
    save_pretrained(model, Tokenizer.from_merges([]), folder)
    state = bytearray((folder / STATE_FILE).read_bytes())
    state[len(state) // 2] ^= 1  # one bit, within a tensor
    (folder / STATE_FILE).write_bytes(state)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InputError, match=rf"--model {folder} with your other options"):
        load_state(folder, model, optimizer, OPTIONS)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(("kind", "good", "bad"), [
    (int, [0, -1], [True, 1.0, "1", None]), (float, [1.5, 2], [True, "1", None]), (bool, [True], [1, None]),
    (None, [None], [0, ""]), ((int, None), [1, None], ["1", 1.5]), ([int], [[], [1, 2]], [[1, "2"], {}, None]),
    ({"a": int}, [{"a": 1}, {"a": 1, "b": 2}], [{}, {"b": 1}, {"a": "1"}, [], None]),
    ({str: [float]}, [{}, {"x": [1, 2.5]}], [{"x": 1}, {"x": ["1"]}]), (object, [None, 1, "x"], [])])
def test_kinds(kind, good, bad):
    for value in good:
        assert check(value, kind) is None
    for value in bad:
        with pytest.raises(ValueError):
            check(value, kind)


def test_a_json_file_that_cannot_be_used_is_named_with_the_reason(tmp_path):
    path = tmp_path / "a.json"
    for content, words in ((b"[" * 100_000, "recursion"), ('"\ud800"'.encode("utf-8", "surrogatepass"), "utf-8"),
                           (b'"\\ud800"', "surrogates not allowed"), ("[]".encode("utf-16"), "utf-8"), (b"{}", "has no 'a'"),
                           (b'{"a": []}', "'a' is \\[\\], not a whole number"), (b"", "Expecting value")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"a\.json is not JSON \(.*{words}.*\); restore it"):
            read_json(path, {"a": int})
    with pytest.raises(InputError, match="there is no such file"):
        read_json(tmp_path / "b.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path)


def test_a_zip_bomb_of_numbers_is_no_matrix(tmp_path):
    """A header may promise what no memory holds."""
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118)
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999, 999999), }"
    (tmp_path / "m.npy").write_bytes(head + text.ljust(117) + b"\n")
    with pytest.raises(InputError, match="no such matrix"):
        read(tmp_path / "m.npy", (2, 3))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("x", b"0" * 1000)
    (tmp_path / "m.npy").write_bytes(packed.getvalue())
    with pytest.raises(InputError, match="no such matrix"):
        read(tmp_path / "m.npy", (2, 3))
