import torch

from ch_pretrain.inside import attention_weights, output_shapes

IDS = torch.tensor([[5, 9, 2, 7, 7, 1]])


def test_shapes_are_those_of_the_computation_in_its_order(tiny_model):
    shapes = output_shapes(tiny_model, IDS)
    names = list(shapes)
    assert names[:3] == ["wte", "wpe", "drop"] and names[-2:] == ["ln_f", "logits"]
    assert names.index("h.0.attn") < names.index("h.0.mlp") < names.index("h.1.attn")
    assert shapes["h.0.attn.c_attn"] == (1, 6, 96) and shapes["h.1.mlp.c_fc"] == (1, 6, 128)
    assert shapes["drop"] == shapes["ln_f"] == (1, 6, 32) and shapes["logits"] == (1, 6, 257)


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
