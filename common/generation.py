"""Continuing a text, token by token. How each is chosen: `common/sampling.py`.

Many texts at once, as fast as possible: `common/fast/answering.py`.
"""

from collections.abc import Iterator

import torch

from common.fast.cache import KVCache
from common.fast.views import run
from common.gpt2 import GPT2
from common.sampling import GREEDY, Sampling, next_tokens


@torch.inference_mode()
def stream(model: GPT2, prompt: list[int], max_new_tokens: int, eot_id: int, how: Sampling = GREEDY,
           generator: torch.Generator | None = None) -> Iterator[int]:
    """The tokens of one continuation as they come, until end-of-text, `max_new_tokens`, or until
    the context is full."""
    room = min(max_new_tokens, model.config.n_positions - len(prompt))
    cache = KVCache(len(prompt) + room)  # keys and values of what was read: it is read once
    text = list(prompt)
    ids = torch.tensor([text], device=model.device)  # [1, T]
    for _ in range(room):
        hidden = run(model, ids, cache)  # [1, T or 1, D]
        token = next_tokens(model.logits(hidden[:, -1]), how, [text], generator)  # [1]
        if token.item() == eot_id:
            return
        text.append(int(token))
        yield text[-1]
        ids = token[:, None]  # the next pass reads the new token alone
