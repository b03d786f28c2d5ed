"""The GPU's benchmark on a CPU, with a tiny model: all of it but CUDA itself. That it is fast, no test says."""

import sys

import pytest
import torch
import torch.nn.attention.flex_attention as flex

from ch_instruct.lab import gpu
from common.gpt2 import GPT2Config
from common.losses import next_token_loss
from tests.conftest import assert_refused
from tests.models import make_model

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@pytest.fixture
def tiny(monkeypatch):
    """A CPU that takes itself for a GPU, and tiny models."""
    monkeypatch.setattr(flex, "_validate_device", lambda *_: None)  # it refuses to go back on a CPU
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(gpu, "cuda_gpu", lambda: torch.device("cpu"))
    monkeypatch.setattr(gpu, "pick_precision", lambda *_: ("fp32", ""))
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    size = {"vocab_size": 50, "n_positions": 40, "n_embd": 16, "n_head": 2}
    monkeypatch.setattr(gpu, "SHAPES", {"one": GPT2Config(n_layer=1, **size), "two": GPT2Config(n_layer=2, **size)})
    monkeypatch.setattr(gpu, "LOADS", {"3 records": (3, 4, 30), "2 full rows": (2, 40, 40)})
    for name in ("BATCHES", "WARM_UPS", "ROUNDS"):
        monkeypatch.setattr(gpu, name, 1)


@pytest.mark.slow
def test_all_ways_compute_the_same(tiny, capsys):
    gpu.main()
    told = capsys.readouterr().out
    rows = {tuple(line.split("  ")[0].split(", ", 2)): line.split()[-8:] for line in told.splitlines()
            if line.startswith(("one, ", "two, "))}
    ways = [(shape, load, way) for shape in ("one", "two") for load in gpu.LOADS for way in gpu.WAYS
            if (shape, way) != ("two", gpu.GRAPHS)]
    assert [*rows] == ways and "All ways work, and agree with fp32." in told and f"a GPU, PyTorch {torch.__version__}" in told
    for ms, tokens, *ratios, _, loss, off, gradient_off in rows.values():
        assert min(float(x.replace(",", "")) for x in (ms, tokens, *ratios)) > 0 and 3 < float(loss) < 5
        assert float(off) < 1e-5 and float(gradient_off) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("broken, sentence", [
    (lambda model, ids, needed: gpu.run(model, ids.flip(0)), "packed, compiled: loss and gradient are off by"),
    (lambda model, ids, needed: ids.missing, "packed, compiled: AttributeError: 'Tensor' object has no attribute 'missing'")])
def test_a_way_that_differs_or_fails_is_told_and_the_others_go_on(broken, sentence, tiny, monkeypatch, capsys):
    monkeypatch.setitem(gpu.WAYS, "packed, compiled", (broken, {}))
    with pytest.raises(SystemExit) as end:
        gpu.main()
    told = capsys.readouterr().out
    assert end.value.code == 1 and told.count(sentence) == 4 and told.count("today's") == 4 and "All ways work" not in told


@pytest.mark.slow
def test_what_fails_altogether_or_is_too_late_is_told(tiny, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "in_turns", lambda *_: (_ for _ in ()).throw(RuntimeError("CUDA out of memory")))
    for seconds, sentence in ((60, "RuntimeError: CUDA out of memory"), (-1, "left out, as -1 seconds were over")):
        monkeypatch.setattr(gpu, "SECONDS", seconds)
        with pytest.raises(SystemExit):
            gpu.main()
        assert capsys.readouterr().out.count(sentence) == 4


def test_a_row_that_sees_the_one_before_it_would_be_noticed():
    """In bf16, where a loss says little: the gradient changes by more than the tolerance."""
    model, batch = make_model(n_positions=90), gpu.random_batch(3, 20, 30, 250, seed=1)

    def one_row(model, ids, needed):
        return gpu.run(model, ids.flatten()[None]).view(*ids.shape, -1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(gpu.WAYS, "one row", (one_row, None))
        right, wrong = (gpu.compared(gpu.gradients_by(way, model, "fp32"), model, batch)[1] for way in ("padded", "one row"))
    assert float((wrong - right).norm() / right.norm()) > 2 * gpu.TOLERANCE["bf16"][1]


@pytest.mark.slow
def test_all_ways_have_the_loss_of_training_and_share_weights(monkeypatch):
    monkeypatch.setattr(flex, "_validate_device", lambda *_: None)
    model, batch = make_model(), gpu.random_batch(3, 20, 30, 250, seed=1)
    total, targets = next_token_loss(model, batch)
    for way in gpu.WAYS:
        gradients = gpu.gradients_by(way, model, "fp32")
        assert gpu.compared(gradients, model, batch)[0] == pytest.approx(total.item() / targets, rel=1e-5)
        gradients(batch)
        assert all(p.grad is not None for p in model.parameters())


def test_records_and_full_rows():
    inputs, targets = gpu.random_batch(8, 4, 30, 50, seed=2)
    needed = gpu.up_to_last_target(targets)
    assert inputs.shape == (8, 30) and needed[0].all() and 4 <= needed.sum(1).min() < 30 and len({*needed.sum(1).tolist()}) > 3
    assert (targets[0, :9] == gpu.IGNORE_INDEX).all() and (targets[0, 9:] >= 0).all()
    assert (gpu.random_batch(2, 40, 40, 50, seed=2)[1] >= 0).all()


def test_without_a_gpu_it_ends_with_a_sentence(in_process, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_refused(in_process("ch_instruct/lab/gpu.py"), "PyTorch sees no CUDA GPU here", "python ch_instruct/lab/bench.py")
