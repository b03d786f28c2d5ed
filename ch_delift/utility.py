"""Pairwise utility: how much one example, shown in the prompt, helps the model with another (DELIFT, arXiv 2411.04425).

    U[i, j] = d(i) - d(i | j)        d = sqrt( Σ_k (1 - p_k)² / N )

d(i) is the model's error on the response of target i: p_k is the probability it gives to the k-th of the N response tokens
(end-of-text is the last, unless the example was cut), the tokens before it being given ("teacher forcing"). d(i | j) is the
same with example j in front of i's prompt. So U is between -1 and 1; above 0, j helps. Rows are targets, columns are
candidates, and U is not symmetric.

`plain_utility` says it in code. N examples have N² pairs, so speed decides what can be done: `utility_matrix` gives the same
numbers by the shortcuts of `shared_prefix.py`.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ch_delift.fast.matrix_file import Plan, finish, grow, read
from ch_delift.fast.shared_prefix import Targets
from ch_instruct.collate import collate
from ch_instruct.encoding import Example
from common.gpt2 import GPT2
from common.losses import IGNORE_INDEX
from common.support import distributed
from common.support.console import Progress, duration, is_main, say
from common.support.device import evaluating
from common.support.files import InputError
from common.tokenizer import Tokenizer

SEPARATOR = "\n\n"  # between the example's response and the target's prompt
PAIRS_AT_ONCE = 16  # of the plain way
AT_ONCE = 8  # candidates that each of several processes measures between two messages


def shown(example: Example, tokenizer: Tokenizer) -> list[int]:
    """The ids of an example as it stands in front of a prompt: an empty line in the place of its end-of-text."""
    cut = example.ids[-1] != tokenizer.eot_id  # too long for training, so its response has no end
    return (example.ids if cut else example.ids[:-1]) + tokenizer.encode(SEPARATOR)


@torch.no_grad()
def plain_utility(model: Callable[[Tensor], Tensor], tokenizer: Tokenizer, targets: Sequence[Example],
                  candidates: Sequence[Example]) -> np.ndarray:
    """The utility matrix by its definition: put each candidate before each target, run all of it, look up each p_k.

    Args:
        model: token ids int64 [B, T] -> logits float [B, T, V]; ours, or any other.

    Returns:
        float32 [targets, candidates].
    """
    def errors(front: list[int]) -> Tensor:  # d of every target with these ids before it
        found = []
        for start in range(0, len(targets), PAIRS_AT_ONCE):
            pairs = [target.behind(front) for target in targets[start:start + PAIRS_AT_ONCE]]
            inputs, wanted = collate(pairs, tokenizer.eot_id)  # [B, T] each
            p = model(inputs).float().softmax(dim=-1)  # [B, T, V]
            p = p.gather(2, wanted.clamp(min=0)[:, :, None]).squeeze(2)  # [B, T], of the token that follows
            has_target = wanted != IGNORE_INDEX
            found.append((((1 - p).square() * has_target).sum(dim=1) / has_target.sum(dim=1)).sqrt())
        return torch.cat(found)

    alone = errors([])  # d(i)
    return torch.stack([alone - errors(shown(candidate, tokenizer)) for candidate in candidates], dim=1).numpy()


def utility_matrix(model: GPT2, tokenizer: Tokenizer, targets: Sequence[Example], candidates: Sequence[Example],
                   precision: str = "fp32", pairs: np.ndarray | None = None, file: Path | None = None) -> np.ndarray:
    """U[i, j] = d(i) - d(i | j) for all pairs, or for some.

    A pair that is together longer than the model's context cannot be shown to it. The candidate then has utility 0 for
    that target, like one that does not help. How many such pairs there are is printed.

    Args:
        targets: examples whose responses are predicted; one row each.
        candidates: examples that are shown; one column each. May be the same list.
        precision: fp32, or bf16 for matrix products in bfloat16.
        pairs: int [targets, K], the numbers of the only candidates to try on each target.
        file: where the matrix grows, an .npy file mapped into memory. Until it is whole it is called FILE.partial and
            holds NaN where nothing is computed yet; a later call goes on from there. Under `torchrun` the processes share
            the candidates, and the main one alone writes: two machines that write parts of one page of a shared file
            would lose each other's.

    Returns:
        float32 [targets, candidates], or with `pairs` [targets, K] in their order.

    Raises:
        InputError: if a target alone is longer than the context.
    """
    plan = Plan(len(targets), len(candidates), pairs)
    if file is not None and file.exists():
        return read(file, plan.shape)
    fronts = [shown(candidate, tokenizer) for candidate in candidates]
    context, lengths = model.config.n_positions, np.array([len(t.ids) - 1 for t in targets])  # the last token is never read
    if lengths.max() > context:
        raise InputError(f"A target has {lengths.max()} tokens, and the model reads {context}; leave it out.")

    matrix = np.full(plan.shape, np.nan, dtype=np.float32) if file is None else grow(file, plan.shape)
    todo = distributed.from_main([j for j in range(len(candidates)) if np.isnan(matrix[plan.cells(j)]).any()])
    counts = {j: len(plan.cells(j)[0]) for j in todo}
    too_long = sum(int((lengths[plan.cells(j)[0]] + len(fronts[j]) > context).sum()) for j in todo)
    say(f"Utility of {len(candidates):,} candidates for {len(targets):,} targets: {sum(counts.values()):,} pairs, "
        f"{matrix.nbytes / 1e6:,.1f} MB")
    if too_long:
        say(f"  {too_long:,} pairs do not fit into {context} tokens and get utility 0")
    with evaluating(model, precision), Progress("utilities", sum(counts.values()), "pairs") as progress:
        ready = Targets(model, targets, tokenizer.eot_id)
        alone = ready.distances([], ready.everything)  # d(i)

        def column(j: int) -> np.ndarray:
            rows, _ = plan.cells(j)
            fits = lengths[rows] + len(fronts[j]) <= context
            if not fits.any():  # a cut example may fill the context alone
                return np.zeros(len(rows), dtype=np.float32)
            parts = ready.everything if pairs is None and fits.all() else ready.parts(rows[fits].tolist())
            behind = ready.distances(fronts[j], parts)  # d(i | j)
            return np.where(fits, (alone - behind)[rows], 0)

        start, ranks = time.monotonic(), distributed.world_size()
        size = AT_ONCE * ranks if ranks > 1 else 1
        for together in (todo[i:i + size] for i in range(0, len(todo), size)):
            columns = distributed.put_together([column(j) for j in distributed.my_share(together)])
            if file is None or is_main():
                for j, found in zip(together, columns):
                    matrix[plan.cells(j)] = found
            done = sum(counts[j] for j in together)
            if together[0] == todo[0] and done:
                seconds = (time.monotonic() - start) * progress.total / done
                say(f"  about {duration(seconds)}, to judge by the first candidate{'s' if ranks > 1 else ''}")
            progress.advance(done)
    return finish(file, matrix) if file is not None and isinstance(matrix, np.memmap) else matrix


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
