"""Continuing texts: greedy or by sampling, many at a time, with a cache of keys and values."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from common.fast.beginnings import kinds_of, repeated
from common.fast.prepacked import prepacked_weights
from common.gpt2 import GPT2, KVCache
from common.support.console import Progress
from common.support.device import send

ROOM = 64  # columns of the cache that are kept free, so that old ones need not be dropped after every step


class Continuation(NamedTuple):
    """New token ids, without the end-of-text token, and whether that token ended them (or the limit did)."""

    ids: list[int]
    stopped: bool


def next_tokens(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None) -> Tensor:
    """Choose one token per row.

    Args:
        logits: float [B, V].
        temperature: 0 takes the likeliest token (greedy). Otherwise p = softmax(logits / temperature): below 1 keeps to
            likely tokens, above 1 is more varied.
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
    padding = torch.tensor([longest - len(prompt) for prompt in prompts])  # [B]
    ids = torch.tensor([[eot_id] * (longest - len(prompt)) + prompt for prompt in prompts], device=model.device)  # [B, T]
    room = model.config.n_positions - min(map(len, prompts))  # a longer continuation fits behind none of them
    cache = BatchCache(longest + min(max_new_tokens, room))
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
            kept = torch.tensor(going_on, dtype=torch.long)
            padding, kept = padding[kept], send(kept, model.device)
            cache.keep_rows(kept)
            token = token[kept]
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
    """Greedy continuations of any number of prompts, in their order: the same as one by one.

    Raises:
        ValueError: if a prompt is empty or leaves no room in the model's context.
    """
    for prompt in prompts:
        if not 0 < len(prompt) < model.config.n_positions:
            raise ValueError(f"A prompt of {len(prompt)} tokens leaves no room in a context of {model.config.n_positions}.")
    with Progress(what, len(prompts), "text") as progress, torch.no_grad(), prepacked_weights(model):
        return _Relay(model, prompts, max_new_tokens, eot_id, batch_size).run(progress)


class BatchCache(KVCache):
    """The cache of a batch whose rows come and go. All of them end at the same column."""

    def keep_rows(self, rows: Tensor) -> None:
        """Go on with these rows of the batch only. rows: int64 [kept]."""
        self.layers = [(keys[rows], values[rows]) for keys, values in self.layers]

    def take_memory(self, rows: int, like: KVCache) -> None:
        """Memory for so many rows of the shape and precision of another cache's, before anything is put there."""
        self.layers = [(k.new_zeros(rows, k.size(1), self.max_length, k.size(3)),
                        v.new_zeros(rows, v.size(1), self.max_length, v.size(3))) for k, v in like.layers]

    def replace_rows(self, rows: Tensor, other: KVCache, lengths: Tensor) -> None:
        """Put the texts of another cache in the place of these rows, so that they end where all others end.

        Args:
            rows: int64 [R].
            other: has R rows, whose texts all begin at its first column, and holds no more tokens than this one.
            lengths: int64 [R], of its texts; what stands in front of them here afterwards means nothing.
        """
        T = other.length
        columns = (torch.arange(T, device=lengths.device) - (T - lengths[:, None])).clamp(min=0)  # [R, T], moved to the right
        for mine, theirs in zip(self.layers, other.layers):
            for tensor, new in zip(mine, theirs):
                index = columns[:, None, :, None].expand(-1, new.size(1), -1, new.size(3))  # [R, H, T, Dh]
                tensor[rows, :, self.length - T:self.length] = new.gather(2, index)

    def forget_first(self, tokens: int) -> None:
        """Drop so many tokens at the beginning of every row, to make room at the end."""
        for layer in self.layers:
            for tensor in layer:
                tensor[:, :, :self.length - tokens] = tensor[:, :, tokens:self.length].clone()
        self.length -= tokens


class _Relay:
    """A batch in which waiting prompts take the place of texts that have ended.

    A step of the model reads all its weights, for one row or for many: so the batch is kept full. All rows end at the same
    column of the cache; a prompt that comes in late is put in so that it ends there, too. The longest prompts come first, so
    that there is always room before a later one. What many prompts begin with is read once.
    """

    def __init__(self, model: GPT2, prompts: list[list[int]], max_new_tokens: int, eot_id: int, batch_size: int):
        self.model, self.prompts, self.max_new_tokens, self.eot_id = model, prompts, max_new_tokens, eot_id
        self.waiting = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # the last one is next
        self.new: list[list[int]] = [[] for _ in prompts]
        self.stopped = [False] * len(prompts)
        self.rows: list[int | None] = [None] * min(batch_size, len(prompts))  # whose text each row of the batch is
        self.starts = torch.zeros(len(self.rows), dtype=torch.long)  # [B], in which column its text begins
        longest = max(map(len, prompts), default=0)
        self.cache = BatchCache(min(longest + max_new_tokens, model.config.n_positions) + ROOM)
        self.cache.length = longest  # where all texts end; `fill` puts them there
        self.tokens = torch.full((len(self.rows),), eot_id, device=model.device)  # [B], what each row said last
        self.kinds = kinds_of([prompt[:-1] for prompt in prompts])  # each prompt keeps a token of its own
        self.beginnings = [KVCache(len(kind.beginning)) for kind in self.kinds]
        self.kind_of = {row: number for number, kind in enumerate(self.kinds) for row in kind.rows}

    def run(self, progress: Progress) -> list[Continuation]:
        """Go on until nobody is left."""
        self.read_beginnings()
        while self.waiting or any(row is not None for row in self.rows):
            free = [slot for slot, row in enumerate(self.rows) if row is None]
            if self.waiting and len(free) >= max(1, len(self.rows) // 4):  # a few at a time: each filling is a pass
                slots = free[:len(self.waiting)]
                chosen = [self.waiting.pop() for _ in slots]
                for number in sorted({self.kind_of[i] for i in chosen}):
                    self.fill(number, [(slot, i) for slot, i in zip(slots, chosen) if self.kind_of[i] == number])
            else:
                if not self.waiting and 2 * len(free) >= len(self.rows):
                    self.shrink()
                slots = list(range(len(self.rows)))
                self.step()
            progress.advance(self.note(slots))
        return [Continuation(*row) for row in zip(self.new, self.stopped)]

    def read_beginnings(self) -> None:
        """Keep keys and values of what the prompts of each kind begin with."""
        for kind, cache in zip(self.kinds, self.beginnings):
            if kind.beginning:
                self.model.hidden_states(torch.tensor([kind.beginning], device=self.model.device), cache)

    def choose(self, hidden: Tensor) -> Tensor:
        """The likeliest next token of each row, from its last hidden state [B, D]: int64 [B]."""
        return self.model.logits(hidden).argmax(dim=-1)

    def fill(self, number: int, places: list[tuple[int, int]]) -> None:
        """Let prompts of one kind read, each in its slot of the batch, and say their first token. places: slot and prompt."""
        beginning, slots = self.kinds[number].beginning, torch.tensor([slot for slot, _ in places])
        own = [self.prompts[i][len(beginning):] for _, i in places]  # without the beginning
        lengths = torch.tensor(list(map(len, own)))  # [R]
        T = int(lengths.max())
        ids = torch.tensor([text + [self.eot_id] * (T - len(text)) for text in own])  # [R, T], padded on the right
        device, needed = self.model.device, torch.arange(T) < lengths[:, None]  # [R, T]
        cache = repeated(self.beginnings[number], len(own), len(beginning) + T)
        hidden = self.model.hidden_states(send(ids, device), cache, needed=needed)  # [R, T, D]
        if not self.cache.layers:
            self.cache.take_memory(len(self.rows), cache)
        self.cache.replace_rows(send(slots, device), cache, send(lengths + len(beginning), device))
        self.starts[slots] = self.cache.length - lengths - len(beginning)
        last = hidden.flatten(0, 1)[send(torch.arange(len(own)) * T + lengths - 1, device)]  # [R, D]
        self.tokens[send(slots, device)] = self.choose(last)
        for slot, i in places:
            self.rows[slot] = i

    def step(self) -> None:
        """One more token for every row; those whose text has ended are carried along, which costs nearly nothing."""
        self.starts[torch.tensor([row is None for row in self.rows])] = self.cache.length  # an ended text is forgotten
        if self.cache.length == self.cache.max_length:
            unused = int(self.starts.min())  # columns in which no running text has a token
            self.cache.forget_first(unused)
            self.starts -= unused
        hidden = self.model.hidden_states(self.tokens[:, None], self.cache, self.starts)  # [B, 1, D]
        self.tokens = self.choose(hidden[:, -1])

    def shrink(self) -> None:
        """Nobody waits any more: go on with the rows that still run."""
        kept = [slot for slot, row in enumerate(self.rows) if row is not None]
        index = send(torch.tensor(kept), self.model.device)
        self.cache.keep_rows(index)
        self.rows, self.starts, self.tokens = [self.rows[slot] for slot in kept], self.starts[kept], self.tokens[index]

    def note(self, slots: list[int]) -> int:
        """Write down what was said in these slots of the batch. Returns how many texts have ended."""
        ended = 0
        for slot, token in zip(slots, self.tokens[slots].tolist()):
            row = self.rows[slot]
            if row is None:
                continue
            if token == self.eot_id:
                self.stopped[row] = True
            else:
                self.new[row].append(token)
                length = len(self.prompts[row]) + len(self.new[row])
                if len(self.new[row]) < self.max_new_tokens and length < self.model.config.n_positions:
                    continue
            self.rows[slot] = None
            ended += 1
        return ended
