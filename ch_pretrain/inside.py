"""Looking into a running model: what shape everything has, what a step does, where heads look, what is lost without one, and
what each layer would say."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from common.gpt2 import GPT2
from common.llama import Llama
from common.losses import next_token_loss
from common.support.files import InputError
from common.support.verify import outputs_of


def output_shapes(model: GPT2, ids: Tensor) -> dict[str, tuple[int, ...]]:
    """The shape of what every module gives, in the order of computation: "wte", "wpe", ..., "ln_f", "logits".

    ids: int64 [B, T].
    """
    modules = {name: module for name, module in model.named_modules() if name and not isinstance(module, nn.ModuleList)}
    return {name: tuple(output.shape) for name, output in outputs_of(model, ids, modules).items()}


def loss_along_gradient(model: GPT2, batch: tuple[Tensor, Tensor], lengths: Sequence[float]) -> tuple[list[float], float]:
    """What one step of plain gradient descent makes of the loss on the batch it was computed from, for several lengths.

    Args:
        batch: inputs and targets, int64 [B, T] each.
        lengths: the weights move by so many times the gradient, against it. Afterwards they are as they were.

    Returns:
        The loss at each length, in nats per target, and the slope at length 0: the gradient's squared norm. At first the loss
        falls by so much for each unit of length.
    """
    parameters = list(model.parameters())
    before = [p.detach().clone() for p in parameters]
    total, count = next_token_loss(model, batch)
    gradient = torch.autograd.grad(total / count, parameters)
    losses = []
    with torch.no_grad():
        for length in lengths:
            for p, start, g in zip(parameters, before, gradient):
                p.copy_(start - length * g)
            losses.append((next_token_loss(model, batch)[0] / count).item())
        for p, start in zip(parameters, before):
            p.copy_(start)
    return losses, sum(g.square().sum().item() for g in gradient)


def attention_weights(model: GPT2, ids: Tensor) -> Tensor:
    """How much each token takes from each token before it, in every head: softmax(q kᵀ / sqrt(Dh)) under the causal mask.

    The model itself never holds this table: PyTorch's attention works without it, to save memory.

    Args:
        ids: int64 [T].

    Returns:
        float [layers, H, T, T]; the row of a query adds up to 1.
    """
    T, H = ids.size(0), model.config.n_head
    products = outputs_of(model, ids[None], {str(layer): model.get_submodule(f"h.{layer}.attn.c_attn")
                                             for layer in range(model.config.n_layer)})  # queries, keys and values
    weights = []
    for layer in range(model.config.n_layer):
        qkv = products[str(layer)]  # [1, T, 3D]
        if isinstance(model, Llama):
            attention: Any = model.get_submodule(f"h.{layer}.attn")
            [q], [k], _ = attention.heads(attention.turned(qkv, torch.arange(T, device=qkv.device)))  # [H or G, T, Dh]
            k = k.repeat_interleave(attention.group, dim=0)
        else:
            q, k, _ = qkv[0].view(T, 3, H, -1).permute(1, 2, 0, 3)  # each [H, T, Dh]
        scores = q @ k.transpose(1, 2) / q.size(-1) ** 0.5  # [H, T, T]
        ahead = torch.ones(T, T, dtype=torch.bool, device=scores.device).triu(1)
        weights.append(scores.masked_fill(ahead, -torch.inf).softmax(dim=-1))
    return torch.stack(weights)


def head_scores(model: GPT2, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Where each head looks in lists that are written twice, as two scores (Olsson et al., 2022).

    Induction score: how much of its attention a token of the second copy gives to the token *after* its first occurrence, which
    is the one that comes next. Previous-token score: how much any token gives to the one just before it.

    Args:
        rows: int64 [1 + 2 L] each: end-of-text, a list of L tokens, and the same list again.

    Returns:
        Induction and previous-token score, float [layers, H] each: means over tokens and rows, 0 to 1.
    """
    induction, previous = [], []
    for row in rows:
        weights = attention_weights(model, row.to(model.device)).cpu()  # [layers, H, T, T]
        L = row.numel() // 2
        # The line on which query q meets key q - L + 1 begins at q = L - 1; the second copy begins two places further on.
        induction.append(weights.diagonal(1 - L, 2, 3)[..., 2:].mean(dim=-1))
        previous.append(weights.diagonal(-1, 2, 3).mean(dim=-1))
    return torch.stack(induction).mean(dim=0), torch.stack(previous).mean(dim=0)


@contextlib.contextmanager
def hooked(handles: list[RemovableHandle]) -> Iterator[None]:
    """Hooks that a model has within this context only."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def without_heads(model: GPT2, heads: Sequence[tuple[int, int]], instead: Tensor | None = None) -> Iterator[None]:
    """Within this context these heads, as (layer, head) from 0, add nothing to the stream. Afterwards the model is as it was.

    They still look, but what they fetched is replaced before the layer's projection mixes all heads.

    Args:
        instead: float [layers, H, Dh], what each head gives in the place of what it fetched, as `mean_outputs` makes it.
            None: zeros.
    """
    def silence(layer: int, head: int):
        def hook(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            fetched = inputs[0].unflatten(-1, (model.config.n_head, -1)).clone()  # [..., H, Dh]
            fetched[..., head, :] = 0 if instead is None else instead[layer, head]
            return (fetched.flatten(-2),)
        return hook

    with hooked([model.get_submodule(f"h.{layer}.attn.c_proj").register_forward_pre_hook(silence(layer, head))
                 for layer, head in heads]):
        yield


def last_position(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    """A hook before `ln_f`: the output head reads one position only, [B, T, D] -> [B, 1, D]."""
    return inputs[0][:, -1:]


@torch.no_grad()
def mean_outputs(model: GPT2, texts: Sequence[Tensor]) -> Tensor:
    """What each head fetches on average over all tokens of some texts.

    texts: int64 [T] each; T may differ. Returns float [layers, H, Dh].
    """
    sums: dict[int, list[Tensor]] = {layer: [] for layer in range(model.config.n_layer)}
    hooks = [model.get_submodule(f"h.{layer}.attn.c_proj").register_forward_pre_hook(
        lambda module, inputs, layer=layer: sums[layer].append(inputs[0][0])) for layer in sums]
    with hooked([*hooks, model.ln_f.register_forward_pre_hook(last_position)]):  # what it says is not needed
        for ids in texts:
            model(ids[None])
    return torch.stack([torch.cat(found).mean(dim=0).view(model.config.n_head, -1) for found in sums.values()])


def finite(logits: Tensor) -> Tensor:
    """The logits, or one sentence where they are no numbers."""
    if not logits.isfinite().all():
        raise InputError("The model's logits hold NaN or infinity here; look at its weights, or use an earlier checkpoint.")
    return logits


def logits_of(model: nn.Module, ids: Tensor) -> Tensor:
    """The logits, float [B, T, V], of a model that may give its cache, too, as the one of exercise 05."""
    output = model(ids)
    return finite(output if isinstance(output, Tensor) else output[0])


class Lens(NamedTuple):
    """What the head says of the stream before the first layer and after each (the logit lens; nostalgebraist, 2020)."""

    p: Tensor  # float [layers + 1, T, k], the highest probabilities, the highest first
    tokens: Tensor  # int64 [layers + 1, T, k], of which tokens
    logits: Tensor  # float [T, V], the model's own: the last row of `p` is what they give


@torch.no_grad()
def logit_lens(model: GPT2, ids: Tensor, k: int = 5) -> Lens:
    """What each position would say next if the head were put on after so many layers. ids: int64 [T]."""
    streams: list[Tensor] = []  # what goes into each layer, [T, D]
    with hooked([block.register_forward_pre_hook(lambda module, inputs: streams.append(inputs[0][0])) for block in model.h]):
        logits = logits_of(model, ids[None])[0].float()
    head = getattr(model, "lm_head", model.wte).weight  # tied, if there is none of its own
    rows = F.linear(model.ln_f(torch.stack(streams)), head).float()  # [layers, T, V]: in one product the head is read once
    tops = [row.softmax(dim=-1).topk(k) for row in (*rows, logits)]
    return Lens(torch.stack([top.values for top in tops]), torch.stack([top.indices for top in tops]), logits)


def token_losses(logits: Tensor, ids: Tensor) -> Tensor:
    """Loss of each token but the first, in nats. logits float [T, V], ids int64 [T] -> float [T - 1]."""
    return F.cross_entropy(logits[:-1], ids[1:], reduction="none")


def where_heads_look(weights: Tensor, ids: Tensor) -> dict[str, Tensor]:
    """How much of its attention each head gives to four kinds of tokens, as a mean over the tokens that look.

    Args:
        weights: float [layers, H, T, T], as `attention_weights` gives them.
        ids: int64 [T].

    Returns:
        Kind -> float [layers, H]. "what followed last time" counts tokens that have stood before (0 if there is none), the
        others count all tokens but the first.
    """
    followed = F.pad((ids[:, None] == ids[None, :-1]).tril(-1).float(), (1, 0))  # [T, T]: one after the same token
    again = followed.any(dim=1).nonzero()[:, 0]
    looks = {"what followed last time": (weights * followed).sum(dim=-1)[..., again], "the first token": weights[..., 1:, 0],
             "the token before": weights.diagonal(-1, 2, 3), "itself": weights.diagonal(0, 2, 3)[..., 1:]}
    return {kind: shares.sum(dim=-1) / max(1, shares.size(-1)) for kind, shares in looks.items()}


@torch.no_grad()
def head_effects(model: GPT2, ids: Tensor, instead: Tensor, token: int) -> Tensor:
    """How far the probability of `token` as the next one falls when a head alone is replaced by its mean.

    All heads are tried in one pass. The whole model is the first row of the batch. Before each layer the batch grows by a copy
    of that row for each head of the layer, so that what comes before is computed once.

    Args:
        ids: int64 [T].
        instead: float [layers, H, Dh], as for `without_heads`.

    Returns:
        float [layers, H]; above 0, the head helps this token.
    """
    H = model.config.n_head

    def branch(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:  # [B, T, D] -> [B + H, T, D]
        return torch.cat([inputs[0], inputs[0][:1].expand(H, -1, -1)]), *inputs[1:]

    def silence(layer: int, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:  # head h in row h of the last H
        fetched, heads = inputs[0].unflatten(-1, (H, -1)).clone(), torch.arange(H)  # [B + H, T, H, Dh]
        fetched[heads - H, :, heads] = instead[layer, :, None]
        return (fetched.flatten(-2),)

    hooks = [model.ln_f.register_forward_pre_hook(last_position)]
    for layer in range(model.config.n_layer):
        hooks.append(model.get_submodule(f"h.{layer}").register_forward_pre_hook(branch))
        hooks.append(model.get_submodule(f"h.{layer}.attn.c_proj").register_forward_pre_hook(partial(silence, layer)))
    with hooked(hooks):
        p = logits_of(model, ids[None])[:, -1].softmax(dim=-1)[:, token]  # [1 + layers * H]
    return (p[0] - p[1:]).view(-1, H)
