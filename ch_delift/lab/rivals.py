"""Other ways to choose, of which the map asks whether they do as well: by examples as vectors (LESS is in `less.py`).

Vectors are mean hidden states [N, D]; all that is returned are places in 0..N-1, in the order of choice.
"""

import random
from collections.abc import Sequence

import numpy as np
from scipy.cluster.vq import kmeans2

from ch_delift.baselines import highest
from common.embedding import cosine, unit

COPY = 0.8  # a cosine from here up is a near-copy's (conditions.md); on skewed data mostly another thing's


def without_copies(vectors: np.ndarray, budget: int, seed: int) -> list[int]:
    """At random, but no near-copy of what is chosen already; where nothing else is left, copies fill up.

    After SemDeDup (Abbas et al., 2023, arXiv 2303.09540), which looks for near-copies inside clusters, as all pairs are too
    many for it.
    """
    order = random.Random(f"without copies {seed}").sample(range(len(vectors)), len(vectors))
    return apart(order, cosine(vectors, vectors), budget)


def apart(order: Sequence[int], likeness: np.ndarray, budget: int) -> list[int]:
    """The first of these places that are no near-copy of one before; where nothing else is left, copies fill up.

    Args:
        likeness: cosines [N, N].
    """
    chosen: list[int] = []
    for place in order:
        if not (likeness[place, chosen] >= COPY).any():
            chosen.append(place)
    return (chosen + [place for place in order if place not in chosen])[:budget]


def wici(utility: np.ndarray, vectors: np.ndarray, budget: int, probes: int = 5) -> list[int]:
    """After wICI (arXiv 2604.25132): what helps the records nearest to it most, the more the less these are like it.

    A candidate's score is the mean of U[i, j] (1 - cos(i, j)) over those of its `probes` nearest records i that it helps; the
    highest scores are taken, but no near-copies. The authors' code measures help by the ratio of two perplexities, and leaves
    out records whose ratio is above 1; here it is DELIFT's utility. Of its four rules for the records that are asked, this is
    the plainest. Its vectors are sentence embeddings, its near-copies begin at 0.9, and it does not fill up with copies.

    Args:
        utility: [N, N], U[i, j] of target i and candidate j.
    """
    likeness = cosine(vectors, vectors)
    nearest = np.argsort(2 * np.eye(len(vectors)) - likeness, axis=1, kind="stable")[:, :probes]  # of others, [N, probes]
    helped = np.take_along_axis(utility.T, nearest, axis=1)
    worth = np.maximum(helped, 0) * (1 - np.take_along_axis(likeness, nearest, axis=1))
    scores = worth.sum(axis=1) / np.maximum((helped > 0).sum(axis=1), 1)
    return apart(highest(scores, len(scores)), likeness, budget)


def k_means(vectors: np.ndarray, budget: int, seed: int) -> list[int]:
    """As many clusters as are to be chosen, by k-means of unit vectors, and of each the record that is nearest to its centre.

    A centre whose nearest record is taken gets its next one. The usual way to choose by diversity alone (among others Yu et
    al., 2024, arXiv 2409.11378, who draw from each cluster).
    """
    points = unit(vectors - vectors.mean(axis=0))
    centres, _ = kmeans2(points, budget, minit="++", seed=seed, missing="warn")
    distances = np.square(points[None] - centres[:, None]).sum(axis=2)  # [budget, N]
    return in_turns(-distances, budget)


def k_centre(vectors: np.ndarray, budget: int) -> list[int]:
    """Again and again the record that is farthest from all chosen ones; the first is the one nearest to the mean.

    Greedy k-centre (Gonzalez, 1985), a "core-set" of Sener and Savarese (2018, arXiv 1708.00489). No largest distance from a
    record to its nearest chosen one is more than twice the least possible.
    """
    points = unit(vectors - vectors.mean(axis=0))
    chosen = [int(np.square(points - points.mean(axis=0)).sum(axis=1).argmin())]
    far = np.full(len(points), np.inf)  # squared distance of each record to the nearest chosen one
    while len(chosen) < budget:
        far = np.minimum(far, np.square(points - points[chosen[-1]]).sum(axis=1))
        far[chosen] = -1  # copies of chosen records are at 0
        chosen.append(int(far.argmax()))
    return chosen


def in_turns(scores: np.ndarray, budget: int) -> list[int]:
    """Each row in turn takes the column with its highest score among those that are left. [rows, N] -> places."""
    left = np.array(scores, dtype=np.float64)
    chosen: list[int] = []
    while len(chosen) < budget:
        place = int(left[len(chosen) % len(left)].argmax())
        left[:, place] = -np.inf
        chosen.append(place)
    return chosen


def rds_plus(vectors: np.ndarray, targets: np.ndarray, budget: int) -> list[int]:
    """RDS+ (Ivison et al., 2025, arXiv 2503.01807): each target record in turn takes the record with the largest cosine.

    Args:
        vectors, targets: means of hidden states in which the t-th token counts t times (`mean_hidden_states` with
            `later_more`), [N, D] and [T, D]. As in the authors' code no centre is subtracted.
    """
    return in_turns(unit(targets) @ unit(vectors).T, budget)
