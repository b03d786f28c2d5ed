import math
import resource
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ch_instruct.evaluation.ratings import rate, strengths


def votes(left: str, right: str, *kinds: str) -> list[dict]:
    return [{"left": left, "right": right, "vote": kind} for kind in kinds]


# a against b: three wins (one of them from the right side), one loss, one tie, one "both bad".
KNOWN = votes("a", "b", "left", "left", "right", "tie", "both bad") + votes("b", "a", "right")


def test_two_models_have_the_odds_of_their_votes():
    a, b = rate(KNOWN)
    assert (a.name, a.wins, a.ties, a.losses) == ("a", 3, 2, 1) and (b.name, b.wins, b.ties, b.losses) == ("b", 1, 2, 3)
    odds = (3 + 2 / 2 + 0.5) / (1 + 2 / 2 + 0.5)  # the last half each: the tie that every pair begins with
    assert a.rating - b.rating == pytest.approx(400 * math.log10(odds))
    assert a.rating + b.rating == pytest.approx(2000)
    assert a.low < a.rating < a.high


def test_a_model_that_never_lost_is_finite_and_so_is_its_interval():
    a, b = rate(votes("a", "b", *["left"] * 9))
    assert a.rating - b.rating == pytest.approx(400 * math.log10(9.5 / 0.5))
    assert a.low == a.high == pytest.approx(a.rating)  # all samples of nine equal votes are equal


def test_ratings_go_by_way_of_others():
    found = {r.name: r for r in rate(votes("a", "b", *["left"] * 30, *["right"] * 10) + votes("b", "c", *["left"] * 30,
                                                                                            *["right"] * 10))}
    assert found["a"].rating > found["b"].rating > found["c"].rating
    assert found["a"].rating - found["c"].rating > 300  # 3 to 1 twice is 9 to 1, nearly 382 points, though they never met


def test_more_votes_narrow_the_interval():
    few, many = (rate(KNOWN * n)[0] for n in (1, 16))
    assert (many.high - many.low) < (few.high - few.low) / 2


def test_no_votes_no_ratings():
    assert rate([]) == []


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.integers(2, 5).flatmap(lambda n: st.lists(st.lists(st.integers(0, 20), min_size=n, max_size=n), min_size=n,
                                                   max_size=n)))
def test_strengths_maximise_the_likelihood(rows):
    """At the maximum each model has won as much as its strength promises."""
    points = np.array(rows, dtype=float)
    np.fill_diagonal(points, 0)
    p = strengths(points)
    points += 0.5 - np.eye(len(p)) * 0.5
    games = points + points.T
    expected = (games * p[:, None] / (p[:, None] + p[None, :])).sum(1)
    assert np.allclose(expected, points.sum(1), atol=1e-5)
    assert np.log(p).sum() == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
def test_many_votes_take_no_time_and_no_memory():
    """Their kinds are few: 200,000 votes among three models are a table of counts."""
    votes = [{"left": "abc"[i % 3], "right": "abc"[(i + 1) % 3], "vote": "left" if i % 2 else "tie"} for i in range(200_000)]
    started, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(rating.wins + rating.ties + rating.losses for rating in rate(votes)) == 400_000
    assert time.process_time() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000  # kB
