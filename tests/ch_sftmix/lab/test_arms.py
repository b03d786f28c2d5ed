"""What each arm trains on, seen at the door of the training loop."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ch_instruct.collate import collate
from ch_instruct.encoding import Example
from ch_instruct.pipeline import Work
from ch_sftmix.confidence import confidence, relative_confidence
from ch_sftmix.lab import arms
from ch_sftmix.lab.arms import ARMS, LEFT_OUT, Cell, neftune_loss, random_parts, without_wrong
from ch_sftmix.train import SFTMix, mean_states
from common.losses import next_token_loss
from common.pretrained import load_pretrained, save_pretrained
from tests.common.test_training import ragged_examples
from tests.models import make_model

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


def left_out(arm: str, cell: Cell) -> set[int]:
    return set(range(cell.perplexities.size(1))) - set(LEFT_OUT[arm](cell))


def test_left_out_are_the_examples_of_highest_perplexity_rounded_down(cell):
    perplexity = PERPLEXITIES[0].tolist()
    assert {perplexity[i] for i in left_out("tenth left out", cell)} == {19.0, 20.0}
    assert left_out("tenth left out", replace(cell, perplexities=PERPLEXITIES[:, :9])) == set()


def test_a_random_tenth_depends_on_the_seed_alone(cell):
    drawn = [left_out("random tenth left out", replace(cell, seed=seed)) for seed in range(6)]
    assert all(len(one) == 2 for one in drawn) and len({tuple(sorted(one)) for one in drawn}) > 1
    assert drawn[0] == left_out("random tenth left out", cell)


def test_the_highest_loss_is_that_of_the_untouched_model(cell):
    model, _ = load_pretrained(cell.work.folder)
    losses = []
    for example in cell.work.examples["train"]:
        total, count = next_token_loss(model, collate([example]))
        losses.append((total / count).item())
    with torch.no_grad():
        cell.work.model.wte.weight.fill_(0.5)  # something learnt, which must not matter
    worst = sorted(range(N), key=losses.__getitem__)[-2:]
    assert left_out("highest loss left out", cell) == set(worst)


def test_relative_confidence_compares_with_the_nearest_in_the_untouched_model(cell):
    model, _ = load_pretrained(cell.work.folder)
    with torch.no_grad():
        states = torch.stack([model.hidden_states(torch.tensor([e.ids]))[0].mean(dim=0) for e in cell.work.examples["train"]])
        cell.work.model.wte.weight.fill_(0.5)
    torch.testing.assert_close(mean_states(cell.work), states, atol=1e-5, rtol=1e-5)
    wanted = relative_confidence(confidence(PERPLEXITIES), states).argsort()[:2].tolist()
    assert left_out("relative tenth left out", cell) == set(wanted)


def test_the_oracle_leaves_out_the_wrong_answers(cell):
    assert without_wrong(cell) == [i for i in range(N) if i % 4]


def test_random_parts_are_halves_of_the_same_examples():
    one, other = random_parts([3, 5, 8, 13, 21], 0)
    assert (len(one), len(other)) == (3, 2) and sorted(one + other) == [3, 5, 8, 13, 21]
    assert random_parts([3, 5, 8, 13, 21], 0) == (one, other)


@pytest.mark.parametrize(("arm", "expected"), [
    *((arm, lambda cell, arm=arm: sorted(LEFT_OUT[arm](cell))) for arm in LEFT_OUT),
    ("neftune", lambda cell: list(range(N))),
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


def test_neftune_adds_noise_within_its_bound_and_only_there(tiny_model, monkeypatch):
    """Uniform within ±α / sqrt(L D); afterwards the model is as quiet as before."""
    batch = collate(ragged_examples(3))
    bound = arms.NEFTUNE / (batch[0].size(1) * 32) ** 0.5
    seen = []
    plain = tiny_model.wte.forward
    monkeypatch.setattr(tiny_model.wte, "forward", lambda ids: seen.append(plain(ids)) or seen[-1])
    monkeypatch.setattr(tiny_model.drop, "forward", lambda x: seen.append(x) or x)
    torch.manual_seed(0)
    noisy, count = neftune_loss(tiny_model, batch)
    quiet, same = next_token_loss(tiny_model, batch)
    (embedded, noised), (again, unchanged) = seen[:2], seen[2:]
    noise = noised - unchanged
    assert torch.equal(embedded, again) and count == same and noisy != quiet
    assert 0.9 * bound < noise.abs().max() <= bound * 1.0001 and noise.mean().abs() < bound / 5
    assert not tiny_model.wte._forward_hooks
