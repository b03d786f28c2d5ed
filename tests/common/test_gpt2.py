import pytest
import torch

from common.gpt2 import GPT2Config
from tests.models import make_model


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


def test_attention_is_softmax_of_scaled_products(tiny_model):
    """One head of one row, written out number by number."""
    attention, x = tiny_model.h[0].attn, torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        q, k, v = (part[0, :, 8:16] for part in attention.c_attn(x).split(32, dim=2))  # the second of four heads
        found = attention.attend(*attention.heads(attention.c_attn(x)))[0, :, 8:16]
    for t in range(5):
        weights = torch.stack([(q[t] * k[s]).sum() / 8 ** 0.5 for s in range(t + 1)]).exp()
        expected = sum(w * v[s] for s, w in enumerate(weights / weights.sum()))
        torch.testing.assert_close(found[t], expected, atol=1e-6, rtol=1e-5)
