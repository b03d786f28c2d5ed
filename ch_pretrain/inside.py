"""Looking into a running model: what shape everything has, and where each head looks."""

import torch
from torch import Tensor, nn

from common.gpt2 import GPT2


@torch.no_grad()
def _outputs(model: GPT2, ids: Tensor) -> dict[str, Tensor]:
    """What every module gives for `ids`, by its name, in the order of computation; the whole model's output is "logits"."""
    found: dict[str, Tensor] = {}
    hooks = [module.register_forward_hook(lambda module, inputs, output, name=name: found.__setitem__(name, output))
             for name, module in model.named_modules(prefix="") if name and not isinstance(module, nn.ModuleList)]
    found["logits"] = model(ids)
    for hook in hooks:
        hook.remove()
    return found


def output_shapes(model: GPT2, ids: Tensor) -> dict[str, tuple[int, ...]]:
    """The shape of what every module gives, in the order of computation: "wte", "wpe", ..., "ln_f", "logits".

    ids: int64 [B, T].
    """
    shapes = {name: tuple(output.shape) for name, output in _outputs(model, ids).items()}
    return shapes | {"logits": shapes.pop("logits")}


def attention_weights(model: GPT2, ids: Tensor) -> Tensor:
    """How much each token takes from each token before it, in every head: softmax(q kᵀ / sqrt(Dh)) under the causal mask.

    The model itself never holds this table: PyTorch's attention works without it, to save memory.

    Args:
        ids: int64 [T].

    Returns:
        float [layers, H, T, T]; the row of a query adds up to 1.
    """
    T, H = ids.size(0), model.config.n_head
    outputs = _outputs(model, ids[None])
    weights = []
    for layer in range(model.config.n_layer):
        q, k, _ = outputs[f"h.{layer}.attn.c_attn"][0].view(T, 3, H, -1).permute(1, 2, 0, 3)  # each [H, T, Dh]
        scores = q @ k.transpose(1, 2) / q.size(-1) ** 0.5  # [H, T, T]
        ahead = torch.ones(T, T, dtype=torch.bool, device=scores.device).triu(1)
        weights.append(scores.masked_fill(ahead, -torch.inf).softmax(dim=-1))
    return torch.stack(weights)
