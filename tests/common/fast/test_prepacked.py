import pytest
import torch

from common.fast import prepacked
from common.fast.cache import KVCache
from common.fast.prepacked import prepacked_weights
from common.fast.views import run
from common.lora import add_lora, lora_layers
from common.support.device import evaluating
from tests.models import KINDS, make_model

IDS = torch.tensor([[5, 6, 7], [8, 9, 10]])


NO_BF16 = pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
                             reason="this processor has no instructions that oneDNN needs for bfloat16")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-5), pytest.param("bf16", 0.02, marks=NO_BF16)])
def test_ordered_weights_compute_the_same_and_go_again(precision, tolerance, kind):
    model = KINDS[kind]()
    with evaluating(model, precision):
        plain = model(IDS)
        with prepacked_weights(model):
            assert "forward" in vars(model.h[0].mlp.c_fc)
            assert "logits" in vars(model) or "forward" in vars(model.lm_head)
            cache = KVCache(3)
            run(model, IDS[:, :2], cache)
            step = model.logits(run(model, IDS[:, 2:], cache))
            ordered = model(IDS)
        again = model(IDS)
    torch.testing.assert_close(ordered, plain, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(step[:, 0], plain[:, 2], atol=tolerance, rtol=tolerance)
    assert torch.equal(again, plain)


def test_an_update_of_lora_still_counts():
    model = make_model()
    add_lora(model, 2)
    with torch.no_grad():
        for layer in lora_layers(model).values():
            layer.B.fill_(0.1)
    with evaluating(model):
        plain = model(IDS)
        with prepacked_weights(model):
            torch.testing.assert_close(model(IDS), plain, atol=1e-5, rtol=1e-5)


def test_what_takes_too_much_memory_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(prepacked, "machine_memory", lambda: 1000)
    model = make_model()
    with evaluating(model), prepacked_weights(model):
        assert "logits" not in vars(model)
