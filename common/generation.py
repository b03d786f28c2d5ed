"""Continuing a text, token by token. How each is chosen: `common/sampling.py`.

Many texts at once, as fast as possible: `common/fast/answering.py`.
"""

from collections.abc import Iterator

import torch

from common.fast.cache import KVCache
from common.fast.views import run
from common.gpt2 import GPT2
from common.sampling import GREEDY, Sampling, next_logits, next_tokens


@torch.inference_mode()
def stream(model: GPT2, prompt: list[int], max_new_tokens: int, eot_id: int, how: Sampling = GREEDY,
           generator: torch.Generator | None = None) -> Iterator[int]:
    """The tokens of one continuation as they come: read the text, choose the next token, repeat.

    It ends at `eot_id` (which is not given), after `max_new_tokens`, or when the context is full.
    Without a cache, each pass would read the whole text: `model(ids)[:, -1]`. With one, keys and
    values of what was read are kept, and a pass reads the new token alone.

    Args:
        prompt: token ids.
        how: greedy, or how to sample. generator: the randomness of the sampling.

    Raises:
        ValueError: if the prompt fills the model's context.
    """
    if len(prompt) >= model.config.n_positions:
        raise ValueError(f"A prompt of {len(prompt)} tokens leaves no room in the model's context.")
    room = min(max_new_tokens, model.config.n_positions - len(prompt))
    cache = KVCache(len(prompt) + room)
    said = [token for token in prompt if token != eot_id]  # what a choice may look back on
    ids = torch.tensor([prompt], device=model.device)  # [1, T]: first the whole prompt
    for _ in range(room):
        hidden = run(model, ids, cache)  # [1, T, D], later [1, 1, D]
        token = next_tokens(next_logits(model, hidden[:, -1]), how, [said], generator)  # [1]
        if token.item() == eot_id:
            return
        said.append(int(token))
        yield said[-1]
        ids = token[:, None]  # [1, 1]: then the new token alone
