import copy
from itertools import product

import pytest
import torch

from ch_pretrain import inside
from ch_pretrain.inside import (
    attention_weights,
    head_effects,
    head_scores,
    logit_lens,
    loss_along_gradient,
    mean_outputs,
    output_shapes,
    token_losses,
    where_heads_look,
    without_heads,
)
from common.losses import next_token_loss

IDS = torch.tensor([[5, 9, 2, 7, 7, 1]])


def test_shapes_are_those_of_the_computation_in_its_order(tiny_model):
    shapes = output_shapes(tiny_model, IDS)
    names = list(shapes)
    assert names[:3] == ["wte", "wpe", "drop"] and names[-2:] == ["ln_f", "logits"]
    assert names.index("h.0.attn") < names.index("h.0.mlp") < names.index("h.1.attn")
    assert shapes["h.0.attn.c_attn"] == (1, 6, 96) and shapes["h.1.mlp.c_fc"] == (1, 6, 128)
    assert shapes["drop"] == shapes["ln_f"] == (1, 6, 32) and shapes["logits"] == (1, 6, 257)


def test_the_loss_falls_at_first_by_the_slope_and_the_weights_come_back(tiny_model):
    batch = (IDS[:, :-1], IDS[:, 1:])
    before = [p.detach().clone() for p in tiny_model.parameters()]
    (here, near, far), slope = loss_along_gradient(tiny_model, batch, [0.0, 1e-3, 1.0])
    total, count = next_token_loss(tiny_model, batch)
    assert here == pytest.approx(total.item() / count, rel=1e-6)
    assert here - near == pytest.approx(1e-3 * slope, rel=0.1)  # for a short step the loss is nearly a straight line
    assert here - far != pytest.approx(slope, rel=0.1)
    assert all(torch.equal(p, start) for p, start in zip(tiny_model.parameters(), before))


def test_weights_look_back_only_and_add_up_to_one(tiny_model):
    weights = attention_weights(tiny_model, IDS[0])
    assert weights.shape == (2, 4, 6, 6)
    assert torch.equal(weights, weights.tril())
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 4, 6))


def test_the_weights_are_those_the_model_attends_with(tiny_model):
    """Values mixed by these weights, and projected, are what the model's own attention gives."""
    found = {}
    attention = tiny_model.h[1].attn
    hooks = [attention.c_attn.register_forward_hook(lambda *call: found.__setitem__("qkv", call[2])),
             attention.register_forward_hook(lambda *call: found.__setitem__("out", call[2]))]
    weights = attention_weights(tiny_model, IDS[0])[1]
    values = found["qkv"][0, :, 64:].view(6, 4, 8).transpose(0, 1)  # [H, T, Dh]
    mixed = (weights @ values).transpose(0, 1).reshape(6, 32)
    with torch.no_grad():
        torch.testing.assert_close(attention.c_proj(mixed), found["out"][0], atol=1e-5, rtol=1e-5)
    for hook in hooks:
        hook.remove()


def test_no_hook_stays(tiny_model):
    attention_weights(tiny_model, IDS[0])
    output_shapes(tiny_model, IDS)
    assert all(not module._forward_hooks for module in tiny_model.modules())


def test_scores_by_hand(tiny_model, monkeypatch):
    """Places 0 to 6 hold end-of-text, a, b, c, a, b, c: what comes after the second a stood at place 2."""
    weights = torch.zeros(1, 2, 7, 7)
    weights[0, 0, [4, 5, 6], [2, 3, 4]] = torch.tensor([0.9, 0.6, 0.3])
    weights[0, 0, [2, 3], [0, 1]] = 1.0  # the same distance, but in the first copy nothing has stood before
    weights[0, 1, range(1, 7), range(6)] = torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])
    monkeypatch.setattr(inside, "attention_weights", lambda model, ids: weights * (1.0 if ids[1] == 7 else 0.5))
    lists = [torch.tensor([0, first, 8, 9, first, 8, 9]) for first in (7, 6)]
    for rows, share in ((lists[:1], 1.0), (lists, 0.75)):  # the second row has half of the first's attention
        induction, previous = head_scores(tiny_model, rows)
        torch.testing.assert_close(induction, share * torch.tensor([[0.6, 0.0]]))
        torch.testing.assert_close(previous, share * torch.tensor([[0.0, 0.5]]))


def test_scores_of_a_model_have_its_heads(tiny_model):
    scores = head_scores(tiny_model, [torch.tensor([1, 2, 3, 2, 3]), torch.tensor([1, 5, 6, 7, 8, 5, 6, 7, 8])])
    assert all(score.shape == (2, 4) and ((score > 0) & (score < 1)).all() for score in scores)


def test_a_head_left_out_is_one_whose_columns_of_the_projection_are_zero(tiny_model):
    plain = copy.deepcopy(tiny_model)
    with torch.no_grad():
        plain.h[0].attn.c_proj.weight[:, 8:16] = 0  # head 1 of four, each 8 wide
        plain.h[1].attn.c_proj.weight[:, :8] = 0
        whole = tiny_model(IDS)
        with without_heads(tiny_model, [(0, 1), (1, 0)]):
            without = tiny_model(IDS)
        torch.testing.assert_close(without, plain(IDS))
        assert not torch.allclose(without, whole) and torch.equal(tiny_model(IDS), whole)


def test_heads_come_back_after_an_error_and_one_that_is_not_there_is_refused(tiny_model):
    with pytest.raises(IndexError), without_heads(tiny_model, [(0, 4)]):
        tiny_model(IDS)
    assert all(not module._forward_pre_hooks for module in tiny_model.modules())


def test_a_head_can_give_its_mean_instead(tiny_model):
    """By hand: of a layer's inputs to its projection, over two texts, and put in the place of what the head fetched."""
    texts, found = [IDS[0], IDS[0, :3]], []
    hook = tiny_model.h[1].attn.c_proj.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0][0]))
    with torch.no_grad():
        for ids in texts:
            tiny_model(ids[None])
    means = mean_outputs(tiny_model, texts)  # while the hook is there, it sees the same once more
    assert means.shape == (2, 4, 8)
    torch.testing.assert_close(means[1].flatten(), torch.cat(found[:2]).mean(dim=0))
    with torch.no_grad(), without_heads(tiny_model, [(1, 2)], means):
        tiny_model(IDS)
    hook.remove()
    assert all(not module._forward_pre_hooks for module in tiny_model.modules())
    fetched = []
    with torch.no_grad(), without_heads(tiny_model, [(1, 2)], means):
        hook = tiny_model.h[1].attn.c_proj.register_forward_pre_hook(lambda module, inputs: fetched.append(inputs[0][0]))
        tiny_model(IDS)
    hook.remove()
    assert torch.equal(fetched[0][:, 16:24], means[1, 2].expand(6, 8)) and torch.equal(fetched[0][:, :16], found[0][:, :16])


def test_the_lens_begins_with_the_embeddings_and_ends_with_the_prediction(tiny_model):
    lens = logit_lens(tiny_model, IDS[0], k=3)
    with torch.no_grad():
        logits = tiny_model(IDS)[0]
        embedded = tiny_model.wte(IDS[0]) + tiny_model.wpe(torch.arange(6))
        first = tiny_model.logits(tiny_model.ln_f(embedded)).softmax(dim=-1).topk(3)
        middle = tiny_model.logits(tiny_model.ln_f(tiny_model.h[0](embedded[None])))[0].softmax(dim=-1).topk(3)
    assert lens.p.shape == lens.tokens.shape == (3, 6, 3) and torch.equal(lens.logits, logits)
    for row, expected in enumerate((first, middle, logits.softmax(dim=-1).topk(3))):
        torch.testing.assert_close(lens.p[row], expected.values)
        assert torch.equal(lens.tokens[row], expected.indices)
    total, count = next_token_loss(tiny_model, (IDS[:, :-1], IDS[:, 1:]))
    assert token_losses(logits, IDS[0]).mean().item() == pytest.approx(total.item() / count, rel=1e-5)


def test_what_a_head_does_for_a_token(tiny_model):
    means = mean_outputs(tiny_model, [IDS[0]])
    effects = head_effects(tiny_model, IDS[0], means, 7)  # all in one pass
    expected = torch.zeros(2, 4)
    with torch.no_grad():
        whole = tiny_model(IDS)[0, -1].softmax(dim=-1)[7]
        for layer, head in product(range(2), range(4)):
            with without_heads(tiny_model, [(layer, head)], means):
                expected[layer, head] = whole - tiny_model(IDS)[0, -1].softmax(dim=-1)[7]
    torch.testing.assert_close(effects, expected, rtol=1e-3, atol=1e-7)
    assert effects.abs().min() > 0 and torch.equal(tiny_model(IDS)[0, -1].softmax(dim=-1)[7], whole)


def test_where_heads_look_by_hand():
    """a b a c: at the second a, "what followed last time" is the b at position 1."""
    weights = torch.tensor([[1.0, 0, 0, 0], [0.2, 0.8, 0, 0], [0.1, 0.6, 0.3, 0], [0.5, 0.1, 0.4, 0]])[None, None]
    looks = where_heads_look(weights, torch.tensor([5, 6, 5, 7]))
    found = {kind: shares.item() for kind, shares in looks.items()}
    assert found == {"what followed last time": pytest.approx(0.6), "the first token": pytest.approx(0.8 / 3),
                     "the token before": pytest.approx(1.2 / 3), "itself": pytest.approx(1.1 / 3)}
    assert where_heads_look(weights[..., :1, :1], torch.tensor([5]))["what followed last time"].item() == 0
