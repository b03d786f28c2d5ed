"""Pairwise utility: how much one example, shown in the prompt, helps the model with another
(DELIFT, arXiv 2411.04425).

    U[i, j] = d(i) - d(i | j)        d = sqrt( Σ_k (1 - p_k)² / N )

d(i) is the model's error on the response of target i: p_k is the probability it gives to the k-th
of the N response tokens (end-of-text is the last, unless the example was cut), the tokens before it
being given ("teacher forcing"). d(i | j) is the same with example j in front of i's prompt. So U is
between -1 and 1; above 0, j helps. Rows are targets, columns are candidates, and U is not
symmetric.

`plain_utility` says it in code. N examples have N² pairs, so speed decides what can be done:
`utility_matrix` gives the same numbers by the shortcuts of `shared_prefix.py`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ch_delift.fast.matrix_file import MatrixFile
from ch_delift.fast.shared_prefix import Targets
from ch_instruct.collate import collate
from ch_instruct.encoding import Example
from common.gpt2 import GPT2
from common.losses import IGNORE_INDEX
from common.support.console import say
from common.support.device import evaluating
from common.support.files import InputError
from common.tokenizer import Tokenizer

SEPARATOR = "\n\n"  # between the example's response and the target's prompt
PAIRS_AT_ONCE = 16  # of the plain way


def shown(example: Example, tokenizer: Tokenizer) -> list[int]:
    """The ids of an example as it stands in front of a prompt: an empty line in the place of its
    end-of-text."""
    cut = example.ids[-1] != tokenizer.eot_id  # too long for training, so its response has no end
    return (example.ids if cut else example.ids[:-1]) + tokenizer.encode(SEPARATOR)


@torch.no_grad()
def plain_utility(model: Callable[[Tensor], Tensor], tokenizer: Tokenizer,
                  targets: Sequence[Example], candidates: Sequence[Example]) -> np.ndarray:
    """The utility matrix by its definition: put each candidate before each target, run all of it,
    look up each p_k.

    Args:
        model: token ids int64 [B, T] -> logits float [B, T, V], without dropout; ours, or any
            other.

    Returns:
        float32 [targets, candidates].
    """
    def errors(front: list[int]) -> Tensor:  # d of every target with these ids before it
        found = []
        for start in range(0, len(targets), PAIRS_AT_ONCE):
            pairs = [target.behind(front) for target in targets[start:start + PAIRS_AT_ONCE]]
            inputs, wanted = collate(pairs, tokenizer.eot_id)  # [B, T] each
            p = model(inputs).float().softmax(dim=-1)  # [B, T, V]
            # [B, T], of the token that follows (any where there is none: -100 is no place)
            p = p.gather(2, wanted.clamp(min=0)[:, :, None]).squeeze(2)
            has_target = wanted != IGNORE_INDEX
            squares = ((1 - p).square() * has_target).sum(dim=1)  # [B]
            found.append((squares / has_target.sum(dim=1)).sqrt())
        return torch.cat(found)

    alone = errors([])  # d(i)
    return torch.stack([alone - errors(shown(candidate, tokenizer)) for candidate in candidates],
                       dim=1).numpy()


def utility_matrix(model: GPT2, tokenizer: Tokenizer, targets: Sequence[Example],
                   candidates: Sequence[Example], precision: str = "fp32",
                   pairs: np.ndarray | None = None, file: Path | None = None) -> np.ndarray:
    """U[i, j] = d(i) - d(i | j) for all pairs, or for some: what `plain_utility` gives, fast.

    A pair that is together longer than the model's context cannot be shown to it. The candidate
    then has utility 0 for that target, like one that does not help. How many such pairs there are
    is printed.

    Args:
        targets: examples whose responses are predicted; one row each.
        candidates: examples that are shown; one column each. May be the same list.
        precision: fp32, or bf16 for matrix products in bfloat16.
        pairs: int [targets, K], the numbers of the only candidates to try on each target.
        file: where the matrix grows (`MatrixFile`), so that a later call goes on where this one was
            interrupted.

    Returns:
        float32 [targets, candidates], or with `pairs` [targets, K] in their order.

    Raises:
        InputError: if a target alone is longer than the context.
    """
    matrix = MatrixFile(file, len(targets), len(candidates), pairs)
    if matrix.whole is not None:
        return matrix.whole
    fronts = [shown(candidate, tokenizer) for candidate in candidates]
    # the last token is never read
    room = model.config.n_positions - np.array([len(t.ids) - 1 for t in targets])
    if room.min() < 0:
        raise InputError(f"A target has {model.config.n_positions - room.min()} tokens, and the "
                         f"model reads {model.config.n_positions}; leave it out.")
    too_long = sum(int((room[rows] < len(fronts[j])).sum()) for j, rows in matrix.unfinished())
    if too_long:
        say(f"  {too_long:,} pairs do not fit into {model.config.n_positions} tokens: utility 0")

    with evaluating(model, precision):
        ready = Targets(model, targets, tokenizer.eot_id)
        alone = ready.distances([], range(len(targets)))  # d(i)
        for j, rows in matrix.measuring():
            fits = len(fronts[j]) <= room[rows]
            behind = ready.distances(fronts[j], rows[fits].tolist())  # d(i | j)
            matrix.put(j, np.where(fits, (alone - behind)[rows], 0))
    return matrix.finish()


def similarity(utility: np.ndarray, kernel: str = "positive") -> np.ndarray:
    """From utilities to similarities, which submodular functions need to be at least 0.

    Args:
        utility: float [...].
        kernel: "positive" is s = max(U, 0): what does not help counts as nothing. "minmax" is s =
            (U - min U) / (max U - min U) over the whole matrix: even the least helpful pairs get
            something, and one outlier moves all others.

    Returns:
        float32 [...].
    """
    utility = np.asarray(utility, dtype=np.float32)
    if kernel == "positive":
        return np.maximum(utility, 0)
    low, high = utility.min(), utility.max()
    return (utility - low) / max(high - low, np.finfo(np.float32).tiny)
