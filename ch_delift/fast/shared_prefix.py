"""What makes utilities fast: the words in front of the targets are run once per example, not once per pair.

Three things, none of which changes a number:

- What comes before the targets' own words is run once: the example, and behind it the beginning that all targets of a kind
  share. Their keys and values then serve all these targets.
- The head runs only where there is a target.
- Targets of like length share a batch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ch_instruct.collate import collate
from ch_instruct.encoding import Example
from common.fast.beginnings import Kind, kinds_of, repeated
from common.fast.cache import KVCache
from common.fast.views import run
from common.gpt2 import GPT2
from common.losses import IGNORE_INDEX, head_logits, states_for
from common.support.device import send

TOKENS_PER_PASS = {"cpu": 1024, "mps": 4096, "cuda": 65536}  # few on a CPU: what lies between two layers fits its cache


class SharedPrefix(KVCache):
    """A cache of one text, which stands in front of every row of any number of batches. `before` stands before the text."""

    def __init__(self, model: GPT2, ids: list[int], before: "SharedPrefix | None" = None):
        length = len(ids) + (before.length if before else 0)
        super().__init__(length)
        # An ordinary cache to read the text into; from then on `append` keeps nothing.
        one = repeated(before, 1, length) if before else KVCache(length)
        run(model, torch.tensor([ids], device=model.device), one)
        self.layers, self.length = one.layers, one.length  # per layer [1, H, S, Dh]

    def append(self, layer: nn.Module, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """k and v [B, H, T, Dh] behind the prefix: [B, H, S+T, Dh]. Nothing is kept."""
        rows = (k.size(0), -1, -1, -1)
        keys, values = self.layers[layer]
        return torch.cat([keys.expand(rows), k], dim=2), torch.cat([values.expand(rows), v], dim=2)

    def advance(self, tokens: int) -> None:
        """What stands behind the prefix in one batch is not there in the next, so the length stays."""


class TargetBatch(NamedTuple):
    """Targets that are run together, without the tokens with which all targets of their kind begin."""

    rows: list[int]  # [B], their numbers in the list of targets
    inputs: Tensor  # int64 [B, T], padded to the longest
    targets: Tensor  # int64 [B, T], the response tokens, or IGNORE_INDEX


def kinds_of_targets(targets: Sequence[Example]) -> list[Kind]:
    """Targets whose prompts begin alike. The last token of a prompt predicts the first of the response, so it is not part of
    what they share."""
    return kinds_of([target.ids[:target.prompt_length - 1] for target in targets])


def make_batches(targets: Sequence[Example], rows: Sequence[int], beginning: list[int], pad_id: int,
                 tokens: int) -> list[TargetBatch]:
    """Put targets of like length together.

    A batch holds at most `tokens` tokens with padding, one target at least, and none twice as long as another, both
    counted from the end of `beginning`.
    """
    skip = len(beginning)
    batches: list[list[int]] = []
    for row in sorted(rows, key=lambda i: len(targets[i].ids)):
        length = len(targets[row].ids) - skip
        if (not batches or (len(batches[-1]) + 1) * length > tokens or length > 2 * (len(targets[batches[-1][0]].ids) - skip)):
            batches.append([])
        batches[-1].append(row)
    return [TargetBatch(batch, *collate([targets[i].behind([], skip) for i in batch], pad_id)) for batch in batches]


def distances(model: GPT2, batch: TargetBatch, prefix: SharedPrefix | None) -> Tensor:
    """d = sqrt( Σ_k (1 - p_k)² / N ) of every target in the batch, with this in front of each.

    Returns:
        float32 [B], from 0 (every response token predicted with certainty) to 1.
    """
    hidden = states_for(model, batch.inputs, batch.targets, prefix)  # [B, T, D]
    logits, tokens = head_logits(model, hidden, batch.targets)  # [all response tokens, V]
    wrong = -torch.expm1(-F.cross_entropy(logits, tokens, reduction="none"))  # 1 - p_k
    N = (batch.targets != IGNORE_INDEX).sum(dim=1)  # [B], response tokens of each
    rows = send(torch.repeat_interleave(torch.arange(len(N)), N), model.device)
    squares = torch.zeros(len(N), device=model.device).index_add(0, rows, wrong.square())  # [B], Σ_k (1 - p_k)²
    return (squares / send(N, model.device)).sqrt()


class Targets:
    """Targets made ready for any number of examples in front of them."""

    def __init__(self, model: GPT2, examples: Sequence[Example], pad_id: int):
        self.model, self.examples, self.pad_id = model, examples, pad_id
        self.kinds = kinds_of_targets(examples)
        self.everything = self.batches(range(len(examples)))

    def batches(self, rows: Sequence[int]) -> list[tuple[list[int], list[TargetBatch]]]:
        """These rows in batches, by kind, with the beginning of each kind."""
        wanted = set(rows)
        tokens = TOKENS_PER_PASS[self.model.device.type]
        return [(kind.beginning, make_batches(self.examples, [row for row in kind.rows if row in wanted], kind.beginning,
                                              self.pad_id, tokens)) for kind in self.kinds]

    def distances(self, front: list[int], rows: Sequence[int]) -> np.ndarray:
        """d of these targets with `front` before each ([]: nothing), float32 [targets]; those of others are 0."""
        found = np.zeros(len(self.examples), dtype=np.float32)
        if not rows:  # the front may be too long to be read at all
            return found
        before = SharedPrefix(self.model, front) if front else None
        for beginning, batches in self.everything if len(rows) == len(self.examples) else self.batches(rows):
            prefix = SharedPrefix(self.model, beginning, before) if batches and beginning else before
            for batch in batches:
                found[batch.rows] = distances(self.model, batch, prefix).cpu().numpy()
        return found
