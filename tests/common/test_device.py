import time

import pytest
import torch

from common.device import autocast, pick_device, pick_precision
from common.files import InputError
from common.losses import next_token_loss

BATCH = (torch.arange(20).view(2, 10), torch.arange(1, 21).view(2, 10))


@pytest.mark.parametrize(("slower", "expected"), [("fp32", "bf16"), ("bf16", "fp32"), ("neither", "fp32")])
def test_auto_takes_bf16_only_where_a_trial_finds_it_faster(tiny_model, slower, expected):
    def loss(model, batch):
        precision = "bf16" if torch.is_autocast_enabled("cpu") else "fp32"
        time.sleep(0.05 if precision == slower else 0.02)
        return next_token_loss(model, batch)

    assert pick_precision("auto", tiny_model, BATCH, loss) == expected


def test_the_trial_leaves_no_trace(tiny_model):
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    state = torch.get_rng_state()
    pick_precision("auto", tiny_model, BATCH, next_token_loss)
    assert all(p.grad is None for p in tiny_model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_given_precision_is_taken_without_a_trial(tiny_model):
    assert pick_precision("bf16", tiny_model, None, None) == "bf16"


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
