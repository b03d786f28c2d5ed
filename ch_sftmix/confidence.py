"""Confidence from training dynamics: how sure the model was of each response while it learnt
(SFTMix, arXiv 2410.05248)."""

import random

import torch
from torch import Tensor

from common.embedding import nearest


def confidence(perplexities: Tensor) -> Tensor:
    """Conf(Y|X) = -(1/C) Σ_c Perp_c(Y|X): minus the mean perplexity over C checkpoints (SFTMix).

    Args:
        perplexities: float [C, N], one row per checkpoint.

    Returns:
        float [N], at most -1; higher is surer.
    """
    return -torch.as_tensor(perplexities).mean(dim=0)


def negative_loss(perplexities: Tensor) -> Tensor:
    """-(1/C) Σ_c log Perp_c, an alternative: one bad checkpoint cannot outweigh the others.

    [C, N] -> [N].
    """
    return -torch.as_tensor(perplexities).log().mean(dim=0)


def split(sure: Tensor) -> tuple[list[int], list[int]]:
    """Cut the examples into two equal halves at the median.

    Ties and odd numbers, our choice: of equal confidences the lower id counts as surer, and of an
    odd number the middle one is confident.

    Args:
        sure: float [N], from `confidence` or `negative_loss`.

    Returns:
        Ids of the confident half (ceil(N/2), surest first) and of the unconfident half.
    """
    order = torch.as_tensor(sure).argsort(descending=True, stable=True).tolist()
    half = (len(order) + 1) // 2
    return order[:half], order[half:]


def without_least_sure(confidence: Tensor, share: float) -> list[int]:
    """Ids of all examples but this share of them, the least sure ones (rounded down), surest first.
    [N] -> ids."""
    surest_first = [i for half in split(confidence) for i in half]
    return surest_first[:len(surest_first) - int(share * len(surest_first) + 1e-9)]


def random_split(n: int, seed: int) -> tuple[list[int], list[int]]:
    """The control: two halves of the same sizes, drawn at random."""
    order = random.Random(f"halves {seed}").sample(range(n), n)
    return order[:(n + 1) // 2], order[(n + 1) // 2:]


def relative_confidence(sure: Tensor, vectors: Tensor, neighbours: int = 10) -> Tensor:
    """How much surer the model was of each response than of those nearest to it.

    Confidence tells kinds of records apart before it tells right from wrong: the model is unsure of
    all records of a hard kind. Compared with its neighbours, a record says something about itself.
    This is ours, not the paper's; `lab/RESULTS.md` compares both.

    Args:
        sure: float [N], from `confidence`.
        vectors: float [N, D], the records as vectors; the nearest have the largest cosines about
            their mean.

    Returns:
        float [N]; below 0, the model was less sure of it than of its neighbours.
    """
    near, _ = nearest(vectors.numpy(), vectors.numpy(), neighbours + 1)  # [N, neighbours + 1]
    # no record is its own neighbour
    others = [[j for j in row if j != i][:neighbours] for i, row in enumerate(near.tolist())]
    return sure - sure[torch.tensor(others)].mean(dim=1)
