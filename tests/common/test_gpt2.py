import pytest
import torch

from common.gpt2 import GPT2Config, KVCache
from tests.conftest import make_model


def some_ids(rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, 257, (rows, length), generator=torch.Generator().manual_seed(1))


def test_shapes_of_both_halves(tiny_model):
    ids = some_ids(3, 10)
    hidden = tiny_model.hidden_states(ids)
    assert hidden.shape == (3, 10, 32)
    assert tiny_model.logits(hidden).shape == (3, 10, 257)
    assert torch.equal(tiny_model(ids), tiny_model.logits(hidden))


def test_no_token_sees_a_later_one(tiny_model):
    ids = some_ids(1, 12)
    changed = ids.clone()
    changed[0, 8:] = (changed[0, 8:] + 1) % 257
    with torch.no_grad():
        before, after = tiny_model(ids), tiny_model(changed)
    torch.testing.assert_close(before[:, :8], after[:, :8])
    assert not torch.allclose(before[:, 8:], after[:, 8:])


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
                tiny_model.hidden_states(ids[:, :cached], cache)
            cache.layers = [(k.clone(), v.clone()) for k, v in cache.layers]
        with torch.set_grad_enabled(not cached):
            hidden = tiny_model.hidden_states(ids[:, cached:], cache, needed=given)
        if not cached:
            hidden[needed].square().sum().backward()
        found.append([hidden[needed].detach(), *(p.grad.clone() for p in tiny_model.parameters() if not cached)])
    assert len(found[0]) == len(found[1])
    for whole, packed in zip(*found):
        torch.testing.assert_close(packed, whole, atol=1e-5, rtol=1e-5)
    assert needed.all() or not hidden[~needed].any()  # what is left out is zero


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_recomputing_changes_no_gradient(dropout):
    gradients = []
    for recompute in (False, True):
        model = make_model(dropout=dropout).train()
        model.recompute = recompute
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
        parts = torch.cat([tiny_model.hidden_states(part, cache) for part in ids.split(pieces, dim=1)], dim=1)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)
    assert cache.length == 12


def test_one_cached_prefix_serves_many_continuations(tiny_model):
    prefix, first, second = some_ids(1, 6), some_ids(1, 9)[:, 6:], some_ids(1, 20)[:, 16:]
    cache = KVCache(16)
    with torch.no_grad():
        tiny_model.hidden_states(prefix, cache)
        tiny_model.hidden_states(first, cache)
        cache.length = 6  # forget the first continuation
        again = tiny_model.hidden_states(second, cache)
        alone = tiny_model.hidden_states(torch.cat([prefix, second], dim=1))[:, 6:]
    torch.testing.assert_close(again, alone, atol=1e-5, rtol=1e-5)


def test_left_padding_changes_nothing(tiny_model):
    ids = some_ids(1, 7)
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], dim=1)
    with torch.no_grad():
        alone = tiny_model.hidden_states(ids)
        together = tiny_model.hidden_states(padded, padding=torch.tensor([3]))
    torch.testing.assert_close(together[:, 3:], alone, atol=1e-5, rtol=1e-5)
    assert together.isfinite().all()


def test_right_padding_changes_nothing(tiny_model):
    ids = some_ids(1, 7)
    with torch.no_grad():
        padded = tiny_model.hidden_states(torch.cat([ids, ids[:, :4]], dim=1))
        torch.testing.assert_close(padded[:, :7], tiny_model.hidden_states(ids), atol=1e-5, rtol=1e-5)


def test_too_long_an_input_is_refused(tiny_model):
    with pytest.raises(ValueError, match="65 tokens; this model reads at most 64"):
        tiny_model(some_ids(1, 65))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match=r"n_embd \(30\) must be a multiple of n_head \(4\)"):
        GPT2Config(n_embd=30, n_head=4)


def test_dropout_is_off_unless_asked_for(tiny_model):
    ids = some_ids(1, 8)
    tiny_model.train()
    assert torch.equal(tiny_model(ids), tiny_model(ids))
    dropping = make_model(dropout=0.5).train()
    assert not torch.equal(dropping(ids), dropping(ids))


def test_the_head_is_the_embedding(tiny_model):
    assert "lm_head.weight" not in tiny_model.state_dict()
    tiny_model(some_ids(1, 4)).sum().backward()
    assert tiny_model.wte.weight.grad[200].abs().sum() > 0  # through the head alone: 200 is not in the input
