"""What each arm trains on, seen at the door of the training loop."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ch_instruct.encoding import Example
from ch_instruct.pipeline import Work
from ch_sftmix.lab import arms
from ch_sftmix.lab.arms import ARMS, Cell, random_parts, without_least_confident, without_wrong
from ch_sftmix.train import SFTMix
from common.losses import next_token_loss
from common.pretrained import load_pretrained, save_pretrained
from tests.common.test_training import ragged_examples
from tests.conftest import make_model

N = 20
PERPLEXITIES = torch.tensor([[1.0 + (7 * i) % N for i in range(N)]] * 2, dtype=torch.float64)  # from 1 to 20, each once


@pytest.fixture
def cell(tokenizer, tmp_path) -> Cell:
    records = [{"instruction": "", "output": ""} | ({"wrong": "yes"} if i % 4 == 0 else {}) for i in range(N)]
    save_pretrained(make_model(), tokenizer, tmp_path / "model")
    work = Work(SFTMix(epochs=3, batch_size=4), tmp_path / "model", make_model(), tokenizer, {"train": records},
                {"train": ragged_examples(N)})
    return Cell(work, tmp_path / "checkpoint", 0, PERPLEXITIES)


@pytest.fixture
def trained(cell, monkeypatch):
    """Starts an arm and gives what it asked the training loop for: data, loss, model, and options."""
    def start(arm: str) -> SimpleNamespace:
        seen = SimpleNamespace()

        def train(work, data, loss, folder, seed, after_step=None, **changes):
            seen.data, seen.loss, seen.model, seen.changes = data, loss, work.model, changes
            with torch.no_grad():
                work.model.wte.weight.fill_(0.5)  # something learnt, to be found again
            save_pretrained(work.model, work.tokenizer, folder)

        monkeypatch.setattr("ch_instruct.pipeline.train", train)
        ARMS[arm](cell)
        return seen

    return start


def ids(cell: Cell, items: list[Example]) -> list[int]:
    return sorted(cell.work.examples["train"].index(item) for item in items)


def test_left_out_are_the_examples_of_highest_perplexity_rounded_down(cell):
    perplexity = PERPLEXITIES[0].tolist()
    kept = without_least_confident(cell)
    assert len(kept) == 18 and {perplexity[i] for i in range(N) if i not in kept} == {19.0, 20.0}
    nine = replace(cell, perplexities=PERPLEXITIES[:, :9])
    assert sorted(without_least_confident(nine)) == list(range(9))


def test_the_oracle_leaves_out_the_wrong_answers(cell):
    assert without_wrong(cell) == [i for i in range(N) if i % 4]


def test_random_parts_are_halves_of_the_same_examples():
    one, other = random_parts([3, 5, 8, 13, 21], 0)
    assert (len(one), len(other)) == (3, 2) and sorted(one + other) == [3, 5, 8, 13, 21]
    assert random_parts([3, 5, 8, 13, 21], 0) == (one, other)


@pytest.mark.parametrize(("arm", "expected"), [
    ("tenth left out", lambda cell: sorted(without_least_confident(cell))),
    ("oracle", without_wrong),
    ("confident half", lambda cell: sorted(cell.halves[0])),
    ("unconfident half", lambda cell: sorted(cell.halves[1])),
    ("label smoothing", lambda cell: list(range(N))),
    ("dropout", lambda cell: list(range(N))),
    ("ntp, twice as long", lambda cell: list(range(N)))])
def test_plain_arms_train_on_these_examples(arm, expected, cell, trained):
    assert ids(cell, trained(arm).data.items) == expected(cell)


def test_mixup_arms_mix_these_halves(cell, trained):
    sure, unsure = cell.halves
    assert set(PERPLEXITIES[0, sure].tolist()) == set(range(1, 11))
    assert trained("sftmix").data.halves == trained("mu = 0").data.halves == (sure, unsure)
    assert trained("sftmix").data.mu == 0.2 and trained("mu = 0").data.mu == 0
    expected_ids = {"random halves": range(N), "mixup in confident half": sure, "mixup in unconfident half": unsure}
    for arm, expected in expected_ids.items():
        one, other = trained(arm).data.halves
        assert sorted(one + other) == sorted(expected) and len(one) == len(other)
        assert {*one} not in ({*sure}, {*unsure})


@pytest.mark.parametrize("arm", ARMS)
def test_all_arms_take_as_many_steps_on_as_many_examples(arm, cell, trained):
    """20 examples in batches of 4 are 5 steps an epoch, 15 in all; one pair is two examples."""
    seen = trained(arm)
    times = 2 if arm == "ntp, twice as long" else 1
    assert (seen.changes["max_steps"], seen.changes["evaluate_every"]) == (15 * times, 5)
    mixes = "mix" in arm or arm in ("random halves", "mu = 0")
    assert seen.changes.get("batch_size", 4) == (2 if mixes else 4)
    assert (cell.work.model.wte.weight == 0.5).all()  # what was learnt is in the model that is tested


def test_label_smoothing_and_dropout_reach_training(trained, cell):
    assert trained("label smoothing").loss.keywords == {"label_smoothing": arms.SMOOTHING}
    seen = trained("dropout")
    assert seen.loss is next_token_loss and seen.model.config.dropout == arms.DROPOUT
    assert cell.work.model.config.dropout == 0 == load_pretrained(cell.work.folder)[0].config.dropout
