"""Weights of 8 bits: close to the plain ones, and mostly the same words."""

import pytest
import torch

from common.fast import int8
from common.fast.answering import continue_all
from common.fast.prepacked import prepacked_weights
from common.pretrained import load_pretrained
from common.support.device import evaluating
from common.support.files import InputError
from tests.models import KINDS, make_model


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_near_the_plain_ones_and_further_than_nothing(kind):
    model, ids = KINDS[kind](), torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(0))
    with evaluating(model):
        plain = model(ids)
        int8.to_int8(model)
        found = model(ids)
    far = (found - plain).norm() / plain.norm()  # rounding to 127 steps, several times
    assert 1e-4 < far < 0.07


@pytest.mark.parametrize("kind", KINDS)
def test_they_stay_where_others_would_order_the_weights(kind):
    """Answering orders the weights of a model for a while; these are not to be ordered, nor to be gone afterwards."""
    model, ids = KINDS[kind](), torch.tensor([[5, 6, 7]])
    with evaluating(model):
        int8.to_int8(model)
        found = model(ids)
        with prepacked_weights(model):
            assert torch.equal(model(ids), found)
        assert torch.equal(model(ids), found)


@pytest.mark.slow
def test_the_shipped_model_says_the_right_capitals_as_before():
    from ch_pretrain.world import COUNTRIES

    model, tokenizer = load_pretrained("classroom")
    prompts = [tokenizer.encode(f"The capital of {country} is") for country, *_ in COUNTRIES]
    with evaluating(model):
        plain = continue_all(model, prompts, 4, tokenizer.eot_id, 32)
        assert int8.precision_to_answer("int8", model) == "fp32"
        found = continue_all(model, prompts, 4, tokenizer.eot_id, 32)
    right = [sum(tokenizer.decode(answer.ids).strip().startswith(country[1]) for answer, country in zip(answers, COUNTRIES))
             for answers in (plain, found)]
    assert right[0] > 90 and abs(right[1] - right[0]) <= 2 and found != plain, right


def test_where_there_are_no_such_kernels_it_is_refused(monkeypatch):
    with pytest.raises(InputError, match="--precision int8 is for answering on a CPU, and this is meta"):
        int8.precision_to_answer("int8", make_model().to("meta"))
    monkeypatch.setattr(int8.torch.backends, "quantized", type("None", (), {"engine": "none"}))
    with pytest.raises(InputError, match=r"PyTorch .* has no kernels for it here"):
        int8.precision_to_answer("int8", make_model())
