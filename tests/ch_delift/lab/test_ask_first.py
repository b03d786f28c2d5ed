"""The command that asks a model whether it learns from an example in its prompt."""

import json
import re
from collections import Counter

import numpy as np
import pytest
import torch

from ch_delift.lab import ask_first
from ch_delift.utility import plain_utility
from ch_pretrain import classroom
from ch_pretrain.pages import HELD_OUT
from common.pretrained import load_pretrained
from tests.ch_delift.test_utility import encoded, matrix
from tests.conftest import assert_refused
from tests.models import save_tiny

TRAINING = [record for record in classroom.records() if record["split"] == "train"]


def test_targets_are_one_of_each_family_and_no_example_is_a_target():
    targets, others = ask_first.choose_records(TRAINING, 2)
    families = set(classroom.FAMILIES)
    assert {r["family"] for r in targets} == families and len(targets) == len(families) and len(others) == 2 * len(families)
    assert not any(target == other for target in targets for other in others)


def test_some_families_can_have_more_targets():
    targets, others = ask_first.choose_records(TRAINING, 2, HELD_OUT, 3)
    assert Counter(r["family"] for r in targets) == dict.fromkeys(HELD_OUT, 3)
    assert set(Counter(r["family"] for r in others).values()) == {2}
    assert not any(target == other for target in targets for other in others)


def test_summary_of_utilities_by_hand():
    """Two targets; the first is helped most by its own family, the second by another."""
    examples = [{"family": family} for family in "abab"]
    U = np.array([[.5, .1, .4, .0], [.3, .6, .1, .2]])
    found = ask_first.summary(U, examples[:2], examples)
    assert [round(found[f"mean utility of {what}"], 3) for what in ("the target itself", "its family", "other families")] == [
        .55, .3, .125]
    assert found["targets whose best example is of their family"] == .5
    assert found["the same by chance"] == pytest.approx(1 / 3)


@pytest.mark.slow
def test_utilities_of_a_llama_are_those_of_transformers_model(llama_folder):
    """Ours share beginnings and leave padding out; theirs reads example and target as one text."""
    transformers = pytest.importorskip("transformers")
    targets, others = ask_first.choose_records(TRAINING, 1)
    model, tokenizer = load_pretrained(llama_folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(llama_folder, dtype=torch.float32).eval()
    few, shown = encoded(targets[::3], tokenizer), encoded(others[:3], tokenizer)
    found = plain_utility(lambda ids: theirs(ids, use_cache=False).logits, tokenizer, few, shown)
    assert np.abs(found).max() > 1e-3 and found == pytest.approx(matrix(model, tokenizer, targets[::3], others[:3]), abs=1e-5)


@pytest.mark.slow
def test_a_model_of_another_kind_and_ours_stand_side_by_side(llama_folder, monkeypatch, capsys):
    few = [r for r in classroom.records() if r["family"] in {*sorted(classroom.FAMILIES)[:3], *HELD_OUT}]
    monkeypatch.setattr(classroom, "records", lambda: few)
    monkeypatch.setattr(ask_first, "OF_HELD_OUT", 3)
    monkeypatch.setattr("sys.argv", ["ask_first.py", "--models", "classroom", str(llama_folder), "--per-family", "1"])
    ask_first.main()
    told = capsys.readouterr().out
    rows = [(line[:50].strip(), re.findall(r"[-+]?[\d.,]+%?", line[50:])) for line in told.splitlines() if "  " in line]
    assert all(len(values) == 2 for name, values in rows if name.startswith(("mean", "targets", "variance", "parameters")))
    assert sum(name == "mean utility of its family" for name, _ in rows) == 2  # of all families, and of those held out
    assert f"3 targets each of {' and '.join(HELD_OUT)}" in told


def test_a_folder_that_is_no_checkpoint_is_named(in_process, tmp_path):
    (tmp_path / "empty").mkdir()
    assert_refused(in_process("ch_delift/lab/ask_first.py", "--models", tmp_path / "empty"),
                   f"{tmp_path / 'empty'} is no checkpoint: it has no config.json")


@pytest.mark.slow
def test_damaged_weights_are_refused_in_one_sentence(in_process, tmp_path):
    save_tiny(tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"no weights at all")
    assert_refused(in_process("ch_delift/lab/ask_first.py", "--models", tmp_path / "broken"),
                   f"{tmp_path / 'broken' / 'model.safetensors'}")


def test_questions_that_are_alike_become_a_family():
    kinds = ("the capital of", "a rhyme for the word", "the sum of the numbers")
    records = [{"instruction": f"Give me {kind} {n}", "output": str(n)} for n in range(8) for kind in kinds]
    found = ask_first.group_by_likeness(records, 5)
    assert len(found) == 4 * 6 and len({record["instruction"] for record in found}) == len(found)
    first = [[kind for kind in kinds if kind in record["instruction"]] for record in found[:6]]
    assert all(kind == first[0] for kind in first) and {record["family"] for record in found[:6]} == {"like 0"}


@pytest.mark.slow
def test_records_of_ones_own_are_asked_with(in_process, tmp_path):
    (tmp_path / "cwd").mkdir(exist_ok=True)
    rows = [{"q": f"What is {n} plus {n % 7}?", "a": str(n + n % 7)} for n in range(40)] + [{"q": "long " * 200, "a": "x"}]
    (tmp_path / "cwd" / "mine.json").write_text(json.dumps(rows))
    line = ["ch_delift/lab/ask_first.py", "--data", "mine.json", "--fields", "instruction=q", "output=a", "--per-family"]
    done = in_process(*line, 2)
    assert done.returncode == 0 and "targets of mine.json" in done.stdout and "mean utility of its family" in done.stdout
    assert "HELD" not in done.stdout and "targets each of" not in done.stdout
    assert_refused(in_process(*line, 30), "--data mine.json:", "lower --per-family")
