"""Pairwise utility: how much one example, shown in the prompt, helps the model with another (DELIFT, arXiv 2411.04425).

    U[i, j] = d(i) - d(i | j)        d = sqrt( Σ_k (1 - p_k)² / N )

d(i) is the model's error on the response of target i: p_k is the probability it gives to the k-th of the N response tokens
(end-of-text is the last), the tokens before it being given ("teacher forcing"). d(i | j) is the same with example j in front of
i's prompt. So U is between -1 and 1; above 0, j helps. Rows are targets, columns are candidates, and U is not symmetric.

N examples have N² pairs, so speed decides what can be done. Three things make it fast, and none of them changes a number:

- What comes before the targets' own words (example j, and the beginning that all targets share) is run once per
  example; its keys and values then serve all targets.
- The head runs only where a response token is asked for.
- Targets of like length share a batch.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ch_instruct.collate import Example, collate, encode_record
from common import distributed
from common.console import Progress, say
from common.device import autocast
from common.files import InputError, write_whole
from common.gpt2 import GPT2, KVCache
from common.losses import IGNORE_INDEX
from common.tokenizer import Tokenizer

SEPARATOR = "\n\n"  # between the example's response and the target's prompt
TOKENS_PER_PASS = {"cpu": 4096, "mps": 4096, "cuda": 65536}


class TargetBatch(NamedTuple):
    """Targets that are run together, without the tokens with which all targets of their kind begin."""

    rows: list[int]  # [B], their numbers in the list of targets
    inputs: Tensor  # int64 [B, T], padded to the longest
    asked: Tensor  # int64 [B, T], the response token asked for at this position, or IGNORE_INDEX


class Kind(NamedTuple):
    """Targets that begin alike, as all prompts with an input do, and all without."""

    beginning: list[int]
    batches: list[TargetBatch]


class SharedPrefix:
    """A cache (see `KVCache`) of one text, which stands in front of every row of any number of batches."""

    def __init__(self, model: GPT2, ids: list[int]):
        self.one = KVCache(len(ids))
        model.hidden_states(torch.tensor([ids], device=model.device), self.one)  # per layer [1, H, S, Dh]

    @property
    def length(self) -> int:
        """S, always: what stands behind the prefix in one batch is not there in the next."""
        return self.one.length

    @length.setter
    def length(self, _: int) -> None:
        """A model counts its tokens here; they are forgotten."""

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """k and v [B, H, T, Dh] behind the prefix: [B, H, S+T, Dh]. Nothing is kept."""
        rows = (k.size(0), -1, -1, -1)
        keys, values = self.one.layers[layer]
        return torch.cat([keys.expand(rows), k], dim=2), torch.cat([values.expand(rows), v], dim=2)


def shown(record: dict, tokenizer: Tokenizer, style: str = "alpaca") -> list[int]:
    """The ids of an example as it stands in front of a prompt: an empty line in the place of its end-of-text."""
    return encode_record(record, tokenizer, style).ids[:-1] + tokenizer.encode(SEPARATOR)


def common_beginning(targets: Sequence[Example]) -> list[int]:
    """The ids with which all targets begin. The last token of a prompt is asked for the first of the response, so it is
    not part of this."""
    longest = min(target.prompt_length for target in targets) - 1
    first, last = min(t.ids for t in targets), max(t.ids for t in targets)  # in alphabetical order: the others lie between
    return first[:next((t for t in range(longest) if first[t] != last[t]), longest)]


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
        if (not batches or (len(batches[-1]) + 1) * length > tokens
                or length > 2 * (len(targets[batches[-1][0]].ids) - skip)):
            batches.append([])
        batches[-1].append(row)
    return [TargetBatch(batch, *collate([targets[i].behind([], skip) for i in batch], pad_id)) for batch in batches]


def distances(model: GPT2, batch: TargetBatch, prefix: SharedPrefix | None) -> Tensor:
    """d = sqrt( Σ_k (1 - p_k)² / N ) of every target in the batch, with this in front of each.

    Returns:
        float32 [B], from 0 (every response token predicted with certainty) to 1.
    """
    hidden = model.hidden_states(batch.inputs.to(model.device), prefix)  # [B, T, D]
    asked = batch.asked.to(model.device)
    places = asked != IGNORE_INDEX  # [B, T]
    logits = model.logits(hidden[places]).float()  # [all response tokens, V]
    wrong = -torch.expm1(-F.cross_entropy(logits, asked[places], reduction="none"))  # 1 - p_k
    squares = torch.zeros(places.shape, device=model.device).masked_scatter(places, wrong.square())  # [B, T]
    return (squares.sum(dim=1) / places.sum(dim=1)).sqrt()


class Plan:
    """Which targets each candidate is tried on, and where in the matrix the results go."""

    def __init__(self, targets: int, candidates: int, pairs: np.ndarray | None):
        self.targets, self.candidates, self.pairs = targets, candidates, pairs
        self.shape = (targets, candidates) if pairs is None else pairs.shape
        if pairs is not None:  # all places of candidate 0 in `pairs`, then all of candidate 1, ...
            self.places = np.argsort(pairs, axis=None, kind="stable")
            self.starts = np.searchsorted(pairs.ravel()[self.places], np.arange(candidates + 1))

    def cells(self, candidate: int) -> tuple[np.ndarray, np.ndarray | int]:
        """Rows (these are the targets) and columns of the matrix."""
        if self.pairs is None:
            return np.arange(self.targets), candidate
        return np.divmod(self.places[self.starts[candidate]:self.starts[candidate + 1]], self.shape[1])


@torch.inference_mode()
def utility_matrix(model: GPT2, tokenizer: Tokenizer, targets: Sequence[dict], candidates: Sequence[dict],
                   style: str = "alpaca", precision: str = "fp32", pairs: np.ndarray | None = None,
                   file: Path | None = None) -> np.ndarray:
    """U[i, j] = d(i) - d(i | j) for all pairs, or for some.

    A pair that is together longer than the model's context cannot be shown to it. The candidate then has utility 0 for
    that target, like one that does not help. How many such pairs there are is printed.

    Args:
        targets: records whose responses are predicted; one row each.
        candidates: records that are shown as examples; one column each. May be the same list.
        style: prompt style of both.
        precision: fp32, or bf16 for matrix products in bfloat16.
        pairs: int [targets, K], the numbers of the only candidates to try on each target.
        file: where the matrix grows, an .npy file mapped into memory. Until it is whole it is called FILE.partial and
            holds NaN where nothing is computed yet; a later call goes on from there. Under `torchrun` the processes, on
            one machine, share the candidates.

    Returns:
        float32 [targets, candidates], or with `pairs` [targets, K] in their order.

    Raises:
        InputError: if a target alone is longer than the context.
    """
    plan = Plan(len(targets), len(candidates), pairs)
    if file is not None and file.exists():
        return np.load(file, mmap_mode="r")
    encoded = [encode_record(record, tokenizer, style) for record in targets]
    examples = [shown(record, tokenizer, style) for record in candidates]
    context, lengths = model.config.n_positions, np.array([len(e.ids) - 1 for e in encoded])  # the last is only asked for
    if lengths.max() > context:
        raise InputError(f"A target has {lengths.max()} tokens, and the model reads {context}; leave it out.")
    with_input = np.array([bool(record.get("input")) for record in targets])
    beginnings = {kind: common_beginning([encoded[i] for i in np.flatnonzero(with_input == kind)])
                  for kind in set(with_input.tolist())}

    def kinds(rows: np.ndarray) -> list[Kind]:
        return [Kind(beginning, make_batches(encoded, rows[with_input[rows] == kind].tolist(), beginning, tokenizer.eot_id,
                                             TOKENS_PER_PASS[model.device.type])) for kind, beginning in beginnings.items()]

    def measure(example: list[int], parts: list[Kind]) -> np.ndarray:
        """d of the targets in these parts with an example in front ([]: without), float32 [targets]; others are 0."""
        found = np.zeros(len(targets), dtype=np.float32)
        for beginning, batches in parts:
            prefix = SharedPrefix(model, example + beginning) if batches and example + beginning else None
            for batch in batches:
                found[batch.rows] = distances(model, batch, prefix).cpu().numpy()
        return found

    def column(candidate: int) -> np.ndarray:
        """The utilities of one candidate for its targets; 0 where the pair is too long."""
        rows, _ = plan.cells(candidate)
        fits = lengths[rows] + len(examples[candidate]) <= context
        parts = everything if pairs is None and fits.all() else kinds(rows[fits])
        return np.where(fits, (alone - measure(examples[candidate], parts))[rows], 0)  # d(i) - d(i | j)

    was_training = model.training
    model.eval()
    matrix = np.full(plan.shape, np.nan, dtype=np.float32) if file is None else grow(file, plan.shape)
    todo = [j for j in range(len(candidates)) if np.isnan(matrix[plan.cells(j)]).any()]
    distributed.barrier()  # nobody writes before everybody has seen what there is to do
    with autocast(model.device, precision):
        everything = kinds(np.arange(len(targets)))
        alone = measure([], everything)  # d(i)
        mine = todo if file is None else distributed.my_share(todo)
        counts = {j: len(plan.cells(j)[0]) for j in todo}
        too_long = sum(int((lengths[plan.cells(j)[0]] + len(examples[j]) > context).sum()) for j in todo)
        say(f"Utility of {len(candidates):,} candidates for {len(targets):,} targets: {sum(counts.values()):,} pairs, one "
            f"forward pass each, {matrix.nbytes / 1e6:,.1f} MB")
        if too_long:
            say(f"  {too_long:,} pairs do not fit into {context} tokens and get utility 0")
        start = time.monotonic()
        with Progress("utilities", sum(counts[j] for j in mine), "pairs") as progress:
            for j in mine:
                matrix[plan.cells(j)] = column(j)
                if j == mine[0] and counts[j]:
                    seconds = (time.monotonic() - start) * progress.total / counts[j]
                    say(f"  about {seconds:,.0f} s, to judge by the first candidate")
                progress.advance(counts[j])
    model.train(was_training)
    return matrix if file is None else finish(file, matrix)


def partial(file: Path) -> Path:
    """What a matrix file is called until it is whole."""
    return file.with_name(file.name + ".partial")


def grow(file: Path, shape: tuple[int, int]) -> np.memmap:
    """Open the unfinished matrix, or begin one, all NaN."""
    if distributed.is_main() and not partial(file).exists():
        def fill(path: Path) -> None:
            matrix = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
            matrix[:] = np.nan
            matrix.flush()
        write_whole(partial(file), fill)
    distributed.barrier()
    return np.lib.format.open_memmap(partial(file), mode="r+")


def finish(file: Path, matrix: np.memmap) -> np.memmap:
    """Give the finished matrix its name and open it for reading."""
    matrix.flush()
    distributed.barrier()  # every process has written its share
    if distributed.is_main():
        os.replace(partial(file), file)
    distributed.barrier()
    return np.load(file, mmap_mode="r")


def similarity(utility: np.ndarray, kernel: str = "positive") -> np.ndarray:
    """From utilities to similarities, which submodular functions need to be at least 0.

    Args:
        utility: float [...].
        kernel: "positive" is s = max(U, 0): what does not help counts as nothing. "minmax" is
            s = (U - min U) / (max U - min U) over the whole matrix: even the least helpful pairs get something, and one
            outlier moves all others.

    Returns:
        float32 [...].
    """
    utility = np.asarray(utility, dtype=np.float32)
    if kernel == "positive":
        return np.maximum(utility, 0)
    low, high = utility.min(), utility.max()
    return (utility - low) / max(high - low, np.finfo(np.float32).tiny)
