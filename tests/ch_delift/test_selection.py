import argparse
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

from ch_delift import selection
from ch_delift.greedy import maximize
from ch_delift.selection import (
    Pairs,
    Similarities,
    budget_of,
    check_matrices,
    check_pairs,
    check_utility,
    even_rows,
    needed_matrices,
    objective,
)
from common.support.files import InputError
from tests.ch_delift.test_utility import RECORDS, encoded, plain_matrix
from tests.models import make_model

GROUPS = {"data": RECORDS[:4], "target": RECORDS[4:], "known": RECORDS[3:5]}


def examples(groups, tokenizer) -> dict:
    return {name: encoded(records, tokenizer, "phi3") for name, records in groups.items()}


@pytest.fixture(scope="module")
def model():
    return make_model(n_positions=700)


@pytest.mark.parametrize("stage", ["instruction", "task", "continual"])
def test_each_stage_maximises_its_function(stage, model, tokenizer, tmp_path):
    """The value of a subset, from the matrices of the plain double loop and the formulas."""
    similarities = Similarities(model, tokenizer, examples(GROUPS, tokenizer), tmp_path)

    def s(rows, columns):
        return np.maximum(plain_matrix(model, tokenizer, GROUPS[rows], GROUPS[columns], "phi3"), 0)

    A = [2, 0]
    expected = {
        "instruction": lambda: s("data", "data")[:, A].max(axis=1).sum(),
        "task": lambda: s("target", "data")[:, A].max(axis=1).sum() + s("target", "data")[:, A].max(axis=0).sum(),
        "continual": lambda: np.maximum(s("data", "data")[:, A].max(axis=1) - s("data", "known").max(axis=1), 0).sum()}[stage]()
    assert objective(stage, similarities.by_utility).value(A) == pytest.approx(expected, abs=1e-5)
    if stage == "task":
        limit = s("data", "target").max(axis=1)
        assert objective(stage, similarities.by_utility, "saturating").value(A) == pytest.approx(
            np.minimum(s("data", "data")[:, A].max(axis=1), limit).sum(), abs=1e-5)
        assert objective(stage, similarities.by_utility, "data").value(A) == pytest.approx(
            s("data", "data")[:, A].max(axis=1).sum() + s("target", "data")[:, A].max(axis=0).sum(), abs=1e-5)


@pytest.mark.parametrize("pairs", [Pairs("all"), Pairs("neighbours", 4)])
def test_angles_of_all_groups_are_measured_from_one_place(pairs, model, tokenizer, tmp_path):
    """Known records that all lie to the right of the data are like the one on the right, and like no other."""
    similarities = Similarities(model, tokenizer, examples(GROUPS, tokenizer), tmp_path, pairs=pairs)
    similarities.vectors = {"data": np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=np.float32),
                            "known": np.array([[10, 0.1], [10, -0.1]], dtype=np.float32)}
    found = similarities.by_hidden_states("data", "known")
    dense = found.toarray() if sparse.issparse(found) else found
    assert dense.max(axis=1) == pytest.approx([1, 0, 0.01, 0.01], abs=1e-3)


@pytest.mark.parametrize("rows", ["equal", "even"])
@pytest.mark.parametrize(("stage", "form"), [("instruction", "query"), ("task", "query"), ("task", "saturating"),
                                             ("task", "data"), ("continual", "query")])
def test_the_matrices_that_are_estimated_are_those_that_the_objective_asks_for(stage, form, rows):
    asked = []

    def compare(rows, columns):
        asked.append((rows, columns))
        return np.ones((2, 2), dtype=np.float32)

    objective(stage, even_rows(compare) if rows == "even" else compare, form)
    needed = needed_matrices(stage, form, rows)
    assert set(asked) == set(needed) and len(needed) == len(set(needed))


def test_even_rows_are_divided_by_how_many_of_their_own_group_are_like_them():
    """Of three targets two are alike, so each of them counts half, in whatever columns."""
    among = np.array([[1.0, 0.6, 0.4], [0.5, 0.9, 0.0], [0.1, 0.0, 1.0]])
    shown = np.array([[0.8, 0.2], [0.6, 0.0], [0.0, 0.4]])
    found = even_rows(lambda rows, columns: among if columns == "target" else shown)("target", "data")
    assert found.tolist() == pytest.approx(np.array([[0.4, 0.1], [0.3, 0.0], [0.0, 0.4]]))


@pytest.mark.parametrize(("compared", "warned"), [(4, True), (20, False), (24, False)])
def test_kinds_of_more_records_than_are_compared_are_warned_of(compared, warned, capsys):
    """Of 20 records that are alike, each with its 4 nearest only: nobody can count 20."""
    kinds = np.repeat([0, 1, 2], [20, 3, 1])
    whole = np.where(kinds[:, None] == kinds, 0.8, 0.01) + 0.1 * np.eye(24)
    nearest = np.argsort(-whole, axis=1, kind="stable")[:, :compared]
    rows = np.repeat(np.arange(24), compared)
    some = sparse.coo_array((whole[rows, nearest.ravel()], (rows, nearest.ravel())), shape=(24, 24)).tocsr()
    even_rows(lambda rows, columns: some)("data", "data")
    assert ("Warning: for 83% of the records, all 4 neighbours that are compared" in capsys.readouterr().out) == warned


@pytest.mark.parametrize(("pairs", "targets", "measured"), [
    (Pairs("all"), 2, 2 * 4), (Pairs("neighbours", 2), 1, 2 * 2)])
def test_utilities_take_as_long_as_their_pairs_at_the_speed_of_a_few(pairs, targets, measured, model, tokenizer, tmp_path,
                                                                     monkeypatch):
    """Of two targets each candidate is tried on both, or, with two of four neighbours each, on one."""
    similarities = Similarities(model, tokenizer, examples(GROUPS | {"target": RECORDS[3:5]}, tokenizer), tmp_path, pairs=pairs)
    tried, now = [], iter([10.0, 16.0])

    class Targets:
        def __init__(self, model, some, pad_id):
            pass

        def distances(self, front, rows):
            tried.append(len(rows))

    monkeypatch.setattr(selection, "Targets", Targets)
    monkeypatch.setattr(selection, "time", SimpleNamespace(monotonic=lambda: next(now)))
    assert similarities.estimate("target", "data") == pytest.approx(6.0 / sum(tried) * measured)
    assert set(tried) == {targets} and len(tried) == 4


def test_pairs_that_do_not_fit_are_left_out_of_the_trial(tokenizer, tmp_path):
    groups = examples(GROUPS, tokenizer)
    longest = max(len(example.ids) for example in groups["data"])
    assert Similarities(make_model(n_positions=longest), tokenizer, groups, tmp_path).estimate("data", "data") >= 0


def test_a_matrix_of_other_records_is_refused_by_its_name(tmp_path):
    (tmp_path / "utility").mkdir()
    np.save(tmp_path / "utility" / "target-data.npy", np.zeros((2, 4), dtype=np.float32))
    check_matrices(tmp_path, {"target": 2, "data": 4}, Pairs("all"))
    for sizes, pairs in (({"target": 3, "data": 4}, Pairs("all")), ({"target": 2, "data": 4}, Pairs("neighbours", 3))):
        with pytest.raises(InputError, match=r"target-data\.npy.*\[2, 4\] instead"):
            check_matrices(tmp_path, sizes, pairs)
    check_matrices(tmp_path, {"data": 4}, Pairs("all"))  # this stage has no target: the file is not its own


@pytest.mark.parametrize("stage", ["instruction", "task", "continual"])
def test_all_neighbours_are_all_pairs(stage, model, tokenizer, tmp_path):
    """With as many neighbours as there are candidates, the sparse way must choose what the dense way chooses."""
    chosen = {}
    for pairs in (Pairs("all"), Pairs("neighbours", 99)):
        (tmp_path / pairs.kind).mkdir()
        similarities = Similarities(model, tokenizer, examples(GROUPS, tokenizer), tmp_path / pairs.kind, pairs=pairs)
        chosen[pairs.kind] = [maximize(objective(stage, compare), 3)
                              for compare in (similarities.by_utility, similarities.by_hidden_states)]
        np.testing.assert_allclose(similarities.grid("data", [1, 2], [3, 0]),
                                   np.array(plain_matrix(model, tokenizer, RECORDS[1:3], RECORDS[:4], "phi3"))[:, [3, 0]],
                                   atol=1e-5)
    for (_, gains), (_, same) in zip(chosen["all"], chosen["neighbours"]):
        np.testing.assert_allclose(gains, same, atol=1e-4)
    assert chosen["all"][0][0] == chosen["neighbours"][0][0]  # cosines have exact ties, utilities do not


def test_what_is_not_compared_is_not_known(model, tokenizer, tmp_path):
    given = examples({"data": RECORDS}, tokenizer)
    similarities = Similarities(model, tokenizer, given, tmp_path, pairs=Pairs("neighbours", 2))
    grid = similarities.grid("data", list(range(6)), list(range(6)))
    assert (~np.isnan(grid)).sum(axis=1).tolist() == [2] * 6
    assert similarities.by_utility("data", "data").shape == (6, 6)


@pytest.mark.parametrize("text", ["none", "neighbours", "neighbours:0", "columns:3", "neighbours:-1", "neighbours:x", "all:3",
                                  ""])
def test_other_pairs_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="must be all or neighbours:K"):
        Pairs.parse(text)


def test_pairs_are_read():
    assert [Pairs.parse(text) for text in ("all", "neighbours:64")] == [Pairs("all"), Pairs("neighbours", 64)]


def test_a_fraction_that_selects_nothing_is_refused():
    with pytest.raises(InputError, match=r"--fraction 0\.01 of 60 training records is less than one record"):
        budget_of(0.01, 60)


def test_a_budget_of_one_is_the_least():
    assert budget_of(0.5, 2) == budget_of(1.0, 1) == 1


def test_hidden_states_and_neighbours_are_computed_once(model, tokenizer, tmp_path, monkeypatch):
    similarities = Similarities(model, tokenizer, examples(GROUPS, tokenizer), tmp_path, pairs=Pairs("neighbours", 2))
    ids, cosines = similarities.neighbours("target", "data")
    assert ids.shape == cosines.shape == (2, 2) and similarities.neighbours("data", "known")[0].shape == (4, 2)
    monkeypatch.setattr(selection, "mean_hidden_states", lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(selection, "nearest", lambda *_: pytest.fail("computed again"))
    assert similarities.neighbours("target", "data")[0] is ids and similarities.hidden("data").shape == (4, 32)


def test_sparse_values_stand_where_their_neighbours_do(model, tokenizer, tmp_path):
    similarities = Similarities(model, tokenizer, examples(GROUPS, tokenizer), tmp_path, pairs=Pairs("neighbours", 3))
    ids, _ = similarities.neighbours("target", "data")
    spread = similarities.spread(np.arange(6.0).reshape(2, 3) + 1, ids, "data")
    assert sparse.issparse(spread) and spread.shape == (2, 4)
    for row, places in enumerate(ids):
        assert spread.toarray()[row, places].tolist() == [3 * row + 1, 3 * row + 2, 3 * row + 3]
        assert spread.toarray()[row].sum() == 9 * row + 6


def test_utilities_are_kept_in_a_file_for_each_two_groups(model, tokenizer, tmp_path, monkeypatch):
    found = Similarities(model, tokenizer, examples(GROUPS, tokenizer), tmp_path).utility("target", "data")
    np.testing.assert_array_equal(np.load(tmp_path / "target-data.npy"), found)
    monkeypatch.setattr("ch_delift.fast.shared_prefix.distances", lambda *_: pytest.fail("computed again"))
    again = Similarities(model, tokenizer, examples(GROUPS, tokenizer), tmp_path).utility("target", "data")
    np.testing.assert_array_equal(again, found)


def test_values_stay_with_the_pairs_that_were_measured(model, tokenizer, tmp_path):
    """Elsewhere, or in another precision, neighbours may come in another order."""
    groups, pairs = {"data": encoded(RECORDS, tokenizer, "phi3")}, Pairs("neighbours", 2)
    first = Similarities(model, tokenizer, groups, tmp_path, pairs=pairs)
    measured = first.by_utility("data", "data").toarray()
    again = Similarities(model, tokenizer, groups, tmp_path, pairs=pairs)
    again.vectors["data"] = first.hidden("data")[::-1].copy()
    assert (again.neighbours("data", "data")[0] != first.neighbours("data", "data")[0]).any()
    np.testing.assert_array_equal(again.by_utility("data", "data").toarray(), measured)
    grid = again.grid("data", [0, 1], [*range(len(RECORDS))])
    np.testing.assert_array_equal(np.maximum(np.nan_to_num(grid), 0), measured[:2])
    file = tmp_path / "data-data.neighbours"
    for damaged in (b"", file.read_bytes()[:-8], file.read_bytes()[:-8] + np.int64(99).tobytes()):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match="no list of neighbours"):
            again.by_utility("data", "data")


def test_negative_cosines_count_as_0(model, tokenizer, tmp_path):
    for pairs in (Pairs("all"), Pairs("neighbours", 9)):
        similarities = Similarities(model, tokenizer, examples(GROUPS, tokenizer), tmp_path, pairs=pairs)
        found = similarities.by_hidden_states("target", "data")
        found = found.toarray() if sparse.issparse(found) else found
        assert found.min() == 0 and found.max() > 0.1


def test_the_kernel_and_the_precision_reach_the_similarities(model, tokenizer, tmp_path):
    found = {}
    for name, options in {"plain": {}, "minmax": {"kernel": "minmax"}, "bf16": {"precision": "bf16"}}.items():
        (tmp_path / name).mkdir()
        found[name] = Similarities(model, tokenizer, examples(GROUPS, tokenizer), tmp_path / name, **options).by_utility(
            "target", "data")
    assert found["minmax"].min() == 0 and found["minmax"].max() == 1 != found["plain"].max()
    np.testing.assert_allclose(found["bf16"], found["plain"], atol=0.01)
    assert (found["bf16"] != found["plain"]).any()


def test_utilities_of_something_else_are_refused(tmp_path):
    facts, needed = {"model_sha256": "a" * 64, "pairs": "all"}, [("data", "data"), ("data", "known")]
    with pytest.raises(InputError, match=r"holds no utilities \(no utility/facts\.json\)"):
        check_utility(tmp_path, facts, needed)
    (tmp_path / "utility").mkdir()
    (tmp_path / "utility" / "facts.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=r"no finished matrix data-data and data-known; give a run of the same --stage"):
        check_utility(tmp_path, facts, needed)
    (tmp_path / "utility" / "data-data.npy").touch()
    with pytest.raises(InputError, match="no finished matrix data-known;"):  # of another stage: it would be measured in there
        check_utility(tmp_path, facts, needed)
    (tmp_path / "utility" / "data-known.npy").touch()
    assert check_utility(tmp_path, facts, needed) is None
    for other, words in (({"pairs": "neighbours:3"}, "with pairs all, and this run has neighbours:3; give the same model"),
                         ({"model_sha256": "b" * 64}, f"with model_sha256 {'a' * 16}, and this run has {'b' * 16};"),
                         ({"kernel": "new"}, "with kernel None, and this run has new;")):
        with pytest.raises(InputError, match=words):
            check_utility(tmp_path, facts | other, needed)


def test_a_matrix_as_large_as_the_memory_is_the_largest(monkeypatch):
    """Two matrices of float32 fill 8 bytes a pair."""
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 8, "SC_PHYS_PAGES": 12}[name])
    assert check_pairs(12) is None
    with pytest.raises(InputError, match=r"The utilities of 13 pairs need 0 GB, and this machine has 0 GB"):
        check_pairs(13)


def test_a_matrix_larger_than_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}[name])
    check_pairs(700 * 700)
    with pytest.raises(InputError, match=r"100,000,000 pairs need 1 GB.*use --pairs neighbours"):
        check_pairs(10_000 * 10_000)
