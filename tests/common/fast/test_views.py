"""Every fast way gives what the plain model gives, and the same gradients."""

import pytest
import torch

from common.fast.cache import KVCache
from common.fast.views import recompute_blocks, run
from tests.common.test_gpt2 import some_ids
from tests.models import KINDS


@pytest.fixture(params=KINDS)
def make(request):
    """What makes a model, of each kind in turn."""
    return KINDS[request.param]


@pytest.fixture
def tiny_model(make):
    return make()


def gradients_of(model) -> list[torch.Tensor]:
    """Of a head of its own there are none, as the losses here are of hidden states."""
    return [p.grad.to_dense() for p in model.parameters() if p.grad is not None]


def test_the_fused_kernel_is_the_plain_attention(tiny_model):
    ids, found = some_ids(3, 12), []
    for way in (lambda: tiny_model.hidden_states(ids), lambda: run(tiny_model, ids)):
        tiny_model.zero_grad()
        hidden = way()
        hidden.square().sum().backward()
        found.append([hidden.detach(), *gradients_of(tiny_model)])
    assert len(found[0]) > 14
    for plain, fast in zip(*found):
        torch.testing.assert_close(fast, plain, atol=2e-5, rtol=1e-4)


def test_a_look_up_touches_its_rows_only_where_the_head_is_tied(tiny_model):
    run(tiny_model, some_ids(1, 6)).square().sum().backward()
    assert tiny_model.wte.weight.grad.is_sparse != hasattr(tiny_model, "lm_head")


@pytest.mark.parametrize("cached", [0, 4])
@pytest.mark.parametrize("lengths", [[12, 12], [12, 5], [1, 12], [3, 7]])
def test_leaving_out_padding_changes_nothing(tiny_model, lengths, cached):
    """States and gradients at the needed positions, after nothing and after cached tokens."""
    ids = some_ids(2, cached + 12)
    needed = torch.arange(12) < torch.tensor(lengths)[:, None]
    found = []
    for given in (None, needed):
        tiny_model.zero_grad()
        cache = KVCache(cached + 12) if cached else None
        if cached:
            with torch.no_grad():
                run(tiny_model, ids[:, :cached], cache)
            cache.layers = {layer: (k.clone(), v.clone()) for layer, (k, v) in cache.layers.items()}
        with torch.set_grad_enabled(not cached):
            hidden = run(tiny_model, ids[:, cached:], cache, needed=given)
        if not cached:
            hidden[needed].square().sum().backward()
        found.append([hidden[needed].detach(), *gradients_of(tiny_model)])
    assert len(found[0]) == len(found[1])
    for whole, packed in zip(*found):
        torch.testing.assert_close(packed, whole, atol=1e-5, rtol=1e-5)
    assert needed.all() or not hidden[~needed].any()  # what is left out is zero


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_recomputing_changes_no_gradient(make, dropout):
    gradients = []
    for recompute in (False, True):
        model = make(dropout=dropout).train()
        if recompute:
            recompute_blocks(model)
        torch.manual_seed(3)
        model(some_ids(2, 12)).square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for kept, again in zip(*gradients):
        torch.testing.assert_close(again, kept, atol=1e-7, rtol=0)


@pytest.mark.parametrize("pieces", [[12], [5, 7], [1] * 12, [4, 1, 1, 6]])
def test_cached_equals_uncached(tiny_model, pieces):
    ids = some_ids(2, 12)
    cache = KVCache(12)
    with torch.no_grad():
        whole = tiny_model.hidden_states(ids)
        parts = torch.cat([run(tiny_model, part, cache) for part in ids.split(pieces, dim=1)], dim=1)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)
    assert cache.length == 12


def test_one_cached_prefix_serves_many_continuations(tiny_model):
    prefix, first, second = some_ids(1, 6), some_ids(1, 9)[:, 6:], some_ids(1, 20)[:, 16:]
    cache = KVCache(16)
    with torch.no_grad():
        run(tiny_model, prefix, cache)
        run(tiny_model, first, cache)
        cache.length = 6  # forget the first continuation
        again = run(tiny_model, second, cache)
        alone = tiny_model.hidden_states(torch.cat([prefix, second], dim=1))[:, 6:]
    torch.testing.assert_close(again, alone, atol=1e-5, rtol=1e-5)


def test_left_padding_changes_nothing(tiny_model):
    ids = some_ids(1, 7)
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], dim=1)
    with torch.no_grad():
        alone = tiny_model.hidden_states(ids)
        together = run(tiny_model, padded, padding=torch.tensor([3]))
    torch.testing.assert_close(together[:, 3:], alone, atol=1e-5, rtol=1e-5)
    assert together.isfinite().all()


def test_too_long_an_input_is_refused_behind_a_cache_too(tiny_model):
    cache = KVCache(70)
    with torch.no_grad():
        run(tiny_model, some_ids(1, 60), cache)
        with pytest.raises(ValueError, match="65 tokens; this model reads at most 64"):
            run(tiny_model, some_ids(1, 5), cache)
