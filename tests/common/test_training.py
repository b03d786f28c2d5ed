"""The training loop: normalisation, resuming, early stopping, several processes."""

import copy
import csv
import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest
import torch

from ch_instruct.collate import collate
from ch_instruct.encoding import Example
from common import training
from common.lora import add_lora
from common.losses import evaluate, next_token_loss
from common.pretrained import load_pretrained, save_pretrained
from common.support import checkpoints
from common.support.checkpoints import Run, read_history
from common.support.device import check_mps
from common.support.files import InputError
from common.support.options import how_to_go_on
from common.training import (
    Dataset,
    TrainOptions,
    accumulate_gradients,
    fit,
    learning_rate,
    take_step,
)
from tests.conftest import run_command, run_here, run_together
from tests.models import assert_same_weights, make_model, save_tiny

NOTHING = Dataset([], None, None)
OPTIONS = TrainOptions(epochs=4, batch_size=4, accumulate=1, lr=1e-2, precision="fp32")


def ragged_examples(count: int, seed: int = 0) -> list[Example]:
    generator = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    return [Example([number(0, 20) for _ in range(number(8, 30))], number(1, 7)) for _ in range(count)]


def dataset(count: int, seed: int = 0) -> Dataset:
    return Dataset(ragged_examples(count, seed), partial(collate, pad_id=256), lambda e: len(e.ids) - 1)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(8, 1), (4, 2), (2, 4), (1, 8), (3, 3)])
def test_gradients_do_not_depend_on_how_a_step_is_cut(tiny_model, batch_size, accumulate):
    data = dataset(8)
    total, count = next_token_loss(tiny_model, data.collate(data.items))
    (total / count).backward()
    whole = [p.grad.clone() for p in tiny_model.parameters()]
    tiny_model.zero_grad()

    options = TrainOptions(1, batch_size, accumulate, 1e-3, "fp32")
    summed, targets = accumulate_gradients(tiny_model, data, next_token_loss, data.items, options)
    assert summed.item() / targets == pytest.approx(total.item() / count, abs=1e-6)
    assert targets == count
    for expected, p in zip(whole, tiny_model.parameters()):
        torch.testing.assert_close(p.grad / targets, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("clip", "fused"), [(1e9, True), (1e-3, True), (1e9, False), (1e-3, False)])
def test_a_step_divides_shortens_and_moves(clip, fused):
    """Dividing by the number of targets, shortening, and AdamW, against PyTorch's own three steps."""
    ours, plain, data = make_model().train(), make_model().train(), dataset(8)
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-2, fused=fused) for model in (ours, plain)]
    for step in range(3):
        _, targets = accumulate_gradients(ours, data, next_token_loss, data.items, OPTIONS)
        norm = take_step(ours, optimizers[0], targets, 1e-2 / (step + 1), clip)

        total, count = next_token_loss(plain, data.collate(data.items))
        (total / count).backward()
        expected = torch.nn.utils.clip_grad_norm_(plain.parameters(), clip)
        optimizers[1].param_groups[0]["lr"] = 1e-2 / (step + 1)
        optimizers[1].step()
        optimizers[1].zero_grad()
        assert norm.item() == pytest.approx(expected.item(), rel=1e-5)
        assert all(p.grad is None for p in ours.parameters())
    for (name, p), q in zip(ours.named_parameters(), plain.parameters()):
        if "c_attn.bias" not in name:  # keys' biases have no effect, so their gradient is rounding error alone
            torch.testing.assert_close(p, q, atol=1e-5, rtol=0, msg=name)


def test_evaluation_weighs_every_target_alike(tiny_model):
    data = dataset(7)
    total, count = next_token_loss(tiny_model, data.collate(data.items))
    for batch_size in (1, 2, 7):
        assert evaluate(tiny_model, data, next_token_loss, batch_size, "fp32") == pytest.approx(total.item() / count, abs=1e-5)


def test_evaluation_draws_no_random_number_and_keeps_the_mode():
    model = make_model(dropout=0.3).train()
    before = torch.get_rng_state()
    evaluate(model, dataset(5), next_token_loss, 2, "fp32")
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


def test_the_training_curve_is_the_same_with_evaluation_on_or_off(tokenizer, tmp_path):
    curves = []
    for every, validation in ((1, dataset(3, seed=9)), (100, NOTHING)):
        torch.manual_seed(0)
        options = TrainOptions(2, 4, 1, 1e-2, "fp32", evaluate_every=every)
        run = fit(make_model(dropout=0.1), tokenizer, dataset(10), validation, next_token_loss, options, tmp_path)
        curves.append([row["train_loss"] for row in run.history if "train_loss" in row])
    assert curves[0] == curves[1]


def test_one_batch_can_be_learnt_by_heart_and_every_parameter_moves(tiny_model, tokenizer, tmp_path):
    before = copy.deepcopy(tiny_model.state_dict())
    data = dataset(4)
    options = TrainOptions(60, 4, 1, 1e-2, "fp32", evaluate_every=60)
    run = fit(tiny_model, tokenizer, data, data, next_token_loss, options, tmp_path)
    assert run.best_loss < 0.1 < 2 < run.history[0]["validation_loss"]
    for name, tensor in tiny_model.state_dict().items():
        assert not torch.equal(tensor, before[name]), f"{name} was not trained"


def test_with_lora_the_update_alone_is_kept_too_and_gives_the_same_model(tokenizer, tmp_path):
    save_pretrained(make_model(), tokenizer, tmp_path / "base")
    model, _ = load_pretrained(tmp_path / "base")
    add_lora(model, 2)
    options = TrainOptions(2, 4, 1, 1e-2, "fp32", lora=2, base=str(tmp_path / "base"))
    fit(model, tokenizer, dataset(8), dataset(2, 1), next_token_loss, options, tmp_path / "run")
    (whole, _), (merged, _), (before, _) = (load_pretrained(tmp_path / name) for name in ("run", "run/adapter", "base"))
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(merged.state_dict()[name], tensor, atol=1e-6, rtol=1e-5)
    assert not torch.equal(whole.h[0].attn.c_attn.weight, before.h[0].attn.c_attn.weight)


def test_the_best_checkpoint_is_kept_and_training_stops(tiny_model, tokenizer, tmp_path):
    """Train on one set, validate on another of random tokens: the validation loss soon rises."""
    options = TrainOptions(30, 4, 1, 1e-2, "fp32", patience=3)
    validation = dataset(6, seed=5)
    run = fit(tiny_model, tokenizer, dataset(8), validation, next_token_loss, options, tmp_path)
    losses = [row["validation_loss"] for row in run.history if "validation_loss" in row]
    assert run.stopped_early and not tiny_model.training  # dropout, if any, is over
    assert run.best_loss == min(losses[1:])
    assert losses[-4] == run.best_loss < min(losses[-3:])  # three evaluations without a new best, and no fourth
    for model in (tiny_model, load_pretrained(tmp_path)[0]):
        assert evaluate(model, validation, next_token_loss, 4, "fp32") == pytest.approx(run.best_loss, abs=1e-6)


def test_learning_rate_rises_then_follows_half_a_cosine():
    rates = [learning_rate(step, 100, 1.0, 0.1) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[9:] == pytest.approx([(1 + math.cos(math.pi * n / 91)) / 2 for n in range(91)])
    assert learning_rate(101, 100, 1.0, 0.1) == pytest.approx(0)  # one step after the last


@pytest.mark.parametrize("total", range(1, 40))
def test_every_step_learns(total):
    """However short a run: up, down, and never at a rate of zero."""
    rates = [learning_rate(step, total, 1.0, 0.1) for step in range(1, total + 1)]
    assert max(rates) == 1.0 and min(rates) > 0 and rates[-1] == min(rates[max(1, round(0.1 * total)) - 1:])


def test_the_last_batch_counts(tokenizer, tmp_path):
    """Two steps on two batches that differ in the second: the weights differ."""
    weights = []
    for last in ([1, 2, 3, 4, 256], [9, 8, 7, 6, 256]):
        data = dataset(2)
        data.items = [Example([5, 6, 7, 8, 256], 2), Example(last, 2)]
        data.order = lambda epoch, items=data.items: items
        model = make_model()
        fit(model, tokenizer, data, NOTHING, next_token_loss, TrainOptions(1, 1, 1, 1e-2, "fp32"), tmp_path / str(last[0]))
        weights.append(model.wte.weight)
    assert not torch.equal(*weights)


def test_weight_decay_is_for_matrices_only(tiny_model):
    decayed, plain = training.make_optimizer(tiny_model, OPTIONS).param_groups
    assert decayed["weight_decay"] == 0.1 and plain["weight_decay"] == 0.0
    assert all(p.dim() >= 2 for p in decayed["params"]) and all(p.dim() == 1 for p in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(tiny_model.parameters()))


def test_a_loss_that_is_no_number_ends_the_run_with_advice(tiny_model, tokenizer, tmp_path):
    with torch.no_grad():
        tiny_model.wte.weight[3] = torch.nan
    with pytest.raises(InputError, match="lower --lr"):
        fit(tiny_model, tokenizer, dataset(8), dataset(2, 1), next_token_loss, OPTIONS, tmp_path)


def test_a_gradient_that_is_no_number_ends_the_run_too(tiny_model, tokenizer, tmp_path):
    """The loss of the last step is finite, and its weights are not."""
    def loss(model, batch):
        summed, count = next_token_loss(model, batch)
        return summed + torch.sqrt(0 * model.wte.weight.sum()), count

    with pytest.raises(InputError, match=r"At step 1 the loss is \d.* and the gradient's norm nan; lower --lr"):
        fit(tiny_model, tokenizer, dataset(8), dataset(2, 1), loss, OPTIONS, tmp_path)


class OnGpu(torch.nn.Module):
    """A stand-in for a model on an Apple GPU, which this machine may lack."""

    device, where = torch.device("mps"), "mps"

    def cpu(self):
        self.where = "cpu"
        return self

    def to(self, where):
        self.where = where
        return self


@pytest.mark.parametrize(("on_gpu", "wrong"), [(2.0, False), (2.01, False), (2.1, True), (19.9, True), (float("nan"), True)])
def test_a_wrong_loss_on_mps_is_refused(on_gpu, wrong):
    model = OnGpu()

    def loss(model, batch):
        return torch.tensor(10 * (on_gpu if model.where == "mps" else 2.0)), 10

    if wrong:
        with pytest.raises(InputError, match="the first batch's loss is"):
            check_mps(model, (), loss)
    else:
        check_mps(model, (), loss)
    assert model.where == "mps"  # it goes back


def test_metrics_count_tokens_and_targets(tiny_model, tokenizer, tmp_path):
    data = dataset(10)
    fit(tiny_model, tokenizer, data, dataset(2, 1), next_token_loss, OPTIONS, tmp_path)
    rows = list(csv.DictReader(open(tmp_path / "metrics.csv")))
    assert [int(row["step"]) for row in rows] == list(range(13))  # 3 steps an epoch, and the start
    assert int(rows[-1]["tokens"]) == 4 * sum(len(e.ids) - 1 for e in data.items)
    assert int(rows[-1]["targets"]) == 4 * sum(len(e.ids) - e.prompt_length for e in data.items)
    assert [float(row["epoch"]) for row in rows] == pytest.approx([step / 3 for step in range(13)])
    assert [float(row["lr"]) for row in rows[1:]] == pytest.approx([learning_rate(n, 12, 1e-2, 0.1) for n in range(1, 13)])
    assert [row["step"] for row in rows if row["validation_loss"]] == ["0", "3", "6", "9", "12"]  # once an epoch
    assert rows[0]["train_loss"] == "" and all(float(row["gradient_norm"]) > 0 for row in rows[1:])


def test_a_state_is_saved_before_there_is_any_checkpoint(tiny_model, tokenizer, tmp_path, monkeypatch):
    """The first evaluation of a long run may be hours away, and its folder is not there yet."""
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN_SAVES", -1)

    def stop(row: dict) -> None:
        if row["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tiny_model, tokenizer, dataset(12), dataset(3), next_token_loss, OPTIONS, tmp_path / "new" / "run", after_step=stop)
    assert {path.name for path in (tmp_path / "new" / "run").iterdir()} == {"metrics.csv", "training_state.pt"}


def test_the_first_state_comes_within_a_minute_and_an_interruption_says_where_it_goes_on(
        tiny_model, tokenizer, tmp_path, monkeypatch):
    assert checkpoints.SECONDS_BEFORE_FIRST < 60
    monkeypatch.setattr(checkpoints, "SECONDS_BEFORE_FIRST", -1)
    for name, value in (("folder", tmp_path), ("reached", None)):
        monkeypatch.setattr(f"common.support.options.Parser.{name}", value)

    def stop(row: dict) -> None:
        if row["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tiny_model, tokenizer, dataset(12), dataset(3), next_token_loss, OPTIONS, tmp_path / "ntp", after_step=stop)
    assert torch.load(tmp_path / "ntp" / "training_state.pt", weights_only=True)["state"]["step"] == 1  # then not for a while
    assert how_to_go_on().endswith(
        f"--resume --out {tmp_path} (it goes on after step 1 of the training in {tmp_path / 'ntp'})")


def test_a_method_may_add_columns_to_the_metrics(tiny_model, tokenizer, tmp_path):
    def add(row: dict) -> None:
        row["twice"] = 2 * row["train_loss"]

    history = fit(tiny_model, tokenizer, dataset(8), dataset(2, 1), next_token_loss, OPTIONS, tmp_path, after_step=add).history
    assert len(history) == 9 and all(row["twice"] == 2 * row["train_loss"] for row in history[1:])
    assert read_history(tmp_path / "metrics.csv") == history


def test_the_last_step_of_an_epoch_may_be_smaller():
    options = TrainOptions(3, 4, 2, 1e-2, "fp32")
    assert options.step_size == 8
    assert [options.steps_per_epoch(items) for items in (1, 8, 9, 16)] == [1, 1, 2, 2]
    assert options.total_steps(9) == 6 and TrainOptions(3, 4, 2, 1e-2, "fp32", max_steps=5).total_steps(9) == 5


def test_every_epoch_takes_every_item_once_in_an_order_of_its_own():
    data = Dataset(range(10), None, None, seed=3)
    options = TrainOptions(9, 2, 2, 1e-2, "fp32")
    taken = list(training.step_batches(data, options, 1, 6))
    assert [(step, len(items)) for step, items in taken] == [(1, 4), (2, 4), (3, 2), (4, 4), (5, 4), (6, 2)]
    epochs = [[item for _, items in part for item in items] for part in (taken[:3], taken[3:])]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10)) and epochs[0] != epochs[1]
    assert list(training.step_batches(data, options, 3, 5)) == taken[2:5]  # whoever begins later sees the same
    assert data.order(0) != Dataset(range(10), None, None, seed=4).order(0)


def test_a_step_moves_by_the_rate_and_forgets_the_gradient_and_a_long_gradient_is_shortened():
    """Plain descent moves by rate times gradient, so the weights show which gradient was used."""
    for longest in (0.5, 0.999, 1.001, 2.0):  # as shares of the gradient's length
        model = make_model()
        next_token_loss(model, dataset(4).collate(dataset(4).items))[0].backward()
        gradients = [p.grad.clone() for p in model.parameters()]
        before = [p.detach().clone() for p in model.parameters()]
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
        optimizer = torch.optim.SGD(model.parameters(), lr=7.0)
        # The gradient at hand is that of a sum over 10 targets, and its mean is what counts.
        assert take_step(model, optimizer, 10, 0.25, longest * norm / 10).item() == pytest.approx(norm / 10, rel=1e-5)
        assert all(p.grad is None for p in model.parameters())
        moved = torch.cat([(old - p.detach()).flatten() for old, p in zip(before, model.parameters())])
        assert moved.norm().item() == pytest.approx(0.25 * norm / 10 * min(longest, 1), rel=1e-4)
        for old, p, gradient in zip(before, model.parameters(), gradients):
            expected = 0.25 * min(longest, 1) * gradient / 10
            torch.testing.assert_close(old - p.detach(), expected, atol=1e-5 * norm, rtol=1e-3)


def test_fit_clips_at_one(tiny_model, tokenizer, tmp_path, monkeypatch):
    clips = []
    step = training.take_step
    monkeypatch.setattr(training, "take_step", lambda *given: clips.append(given[4]) or step(*given))
    for options in (OPTIONS, TrainOptions(1, 4, 1, 1e-2, "fp32", clip=0.3)):
        fit(tiny_model, tokenizer, dataset(4), NOTHING, next_token_loss, options, tmp_path)
    assert clips == [1.0] * 4 + [0.3]


def test_the_optimizer_is_that_of_gpt2s_kin(tiny_model):
    optimizer = training.make_optimizer(tiny_model, OPTIONS)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [(group["betas"], group["lr"]) for group in optimizer.param_groups] == [((0.9, 0.95), 1e-2)] * 2


def losses_to_come(monkeypatch, *losses: float) -> None:
    """Let the evaluations give these, whatever the model."""
    coming = iter(losses)
    monkeypatch.setattr(checkpoints, "evaluate", lambda *_: next(coming))


@pytest.mark.parametrize(("patience", "steps", "best"), [
    (1, 3, (2, 4.0)), (2, 6, (4, 3.0)), (3, 10, (7, 2.0)), (4, 11, (7, 2.0)), (6, 12, (7, 2.0)), (None, 12, (7, 2.0))])
def test_it_stops_after_so_many_evaluations_without_a_new_best(patience, steps, best, tiny_model, tokenizer, tmp_path,
                                                               monkeypatch):
    """An equal loss is no new best, and what comes before training does not count."""
    losses_to_come(monkeypatch, 1.0, 5.0, 4.0, 4.0, 3.0, 3.5, 3.1, 2.0, 2.0, 2.5, 9.0, 8.0, 7.0)
    options = TrainOptions(12, 4, 1, 1e-3, "fp32", patience=patience)
    run = fit(tiny_model, tokenizer, dataset(4), dataset(2, 1), next_token_loss, options, tmp_path)
    assert run.history[-1]["step"] == steps and run.stopped_early == (steps < 12)
    assert (run.best_step, run.best_loss) == best
    state = torch.load(tmp_path / "training_state.pt", weights_only=True)
    assert state["state"]["done"] and set(state) == {"state"}  # nothing to go on from


def test_without_validation_the_last_checkpoint_is_kept(tiny_model, tokenizer, tmp_path, capsys):
    start = copy.deepcopy(tiny_model.state_dict())
    after = []
    options = TrainOptions(3, 4, 1, 1e-2, "fp32", patience=1)
    run = fit(tiny_model, tokenizer, dataset(8), NOTHING, next_token_loss, options, tmp_path,
              after_step=lambda row: after.append(copy.deepcopy(tiny_model.state_dict())))
    assert (run.best_step, run.best_loss, run.stopped_early, len(after)) == (6, math.inf, False, 6)
    for name, tensor in load_pretrained(tmp_path)[0].state_dict().items():
        assert torch.equal(tensor, after[-1][name]) and not torch.equal(tensor, start[name])
    assert capsys.readouterr().out.count("no validation set\n") == 3  # none of them is called the best


def test_each_evaluation_is_told_with_the_training_loss_since_the_last(tiny_model, tokenizer, tmp_path, monkeypatch, capsys):
    losses_to_come(monkeypatch, 9.0, 4.0, 5.0, 3.0)
    options = TrainOptions(3, 4, 1, 1e-2, "fp32")
    run = fit(tiny_model, tokenizer, dataset(8), dataset(2, 1), next_token_loss, options, tmp_path)
    told = re.findall(r"epoch +([\d.]+)  step +(\d+)  training loss ([\d.]+)  validation loss ([\d.]+)(  \(best\))?",
                      capsys.readouterr().out)
    assert [(epoch, step, loss, bool(best)) for epoch, step, _, loss, best in told] == [
        ("1.00", "2", "4.0000", True), ("2.00", "4", "5.0000", False), ("3.00", "6", "3.0000", True)]
    for since, (_, step, train_loss, _, _) in zip((1, 3, 5), told):
        assert train_loss == f"{fmean(row['train_loss'] for row in run.history[since:int(step) + 1]):.4f}"


def test_one_target_alone_is_no_special_case(tiny_model):
    data = dataset(1)
    data.items = [Example([1, 2, 3], 2)]
    expected = next_token_loss(tiny_model, data.collate(data.items))[0].item()
    assert evaluate(tiny_model, data, next_token_loss, 1, "fp32") == pytest.approx(expected)
    loss, targets = accumulate_gradients(tiny_model, data, next_token_loss, data.items, OPTIONS)
    assert (loss.item(), targets) == (pytest.approx(expected), 1)
    found = [p.grad.clone() for p in tiny_model.parameters()]
    tiny_model.zero_grad()
    next_token_loss(tiny_model, data.collate(data.items))[0].backward()
    assert all(torch.allclose(p.grad, one) for p, one in zip(tiny_model.parameters(), found))


def test_where_nothing_is_a_target_the_loss_is_0(tiny_model):
    data = dataset(3)
    data.items = [Example(example.ids, len(example.ids)) for example in data.items]
    assert evaluate(tiny_model, data, next_token_loss, 2, "fp32") == 0
    summed, targets = accumulate_gradients(tiny_model, data, next_token_loss, data.items, OPTIONS)
    assert (summed.item(), targets) == (0, 0)


def test_precision_reaches_training_and_evaluation(tiny_model):
    data = dataset(4)
    exact, near = (evaluate(tiny_model, data, next_token_loss, 4, precision) for precision in ("fp32", "bf16"))
    assert near == pytest.approx(exact, rel=0.02) and near != exact
    options = TrainOptions(1, 4, 1, 1e-2, "bf16")
    total, targets = accumulate_gradients(tiny_model, data, next_token_loss, data.items, options)
    loss = total.item() / targets
    assert loss == pytest.approx(near, rel=1e-3) and loss != exact
    assert all(p.grad.dtype == torch.float32 for p in tiny_model.parameters())


def test_states_are_saved_between_evaluations_and_the_seconds_of_all_parts_add_up(tokenizer, tmp_path, monkeypatch):
    """By a clock of which each look costs 100 seconds; it is looked at three times a step."""
    looks = iter(range(0, 10**6, 100))
    for module in (training, checkpoints):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(looks)))
    data = dataset(8)
    found = []

    def look(row: dict) -> None:
        path = tmp_path / "training_state.pt"
        found.append(torch.load(path, weights_only=True)["state"]["step"] if path.exists() else None)
        if row["step"] == 5:
            raise KeyError

    def start(resume: bool, after_step: Callable | None = None) -> Run:
        return fit(make_model(), tokenizer, data, NOTHING, next_token_loss,
                   TrainOptions(3, 4, 1, 1e-2, "fp32", evaluate_every=6), tmp_path, resume, after_step)

    with pytest.raises(KeyError):
        start(False, look)
    assert found == [None, 1, 1, 3, 3]  # after the first 40 seconds; then not after 300, but after more
    before = torch.load(tmp_path / "training_state.pt", weights_only=True)["state"]["seconds"]
    run = start(True)
    assert before == 900 and run.seconds == 900 + 3 * 3 * 100
    assert run.history[-1]["tokens_per_second"] == (run.history[-1]["tokens"] - run.history[-2]["tokens"]) / 100


# Interrupted runs


class Interrupted(Exception):
    pass


def plain(history: list[dict]) -> list[dict]:
    """Without the only thing that may differ between two equal runs."""
    return [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in history]


@pytest.mark.parametrize("dropout", [pytest.param(0.0, marks=pytest.mark.slow), 0.2])
@pytest.mark.parametrize("last", [1, 4, 7, 10])
def test_resumed_after_any_step_equals_never_interrupted(dropout, last, tokenizer, tmp_path):
    """States are saved after steps 3, 6 and 9; what was done since is done again. After step 10 it was all done but told."""
    data, validation = dataset(18), dataset(4, 1)

    def start(folder: Path, resume: bool = False, after_step: Callable | None = None) -> Run:
        return fit(make_model(dropout=dropout), tokenizer, data, validation, next_token_loss,
                   TrainOptions(2, 4, 1, 1e-2, "fp32", evaluate_every=3), folder, resume, after_step)

    def interrupt(row: dict) -> None:
        if row["step"] == last:
            raise Interrupted

    steps = []
    straight = start(tmp_path / "straight")
    with pytest.raises(Interrupted):
        start(tmp_path / "broken", after_step=interrupt)
    resumed = start(tmp_path / "broken", resume=True, after_step=lambda row: steps.append(row["step"]))
    assert steps == list(range({1: 0, 4: 3, 7: 6, 10: 9}[last] + 1, 11))
    assert plain(resumed.history) == plain(straight.history)
    assert (resumed.best_step, resumed.best_loss) == (straight.best_step, straight.best_loss)
    assert_same_weights(tmp_path / "straight", tmp_path / "broken")

    again = start(tmp_path / "broken", resume=True, after_step=lambda row: pytest.fail("it was done"))
    assert again == resumed


def test_dropout_changes_training_and_equal_seeds_draw_equally(tokenizer, tmp_path):
    curves = []
    for number, (dropout, seed) in enumerate([(0.0, 1), (0.2, 1), (0.2, 1), (0.2, 2)]):
        model = make_model(dropout=dropout)
        torch.manual_seed(seed)
        run = fit(model, tokenizer, dataset(8), dataset(2, 1), next_token_loss, OPTIONS, tmp_path / str(number))
        curves.append([row.get("train_loss", row.get("validation_loss")) for row in run.history])
    none, one, same, other = curves
    assert none[0] == one[0] == other[0]  # evaluated before the first step, when nothing is dropped
    assert one == same and one[1] != none[1] and one[1] != other[1]


# The same through the real command, and several processes.

TINY = ["--smoke", "--epochs", "1", "--device", "cpu", "--precision", "fp32", "--seed", "3"]


@pytest.mark.slow
@pytest.mark.parametrize("script", ["ch_instruct/train.py", "ch_sftmix/train.py"])
def test_two_processes_follow_the_curve_of_one(tmp_path, script):
    save_tiny(tmp_path / "model")
    folders = [tmp_path / "one", tmp_path / "two"]
    given = [script, *TINY, "--model", "model", "--batch-size", 6, "--out"]
    run_here(*given, "one", folder=tmp_path)
    if script == "ch_instruct/train.py":  # once as users start it
        run_command(*given, "two", folder=tmp_path, ranks=2)
    else:
        run_together(*given, "two", folder=tmp_path)
    curves = [[float(row["train_loss"]) for row in csv.DictReader(open(folder / "metrics.csv")) if row["train_loss"]]
              for folder in folders]
    assert len(curves[0]) > 3
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)
    reports = [json.loads((folder / "report.json").read_text()) for folder in folders]
    for arm in reports[0]["arms"]:
        assert reports[1]["arms"][arm]["test_loss"] == pytest.approx(reports[0]["arms"][arm]["test_loss"], abs=1e-5)
