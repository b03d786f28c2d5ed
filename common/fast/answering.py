"""Many continuations at once: a batch that is kept full, beginnings that are read once, weights in reading order.

Each text is what `generation.stream` gives for its prompt alone. In bfloat16, and with weights of 8 bits (int8.py), a sum is
rounded otherwise in a larger batch, so now and then a word differs.
"""

import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from common.fast.beginnings import kinds_of, repeated
from common.fast.cache import KVCache
from common.fast.prepacked import prepacked_weights
from common.fast.views import run
from common.gpt2 import GPT2
from common.sampling import GREEDY, Sampling, next_logits, next_tokens
from common.support.console import Progress
from common.support.device import send

ROOM = 64  # columns of the cache that are kept free, so that old ones need not be dropped after every step
FEW, MANY, CACHE = 32, 64, 2**30  # texts at once; bytes of keys and values of many, in one of at most two caches


class Continuation(NamedTuple):
    """New token ids, without the end-of-text token, and whether that token ended them (or the limit did)."""

    ids: list[int]
    stopped: bool


def text_generator(model: GPT2, seed: int, number: int) -> torch.Generator:
    """The randomness of one of several texts: it depends on nothing but the seed and the text's number."""
    return torch.Generator(model.device).manual_seed(random.Random(f"text {seed} {number}").getrandbits(63))


def texts_at_once(model: GPT2, prompts: list[list[int]], max_new_tokens: int) -> int:
    """How many texts to continue together: many, where their cache takes at most a gigabyte. That makes half as many steps; in
    each one, threads wait for each other as often as with few texts."""
    tokens = ROOM + min(max(map(len, prompts), default=0) + max_new_tokens, model.config.n_positions)
    size = 4 * 2 * model.config.n_layer * model.config.n_embd  # bytes of a token's keys and values, at most
    return MANY if MANY * tokens * size <= CACHE else FEW


def continue_all(model: GPT2, prompts: list[list[int]], max_new_tokens: int, eot_id: int, batch_size: int | None = None,
                 what: str = "answering", how: Sampling = GREEDY, seed: int = 0,
                 known: Mapping[int, Continuation] | None = None,
                 ended: Callable[[int, Continuation], None] | None = None) -> list[Continuation]:
    """Continuations of any number of prompts, in their order: the same as one by one.

    Args:
        batch_size: texts at once (None: `texts_at_once`).
        how: as for `next_tokens`. In fp32, a sampled text does not depend on the others beside it.
        seed: of the sampling; see `text_generator`.
        known: continuations that are there already, by their number; they are not made again.
        ended: is told each new one as soon as it is there, with its number.

    Raises:
        ValueError: if a prompt is empty or leaves no room in the model's context.
    """
    for prompt in prompts:
        if not 0 < len(prompt) < model.config.n_positions:
            raise ValueError(f"A prompt of {len(prompt)} tokens leaves no room in a context of {model.config.n_positions}.")
    batch_size = batch_size or texts_at_once(model, prompts, max_new_tokens)
    relay = _Relay(model, prompts, max_new_tokens, eot_id, batch_size, how, seed, known or {}, ended or (lambda i, text: None))
    with Progress(what, len(prompts), "text", len(known or {})) as progress, torch.no_grad(), prepacked_weights(model):
        return relay.run(progress)


class BatchCache(KVCache):
    """The cache of a batch whose rows come and go. All of them end at the same column."""

    def keep_rows(self, rows: Tensor) -> None:
        """Go on with these rows of the batch only. rows: int64 [kept]."""
        self.layers = {layer: (keys[rows], values[rows]) for layer, (keys, values) in self.layers.items()}

    def take_memory(self, rows: int, like: KVCache) -> None:
        """Memory for so many rows of the shape and precision of another cache's, before anything is put there."""
        self.layers = {layer: tuple(x.new_zeros(rows, x.size(1), self.max_length, x.size(3)) for x in both)
                       for layer, both in like.layers.items()}

    def replace_rows(self, rows: Tensor, other: KVCache, lengths: Tensor) -> None:
        """Put the texts of another cache in the place of these rows, so that they end where all others end.

        Args:
            rows: int64 [R].
            other: has R rows, whose texts all begin at its first column, and holds no more tokens than this one.
            lengths: int64 [R], of its texts; what stands in front of them here afterwards means nothing.
        """
        T = other.length
        columns = (torch.arange(T, device=lengths.device) - (T - lengths[:, None])).clamp(min=0)  # [R, T], moved to the right
        for layer, mine in self.layers.items():
            for tensor, new in zip(mine, other.layers[layer]):
                index = columns[:, None, :, None].expand(-1, new.size(1), -1, new.size(3))  # [R, H, T, Dh]
                tensor[rows, :, self.length - T:self.length] = new.gather(2, index)

    def forget_first(self, tokens: int) -> None:
        """Drop so many tokens at the beginning of every row, to make room at the end."""
        for both in self.layers.values():
            for tensor in both:
                tensor[:, :, :self.length - tokens] = tensor[:, :, tokens:self.length].clone()
        self.length -= tokens


class _Relay:
    """A batch in which waiting prompts take the place of texts that have ended.

    A step of the model reads all its weights, for one row or for many: so the batch is kept full. All rows end at the same
    column of the cache; a prompt that comes in late is put in so that it ends there, too. The longest prompts come first, so
    that there is always room before a later one. What many prompts begin with is read once.
    """

    def __init__(self, model: GPT2, prompts: list[list[int]], max_new_tokens: int, eot_id: int, batch_size: int,
                 how: Sampling, seed: int, known: Mapping[int, Continuation], ended: Callable[[int, Continuation], None]):
        self.model, self.prompts, self.max_new_tokens, self.eot_id = model, prompts, max_new_tokens, eot_id
        self.how = how
        self.said = [[token for token in prompt if token != eot_id] for prompt in prompts] if how.looks_back else prompts
        self.generators = [text_generator(model, seed, number) for number in range(len(prompts))] if how.temperature else []
        self.waiting = sorted({*range(len(prompts))} - known.keys(), key=lambda i: len(prompts[i]))  # the last one is next
        self.new: list[list[int]] = [known[i].ids if i in known else [] for i in range(len(prompts))]
        self.stopped = [i in known and known[i].stopped for i in range(len(prompts))]
        self.ended = ended
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
                run(self.model, torch.tensor([kind.beginning], device=self.model.device), cache)

    def choose(self, logits: Tensor, rows: list[int | None]) -> Tensor:
        """The next token of each row, int64 [B], from its logits [B, V] and whose text each row is."""
        if self.how == GREEDY:
            return next_tokens(logits)
        return torch.cat([row.argmax(dim=1) if i is None else next_tokens(
            row, self.how, [self.said[i] + self.new[i]], self.generators[i] if self.generators else None)
            for row, i in zip(logits.split(1), rows)])

    def fill(self, number: int, places: list[tuple[int, int]]) -> None:
        """Let prompts of one kind read, each in its slot of the batch, and say their first token. places: slot and prompt."""
        beginning, slots = self.kinds[number].beginning, torch.tensor([slot for slot, _ in places])
        own = [self.prompts[i][len(beginning):] for _, i in places]  # without the beginning
        lengths = torch.tensor(list(map(len, own)))  # [R]
        T = int(lengths.max())
        ids = torch.tensor([text + [self.eot_id] * (T - len(text)) for text in own])  # [R, T], padded on the right
        device, needed = self.model.device, torch.arange(T) < lengths[:, None]  # [R, T]
        cache = repeated(self.beginnings[number], len(own), len(beginning) + T)
        hidden = run(self.model, send(ids, device), cache, needed=needed)  # [R, T, D]
        if not self.cache.layers:
            self.cache.take_memory(len(self.rows), cache)
        self.cache.replace_rows(send(slots, device), cache, send(lengths + len(beginning), device))
        self.starts[slots] = self.cache.length - lengths - len(beginning)
        last = hidden.flatten(0, 1)[send(torch.arange(len(own)) * T + lengths - 1, device)]  # [R, D]
        self.tokens[send(slots, device)] = self.choose(next_logits(self.model, last), [i for _, i in places])
        for slot, i in places:
            self.rows[slot] = i

    def step(self) -> None:
        """One more token for every row; those whose text has ended are carried along, which costs nearly nothing."""
        self.starts[torch.tensor([row is None for row in self.rows])] = self.cache.length  # an ended text is forgotten
        if self.cache.length == self.cache.max_length:
            unused = int(self.starts.min())  # columns in which no running text has a token
            self.cache.forget_first(unused)
            self.starts -= unused
        hidden = run(self.model, self.tokens[:, None], self.cache, self.starts)  # [B, 1, D]
        self.tokens = self.choose(next_logits(self.model, hidden[:, -1]), self.rows)

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
            self.ended(row, Continuation(self.new[row], self.stopped[row]))
            ended += 1
        return ended
