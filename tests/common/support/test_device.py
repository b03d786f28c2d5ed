import pytest
import torch

from common.losses import next_token_loss
from common.support.device import autocast, evaluating, pick_device, pick_precision
from common.support.files import InputError
from tests.models import make_model

BATCH = (torch.arange(20).view(2, 10), torch.arange(1, 21).view(2, 10))
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(("unit", "expected"), [
    ("amx_bf16", "bf16"), ("avx512_bf16", "bf16"), ("bf16", "bf16"), ("avx512_f", "fp32"), ("amx_tile", "fp32")])
def test_auto_goes_by_what_the_processor_has(unit, expected, monkeypatch):
    capabilities = {"architecture": "some", "amx_bf16": False, "avx512_bf16": False} | {unit: True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    precision, why = pick_precision("auto", CPU)
    assert precision == expected and "processor" in why


def test_an_older_pytorch_that_cannot_tell_gets_fp32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert pick_precision("auto", CPU)[0] == "fp32"


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_goes_by_the_capability_of_a_gpu(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert pick_precision("auto", GPU)[0] == expected


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_a_given_precision_is_taken(name, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: pytest.fail("asked"))
    assert pick_precision(name, CPU) == (name, "as asked for")


def test_within_evaluating_nothing_is_dropped_and_afterwards_all_is_as_before():
    model = make_model(dropout=0.5).train()
    with evaluating(model, "bf16"):
        one, two = model(BATCH[0]), model(BATCH[0])
        assert not model.training and torch.equal(one, two) and one.dtype == torch.bfloat16 and not one.requires_grad
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert model.training and model(BATCH[0]).requires_grad


def test_bf16_is_close_to_fp32(tiny_model):
    exact, _ = next_token_loss(tiny_model, BATCH)
    with autocast(torch.device("cpu"), "bf16"):
        near, _ = next_token_loss(tiny_model, BATCH)
    assert near.item() == pytest.approx(exact.item(), rel=0.02) and near.item() != exact.item()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU here")
def test_a_missing_gpu_is_told():
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="--device cuda: PyTorch sees no CUDA GPU"):
        pick_device("cuda")


def test_the_gpus_of_a_machine_are_shared_out_and_cudnn_does_not_plan_for_each_shape(monkeypatch):
    """As many processes as GPUs; one more is refused. (cuDNN's attention: ten times slower where every batch has its shape.)"""
    told: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", told.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device("auto") == torch.device("cuda:1") and told == [False]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match=r"process 3 on a machine with 2 GPUs; use --nproc-per-node 2, or --device cpu"):
        pick_device("cuda")
