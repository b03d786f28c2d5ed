"""The training loop: normalisation, resuming, early stopping, several processes."""

import copy
import csv
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from ch_instruct.collate import collate
from ch_instruct.encoding import Example
from common import training
from common.files import InputError
from common.losses import next_token_loss
from common.pretrained import load_pretrained
from common.training import (
    Dataset,
    TrainOptions,
    accumulate_gradients,
    check_mps,
    evaluate,
    fit,
    learning_rate,
    take_step,
)
from tests.conftest import ROOT, make_model

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
def test_one_pass_over_the_gradients_does_what_three_do(clip, fused):
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
    for every, validation in ((1, dataset(3, seed=9)), (100, Dataset([], None, None))):
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


def test_the_best_checkpoint_is_kept_and_training_stops(tiny_model, tokenizer, tmp_path):
    """Train on one set, validate on another of random tokens: the validation loss soon rises."""
    options = TrainOptions(30, 4, 1, 1e-2, "fp32", patience=3)
    validation = dataset(6, seed=5)
    run = fit(tiny_model, tokenizer, dataset(8), validation, next_token_loss, options, tmp_path)
    losses = [row["validation_loss"] for row in run.history if "validation_loss" in row]
    assert run.stopped_early
    assert run.best_loss == min(losses[1:])
    assert losses[-3:] == sorted(losses[-3:]) or min(losses[-3:]) > run.best_loss
    for model in (tiny_model, load_pretrained(tmp_path)[0]):
        assert evaluate(model, validation, next_token_loss, 4, "fp32") == pytest.approx(run.best_loss, abs=1e-6)


def test_learning_rate_rises_then_follows_half_a_cosine():
    rates = [learning_rate(step, 100, 1.0, 0.1) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[54] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.0)
    assert learning_rate(1, 1, 1.0, 0.1) == 1.0


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


# Interrupted runs, through the real command.

TINY = ["--smoke", "--epochs", "1", "--device", "cpu", "--precision", "fp32", "--seed", "3"]


def command(script: str, *options: object, ranks: int = 1) -> list[str]:
    launcher = [sys.executable] if ranks == 1 else [
        sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--master-port=0", "--rdzv-backend=c10d",
        "--rdzv-endpoint=localhost:0"]
    return [*launcher, str(ROOT / script), *map(str, options)]


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def weights(folder) -> dict[str, torch.Tensor]:
    return load_pretrained(folder)[0].state_dict()


def test_killed_and_resumed_equals_never_interrupted(tmp_path):
    """SIGKILL after the first saved state, then --resume: the same weights and curve, bit for bit."""
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    subprocess.run(command("ch_pretrain/train.py", *TINY, "--out", straight), env=ENVIRONMENT, check=True, capture_output=True)

    process = subprocess.Popen(command("ch_pretrain/train.py", *TINY, "--out", broken), env=ENVIRONMENT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (broken / "training_state.pt").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    state = torch.load(broken / "training_state.pt", weights_only=True)["state"]
    assert not state["done"], "killed too late to show anything"

    subprocess.run(command("ch_pretrain/train.py", *TINY, "--out", broken, "--resume"), env=ENVIRONMENT, check=True,
                   capture_output=True)
    for name, tensor in weights(straight).items():
        assert torch.equal(tensor, weights(broken)[name]), name
    curves = [[(row["step"], row["train_loss"], row["validation_loss"]) for row in csv.DictReader(open(folder / "metrics.csv"))]
              for folder in (straight, broken)]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("script", ["ch_instruct/train.py", "ch_sftmix/train.py"])
def test_two_processes_follow_the_curve_of_one(tmp_path, script):
    folders = [tmp_path / "one", tmp_path / "two"]
    for ranks, folder in enumerate(folders, 1):
        done = subprocess.run(command(script, *TINY, "--batch-size", 6, "--out", folder, ranks=ranks), env=ENVIRONMENT,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    curves = [[float(row["train_loss"]) for row in csv.DictReader(open(folder / "metrics.csv")) if row["train_loss"]]
              for folder in folders]
    assert len(curves[0]) > 3
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)
    reports = [json.loads((folder / "report.json").read_text()) for folder in folders]
    for arm in reports[0]["arms"]:
        assert reports[1]["arms"][arm]["test_loss"] == pytest.approx(reports[0]["arms"][arm]["test_loss"], abs=1e-5)
