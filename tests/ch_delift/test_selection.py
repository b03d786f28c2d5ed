import numpy as np
import pytest

from ch_delift import selection
from ch_delift.selection import Comparison, Pairs, budget_of, check_memory, objective
from common.files import InputError
from tests.ch_delift.test_utility import RECORDS, encoded, plain_matrix
from tests.conftest import make_model

GROUPS = {"data": RECORDS[:4], "target": RECORDS[4:], "known": RECORDS[3:5]}


def examples(groups, tokenizer) -> dict:
    return {name: encoded(records, tokenizer, "phi3") for name, records in groups.items()}


@pytest.fixture(scope="module")
def model():
    return make_model(n_positions=700)


@pytest.mark.parametrize("stage", ["instruction", "task", "continual"])
def test_each_stage_maximises_its_function(stage, model, tokenizer, tmp_path):
    """The value of a subset, from the matrices of the plain double loop and the formulas."""
    comparison = Comparison(model, tokenizer, examples(GROUPS, tokenizer), tmp_path)

    def s(rows, columns):
        return np.maximum(plain_matrix(model, tokenizer, GROUPS[rows], GROUPS[columns], "phi3"), 0)

    A = [2, 0]
    expected = {
        "instruction": lambda: s("data", "data")[:, A].max(axis=1).sum(),
        "task": lambda: s("target", "data")[:, A].max(axis=1).sum() + s("target", "data")[:, A].max(axis=0).sum(),
        "continual": lambda: np.maximum(s("data", "data")[:, A].max(axis=1) - s("data", "known").max(axis=1), 0).sum()}[stage]()
    assert objective(stage, comparison.by_utility).value(A) == pytest.approx(expected, abs=1e-5)
    if stage == "task":
        limit = s("data", "target").max(axis=1)
        assert objective(stage, comparison.by_utility, "saturating").value(A) == pytest.approx(
            np.minimum(s("data", "data")[:, A].max(axis=1), limit).sum(), abs=1e-5)


@pytest.mark.parametrize("stage", ["instruction", "task", "continual"])
def test_all_neighbours_are_all_pairs(stage, model, tokenizer, tmp_path):
    """With as many neighbours as there are candidates, the sparse way must choose what the dense way chooses."""
    chosen = {}
    for pairs in (Pairs("all"), Pairs("neighbours", 99), Pairs("columns", 4)):
        (tmp_path / str(pairs)).mkdir()
        comparison = Comparison(model, tokenizer, examples(GROUPS, tokenizer), tmp_path / str(pairs), pairs=pairs)
        chosen[str(pairs)] = [comparison.choose(objective(stage, compare), 3)
                              for compare in (comparison.by_utility, comparison.by_hidden_states)]
        np.testing.assert_allclose(comparison.grid("data", [1, 2], [3, 0]),
                                   np.array(plain_matrix(model, tokenizer, RECORDS[1:3], RECORDS[:4], "phi3"))[:, [3, 0]],
                                   atol=1e-5)
    for other in ("neighbours:99", "columns:4"):
        for (_, gains), (_, same) in zip(chosen["all"], chosen[other]):
            np.testing.assert_allclose(gains, same, atol=1e-4)
        assert chosen["all"][0][0] == chosen[other][0][0]  # cosines have exact ties, utilities do not


def test_what_is_not_compared_is_not_known(model, tokenizer, tmp_path):
    comparison = Comparison(model, tokenizer, examples({"data": RECORDS}, tokenizer), tmp_path, pairs=Pairs("neighbours", 2))
    grid = comparison.grid("data", list(range(6)), list(range(6)))
    assert (~np.isnan(grid)).sum(axis=1).tolist() == [2] * 6
    assert comparison.by_utility("data", "data").shape == (6, 6)


@pytest.mark.parametrize("text", ["none", "columns", "columns:0", "neighbours:-1", "neighbours:x", "all:3", ""])
def test_other_pairs_are_refused(text):
    with pytest.raises(ValueError, match="use all, columns:M or neighbours:K"):
        Pairs.parse(text)


def test_pairs_are_written_as_they_are_read():
    assert [str(Pairs.parse(text)) for text in ("all", "columns:30", "neighbours:64")] == ["all", "columns:30", "neighbours:64"]


def test_a_fraction_that_selects_nothing_is_refused():
    with pytest.raises(InputError, match=r"--fraction 0\.01 of 60 training records is less than one record"):
        budget_of(0.01, 60)


def test_a_matrix_larger_than_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(selection.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}[name])
    check_memory(700, 700)
    with pytest.raises(InputError, match=r"10,000 x 10,000 pairs need 1 GB.*use --pairs neighbours"):
        check_memory(10_000, 10_000)
