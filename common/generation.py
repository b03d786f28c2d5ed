"""Continuing texts: greedy or by sampling, many at a time, with a cache of keys and values."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from common.console import Progress
from common.gpt2 import GPT2, KVCache


class Continuation(NamedTuple):
    """New token ids, without the end-of-text token, and whether that token ended them (or the limit did)."""

    ids: list[int]
    stopped: bool


def next_tokens(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None) -> Tensor:
    """Choose one token per row.

    Args:
        logits: float [B, V].
        temperature: 0 takes the likeliest token (greedy). Otherwise p = softmax(logits / temperature): below 1 is
            bolder, above 1 more varied.
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
def continue_batch(model: GPT2, prompts: list[list[int]], max_new_tokens: int, eot_id: int, temperature: float = 0.0,
                   top_k: int | None = None, generator: torch.Generator | None = None) -> list[Continuation]:
    """Continue prompts of any lengths together. Shorter ones are padded on the left and the padding hidden, so each row
    gets what it would get alone.

    A row ends at the end-of-text token, after `max_new_tokens`, or when it fills the context. It then leaves the batch,
    so that the others go on faster.
    """
    longest = max(map(len, prompts))
    padding = torch.tensor([longest - len(prompt) for prompt in prompts], device=model.device)  # [B]
    ids = torch.tensor([[eot_id] * (longest - len(prompt)) + prompt for prompt in prompts], device=model.device)  # [B, T]
    cache = KVCache(longest + max_new_tokens)
    rows = list(range(len(prompts)))  # the rows still running
    new: list[list[int]] = [[] for _ in prompts]
    stopped = [False] * len(prompts)

    while rows:
        hidden = model.hidden_states(ids, cache, padding if padding.any() else None)  # [B, T or 1, D]
        token = next_tokens(model.logits(hidden[:, -1]), temperature, top_k, generator)  # [B]
        going_on = []
        for place, (row, chosen) in enumerate(zip(rows, token.tolist())):
            if chosen == eot_id:
                stopped[row] = True
                continue
            new[row].append(chosen)
            if len(new[row]) < max_new_tokens and len(prompts[row]) + len(new[row]) < model.config.n_positions:
                going_on.append(place)
        if len(going_on) < len(rows):
            rows = [rows[place] for place in going_on]
            kept = torch.tensor(going_on, dtype=torch.long, device=model.device)
            cache.keep_rows(kept)
            padding, token = padding[kept], token[kept]
        ids = token[:, None]  # [B, 1]: the cache remembers the rest

    return [Continuation(*row) for row in zip(new, stopped)]


@torch.inference_mode()
def stream(model: GPT2, prompt: list[int], max_new_tokens: int, eot_id: int, temperature: float = 0.0,
           top_k: int | None = None, generator: torch.Generator | None = None) -> Iterator[int]:
    """The tokens of one continuation as they come: what `continue_batch` gives for this prompt, one by one."""
    room = min(max_new_tokens, model.config.n_positions - len(prompt))
    cache = KVCache(len(prompt) + room)
    ids = torch.tensor([prompt], device=model.device)  # [1, T]
    for _ in range(room):
        hidden = model.hidden_states(ids, cache)  # [1, T or 1, D]
        token = next_tokens(model.logits(hidden[:, -1]), temperature, top_k, generator)  # [1]
        if token.item() == eot_id:
            return
        yield int(token)
        ids = token[:, None]


def continue_all(model: GPT2, prompts: list[list[int]], max_new_tokens: int, eot_id: int,
                 batch_size: int = 32, what: str = "answering") -> list[Continuation]:
    """Greedy continuations of any number of prompts, in their order. Prompts of like length share a batch.

    Raises:
        ValueError: if a prompt is empty or leaves no room in the model's context.
    """
    for prompt in prompts:
        if not 0 < len(prompt) < model.config.n_positions:
            raise ValueError(f"A prompt of {len(prompt)} tokens leaves no room in a context of {model.config.n_positions}.")
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    found: dict[int, Continuation] = {}
    with Progress(what, len(prompts), "text") as progress:
        for batch in _batches(by_length, batch_size):
            found |= zip(batch, continue_batch(model, [prompts[i] for i in batch], max_new_tokens, eot_id))
            progress.advance(len(batch))
    return [found[i] for i in range(len(prompts))]


def _batches(indices: list[int], size: int) -> Iterable[list[int]]:
    return (indices[i:i + size] for i in range(0, len(indices), size))
