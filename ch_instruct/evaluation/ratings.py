"""Ratings from votes between two: Bradley-Terry strengths with bootstrap intervals."""

from collections import Counter
from typing import NamedTuple

import numpy as np

# What a vote gives the left side; the right side gets the rest. Two bad answers are equally good, so they are a tie.
POINTS = {"left": 1.0, "right": 0.0, "tie": 0.5, "both bad": 0.5}
CENTRE, SCALE = 1000.0, 400.0  # as in chess: 400 points more are odds of ten to one
DRAWS = 1000  # bootstrap samples


class Rating(NamedTuple):
    """One model: its rating, the 95 % interval of that, and its votes."""

    name: str
    rating: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int


def strengths(points: np.ndarray) -> np.ndarray:
    """Bradley-Terry strengths p with P(i beats j) = p_i / (p_i + p_j), by maximum likelihood (Bradley and Terry, 1952).

    Every pair begins with one tie. Without it a model that has never lost would be infinitely strong, and models that never
    met, not even by way of others, could not be compared.

    Args:
        points: float [..., n, n]; points[i, j] is what i won against j, a tie counting half a win for each.

    Returns:
        float [..., n], with a geometric mean of 1. Found by iterating p_i = won_i / sum_j games_ij / (p_i + p_j) (Hunter,
        2004), which never lowers the likelihood.
    """
    n = points.shape[-1]
    points = np.where(np.eye(n, dtype=bool), 0.0, points + 0.5)
    games = points + np.swapaxes(points, -1, -2)  # [..., n, n]
    won = points.sum(-1)  # [..., n]
    p = np.ones(points.shape[:-1])
    while True:
        new = won / (games / (p[..., :, None] + p[..., None, :])).sum(-1)
        new /= np.exp(np.log(new).mean(-1, keepdims=True))
        if np.abs(np.log(new / p)).max() < 1e-9:
            return new
        p = new


def rate(votes: list[dict]) -> list[Rating]:
    """Ratings of all models that have votes, the best first.

    Args:
        votes: each with the names "left" and "right" and the "vote", one of POINTS. Intervals hold the middle 95 % of the
            ratings from DRAWS samples of them, drawn with replacement ("bootstrap").
    """
    if not votes:
        return []
    names = sorted({name for vote in votes for name in (vote["left"], vote["right"])})
    index = {name: i for i, name in enumerate(names)}
    kinds = Counter((vote["left"], vote["right"], POINTS[vote["vote"]]) for vote in votes)  # few, however many votes there are
    each = np.zeros((len(kinds), len(names), len(names)))  # what a vote of each kind gives to whom against whom
    tallies: dict[str, Counter[float]] = {name: Counter() for name in names}  # points -> how often
    for number, ((left, right, points), count) in enumerate(kinds.items()):
        for name, other, got in ((left, right, points), (right, left, 1 - points)):
            each[number, index[name], index[other]] = got
            tallies[name][got] += count
    counts = np.array([*kinds.values()])
    drawn = np.random.default_rng(0).multinomial(len(votes), counts / len(votes), size=DRAWS)
    samples = np.tensordot(np.concatenate([counts[None], drawn]), each, 1)  # [1 + DRAWS, n, n], the votes themselves first

    ratings = CENTRE + SCALE * np.log10(strengths(samples))  # [1 + DRAWS, n]
    lows, highs = np.percentile(ratings[1:], [2.5, 97.5], axis=0)
    found = [Rating(name, float(rating), float(low), float(high), tallies[name][1.0], tallies[name][0.5], tallies[name][0.0])
             for name, rating, low, high in zip(names, ratings[0], lows, highs)]
    return sorted(found, key=lambda rating: -rating.rating)
