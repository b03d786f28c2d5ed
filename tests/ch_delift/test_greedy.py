import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ch_delift.greedy import BLOCK, maximize
from ch_delift.submodular import FacilityLocation, FacilityLocationMutualInformation


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 12), n=st.integers(1, 60), levels=st.sampled_from([2, 4, 10**6]))
@settings(max_examples=60, deadline=None)
def test_lazy_is_naive(seed, rows, n, levels):
    """Also with many ties (few levels), asymmetric and rectangular kernels, and more candidates than a block."""
    generator = np.random.default_rng(seed)
    s = (generator.integers(0, levels, (rows, n)) / levels).astype(np.float32)
    budget = int(generator.integers(1, n + 1))
    for function in (FacilityLocation, FacilityLocationMutualInformation):
        ids, gains = maximize(function(s), budget, "lazy")
        assert (ids, gains) == maximize(function(s), budget, "naive")
        assert len(set(ids)) == budget
        assert sum(gains) == pytest.approx(function(s).value(ids), abs=1e-4)


def test_ties_go_to_the_lowest_number():
    same = np.ones((3, 4 * BLOCK), dtype=np.float32)  # more equal bounds than one block holds
    for method in ("naive", "lazy"):
        assert maximize(FacilityLocation(same), 3, method) == ([0, 1, 2], [3.0, 0.0, 0.0])
        assert maximize(FacilityLocation(np.eye(5)), 5, method)[0] == [0, 1, 2, 3, 4]


def test_gains_fall_and_add_up():
    s = np.random.default_rng(0).random((50, 80))
    ids, gains = maximize(FacilityLocation(s), 80)
    assert sorted(ids) == list(range(80)) and gains == sorted(gains, reverse=True)
    assert sum(gains) == pytest.approx(s.max(axis=1).sum(), rel=1e-5)


def test_stochastic_greedy_comes_close_and_depends_on_the_seed_alone():
    s = np.random.default_rng(0).random((100, 400))
    best = sum(maximize(FacilityLocation(s), 40, "lazy")[1])
    ids, gains = maximize(FacilityLocation(s), 40, "stochastic", seed=1)
    assert len(set(ids)) == 40 and sum(gains) > 0.97 * best
    assert (ids, gains) == maximize(FacilityLocation(s), 40, "stochastic", seed=1)
    assert ids != maximize(FacilityLocation(s), 40, "stochastic", seed=2)[0]


def test_with_epsilon_near_0_stochastic_is_naive():
    s = np.random.default_rng(3).random((20, 30))
    assert maximize(FacilityLocation(s), 5, "stochastic", epsilon=1e-9) == maximize(FacilityLocation(s), 5, "naive")


@pytest.mark.parametrize("budget", [0, -1, 4])
def test_the_budget_must_be_possible(budget):
    with pytest.raises(ValueError, match="from 1 to the number of candidates, 3"):
        maximize(FacilityLocation(np.eye(3)), budget)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="use naive, lazy, stochastic"):
        maximize(FacilityLocation(np.eye(3)), 1, "fast")
