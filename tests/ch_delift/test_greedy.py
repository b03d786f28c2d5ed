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


@pytest.mark.parametrize("budget", [0, -1, 4])
def test_the_budget_must_be_possible(budget):
    with pytest.raises(ValueError, match="from 1 to the number of candidates, 3"):
        maximize(FacilityLocation(np.eye(3)), budget)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="use naive or lazy"):
        maximize(FacilityLocation(np.eye(3)), 1, "fast")
