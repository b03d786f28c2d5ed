"""The objectives: definition, diminishing returns, and the same values as another implementation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from ch_delift.greedy import maximize
from ch_delift.submodular import (
    DataMutualInformation,
    FacilityLocation,
    FacilityLocationConditionalGain,
    FacilityLocationMutualInformation,
    SaturatingMutualInformation,
    alike,
    by_row,
)

NAMES = ["FL", "FLMI", "saturating FLMI", "data FLMI", "FLCG"]


def random_matrices(seed: int, rows: int = 7, candidates: int = 9, others: int = 4) -> dict[str, np.ndarray]:
    """Asymmetric and mostly rectangular; a quarter of the entries are 0, as after max(U, 0)."""
    generator = np.random.default_rng(seed)
    shapes = {"data": (rows, candidates), "target": (others, candidates), "shown target": (rows, others),
              "known": (rows, others)}
    return {name: np.maximum(generator.uniform(-0.3, 1, shape), 0).astype(np.float32) for name, shape in shapes.items()}


def make(name: str, s: dict[str, np.ndarray], form=np.asarray) -> FacilityLocation:
    if name == "FL":
        return FacilityLocation(form(s["data"]))
    if name == "FLMI":
        return FacilityLocationMutualInformation(form(s["target"]), eta=0.7)
    if name == "saturating FLMI":
        return SaturatingMutualInformation(form(s["data"]), form(s["shown target"]), eta=0.7)
    if name == "data FLMI":
        return DataMutualInformation(form(s["data"]), form(s["target"]), eta=0.7)
    return FacilityLocationConditionalGain(form(s["data"]), form(s["known"]), nu=0.7)


def by_definition(name: str, s: dict[str, np.ndarray], A: list[int]) -> float:
    """The formulas of the docstrings, written out with loops."""
    def best(matrix, i):
        return max((float(matrix[i, j]) for j in A), default=0.0)

    rows = range(len(s["data"]))
    if name == "FL":
        return sum(best(s["data"], i) for i in rows)
    if name == "FLMI":
        return (sum(best(s["target"], q) for q in range(len(s["target"])))
                + 0.7 * sum(max(float(row[j]) for row in s["target"]) for j in A))
    if name == "data FLMI":
        return (sum(best(s["data"], i) for i in rows)
                + 0.7 * sum(max(float(row[j]) for row in s["target"]) for j in A))
    if name == "saturating FLMI":
        return sum(min(best(s["data"], i), 0.7 * float(max(s["shown target"][i]))) for i in rows)
    return sum(max(best(s["data"], i) - 0.7 * float(max(s["known"][i])), 0) for i in rows)


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10**6), A=st.lists(st.integers(0, 8), unique=True, max_size=9))
@settings(max_examples=40, deadline=None)
def test_values_are_those_of_the_definition(name, seed, A):
    s = random_matrices(seed)
    function = make(name, s)
    assert function.value(A) == pytest.approx(by_definition(name, s, A), abs=1e-5)
    for j in A:
        function.add(j)
    assert function.value() == pytest.approx(function.value(A), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10**6), chosen=st.lists(st.integers(0, 8), unique=True, max_size=8))
@settings(max_examples=40, deadline=None)
def test_a_gain_is_the_difference_of_two_values_and_only_ever_shrinks(name, seed, chosen):
    function = make(name, random_matrices(seed))
    before = function.gains()
    for j in chosen:
        function.add(j)
        gains = function.gains()
        others = [e for e in range(9) if e not in function.chosen]
        differences = [function.value([*function.chosen, e]) - function.value() for e in others]
        np.testing.assert_allclose(function.gains(others), differences, atol=1e-5)
        assert (gains >= 0).all()  # monotone
        assert (gains <= before).all()  # diminishing returns
        before = gains


@pytest.mark.parametrize("name", NAMES)
def test_sparse_matrices_give_the_same_gains_and_choices(name):
    s = random_matrices(5, rows=30, candidates=40)
    dense, thin = make(name, s), make(name, s, sparse.coo_array)
    for j in (3, 17, 0):
        np.testing.assert_allclose(thin.gains(), dense.gains(), atol=1e-5)
        dense.add(j)
        thin.add(j)
    assert thin.value() == pytest.approx(dense.value(), abs=1e-5)
    chosen = [maximize(make(name, s, form), 12)[0] for form in (np.asarray, sparse.coo_array)]
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("bad", [-0.1, math.nan])
@pytest.mark.parametrize("form", [np.asarray, sparse.coo_array])
def test_similarities_must_be_numbers_from_0_up(bad, form):
    with pytest.raises(ValueError, match="from 0 up"):
        FacilityLocation(form(np.array([[0.5, bad], [1.0, 0.2]])))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(4))
def test_greedy_reaches_its_guarantee(name, seed):
    """At least 1 - 1/e of the best of all subsets, tried one by one."""
    s = random_matrices(seed, candidates=9)
    for budget in (1, 2, 4):
        best = max(by_definition(name, s, list(A)) for A in itertools.combinations(range(9), budget))
        chosen, _ = maximize(make(name, s), budget)
        assert by_definition(name, s, chosen) >= (1 - 1 / math.e) * best - 1e-6


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "data FLMI"])  # which it does not have
def test_values_and_choices_equal_submodlib(name, order):
    submodlib = pytest.importorskip("submodlib", reason="submodlib-py is not installed (requirements-dev.txt)")
    s = random_matrices(1, rows=40, candidates=40, others=6)
    # submodlib reads memory in C order whatever the array says, wants candidates first, and does not shrink negatives.
    K, T, Q, P = (np.ascontiguousarray(m) for m in (s["data"], s["target"].T, s["shown target"], s["known"]))
    theirs = {
        "FL": lambda: submodlib.FacilityLocationFunction(n=40, mode="dense", separate_rep=True, n_rep=40, sijs=K),
        "FLMI": lambda: submodlib.FacilityLocationVariantMutualInformationFunction(n=40, num_queries=6, query_sijs=T,
                                                                                   queryDiversityEta=0.7),
        "saturating FLMI": lambda: submodlib.FacilityLocationMutualInformationFunction(
            n=40, num_queries=6, data_sijs=K, query_sijs=Q, magnificationEta=0.7),
        "FLCG": lambda: submodlib.FacilityLocationConditionalGainFunction(n=40, num_privates=6, data_sijs=K, private_sijs=P,
                                                                          privacyHardness=0.7)}[name]()
    ours = make(name, {key: np.asarray(value, order=order) for key, value in s.items()})
    for A in ([0], [3, 8, 21], list(range(0, 40, 3))):
        assert ours.value(A) == pytest.approx(theirs.evaluate(set(A)), rel=1e-5)
    ours.add(5)
    others = [e for e in range(40) if e != 5]
    np.testing.assert_allclose(ours.gains(others), [theirs.marginalGain({5}, e) for e in others], atol=1e-5)
    if name == "saturating FLMI":
        return  # clipping makes many ties, which are broken in other ways
    picked = theirs.maximize(budget=12, optimizer="LazyGreedy", show_progress=False)
    chosen, gains = maximize(make(name, s), 12)
    assert chosen == [j for j, _ in picked]
    np.testing.assert_allclose(gains, [gain for _, gain in picked], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", [np.asarray, sparse.coo_array])
def test_alike_is_who_does_at_least_half_of_the_best(form):
    s = form(np.array([[1.0, 0.5, 0.4, 0.0], [0.125, 0.25, 0.2, 0.15], [0.0, 0.0, 0.9, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    assert alike(s).tolist() == [2, 4, 1, 1]  # of an empty row, all are at least half of the best


@given(seed=st.integers(0, 10**6), copied=st.integers(0, 11), times=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_a_copy_changes_the_weight_of_no_row_but_those_that_are_like_it(seed, copied, times):
    s = np.maximum(np.random.default_rng(seed).uniform(-0.5, 1, (12, 12)), 0) + np.eye(12)
    with_copies = [*range(12), *[copied] * times]
    before, after = alike(s), alike(s[np.ix_(with_copies, with_copies)])
    near = s[:, copied] >= s.max(axis=1) / 2
    assert near[copied] and (after[12:] == after[copied]).all()
    assert after[:12].tolist() == (before + times * near).tolist()


def test_kinds_weigh_alike_however_many_records_they_have():
    """Three kinds of 20, 3 and 1 records: as published the first is covered in more and more detail before the others are."""
    kinds = np.repeat([0, 1, 2], [20, 3, 1])
    s = np.where(kinds[:, None] == kinds, np.random.default_rng(0).uniform(0.5, 0.9, (24, 24)), 0.01) + 0.1 * np.eye(24)
    even = by_row(np.divide, s, alike(s))
    assert [(1 / alike(s))[kinds == kind].sum() for kind in range(3)] == pytest.approx([1, 1, 1])
    plain, divided = (kinds[maximize(FacilityLocation(matrix), 3)[0]].tolist() for matrix in (s, even))
    assert set(divided) == {0, 1, 2} and plain.count(0) == 2
