"""Continuing a text, token by token: greedy or by sampling.

Many texts at once, as fast as possible: `common/fast/answering.py`.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from common.fast.cache import KVCache
from common.fast.views import run
from common.gpt2 import GPT2


def next_tokens(logits: Tensor, temperature: float, top_k: int | None,
                generator: torch.Generator | None) -> Tensor:
    """Choose one token per row.

    Args:
        logits: float [B, V].
        temperature: 0 takes the likeliest token (greedy). Otherwise p = softmax(logits / temperature):
            below 1 keeps to likely tokens, above 1 is more varied.
        top_k: sample among the k likeliest only.

    Returns:
        int64 [B].
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.float() / temperature
    if top_k is not None and top_k < logits.size(-1):
        smallest = logits.topk(top_k, dim=-1).values[:, -1:]  # [B, 1], the k-th largest
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator).squeeze(1)


@torch.inference_mode()
def stream(model: GPT2, prompt: list[int], max_new_tokens: int, eot_id: int, temperature: float = 0.0,
           top_k: int | None = None, generator: torch.Generator | None = None) -> Iterator[int]:
    """The tokens of one continuation as they come, until end-of-text, `max_new_tokens`, or until
    the context is full."""
    room = min(max_new_tokens, model.config.n_positions - len(prompt))
    cache = KVCache(len(prompt) + room)  # keys and values of what was read: it is read once
    ids = torch.tensor([prompt], device=model.device)  # [1, T]
    for _ in range(room):
        hidden = run(model, ids, cache)  # [1, T or 1, D]
        token = next_tokens(model.logits(hidden[:, -1]), temperature, top_k, generator)  # [1]
        if token.item() == eot_id:
            return
        yield int(token)
        ids = token[:, None]  # the next pass reads the new token alone
