"""Greedy selection: always take the candidate that adds most.

For a monotone function with diminishing returns this reaches at least 1 - 1/e = 63 % of the best
possible value (Nemhauser, Wolsey and Fisher, 1978); in practice far more.
"""

import numpy as np

from ch_delift.submodular import FacilityLocation

# gains that are brought up to date together: one is too few for NumPy, many are often for nothing
BLOCK = 16


def maximize(function: FacilityLocation, budget: int,
             method: str = "lazy") -> tuple[list[int], list[float]]:
    """Choose `budget` candidates. Of equal gains the lowest number wins.

    Args:
        function: has `n` candidates, none chosen yet; the chosen ones are added to it.
        budget: how many, from 1 to n.
        method: "naive" computes every gain in every step. "lazy" chooses exactly the same, but
            recomputes a gain only when it could be the largest.

    Returns:
        The chosen numbers and what each added, in the order of choice.

    Raises:
        ValueError: for another budget or method.
    """
    if not 1 <= budget <= function.n:
        raise ValueError(f"The budget is {budget}; it must be from 1 to the number of candidates, "
                         f"{function.n}.")
    if method not in ("naive", "lazy"):
        raise ValueError(f"There is no method {method!r}; use naive or lazy.")
    picks = (_lazy if method == "lazy" else _naive)(function, budget)
    return [candidate for candidate, _ in picks], [gain for _, gain in picks]


def _naive(function: FacilityLocation, budget: int) -> list[tuple[int, float]]:
    """In every step, compute the gain of each candidate that is left, and take the best."""
    picks: list[tuple[int, float]] = []
    left = np.arange(function.n)
    for _ in range(budget):
        gains = function.gains(left)
        place = gains.argmax()  # the first of equals
        picks.append((int(left[place]), float(gains[place])))
        function.add(picks[-1][0])
        left = np.delete(left, place)
    return picks


def _lazy(function: FacilityLocation, budget: int) -> list[tuple[int, float]]:
    """An old gain is an upper bound of today's (diminishing returns; Minoux, 1978): whoever has the
    largest bound, and it is up to date, is the best."""
    picks: list[tuple[int, float]] = []
    size = min(BLOCK, function.n)
    bounds = function.gains()
    fresh = np.ones(function.n, dtype=bool)
    for _ in range(budget):
        while not fresh[best := int(bounds.argmax())]:
            # Bring the largest bounds up to date, as far as they are not.
            top = np.argpartition(bounds, -size)[-size:]
            block = np.union1d(best, top[~fresh[top]])
            bounds[block] = function.gains(block)
            fresh[block] = True
        picks.append((best, float(bounds[best])))
        function.add(best)
        bounds[best] = -np.inf
        fresh[:] = bounds == -np.inf  # what is chosen stays so; all other gains may have shrunk
    return picks
