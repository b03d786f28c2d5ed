"""Nine faults seen in public code for this method; none of them may come back. One test each, named after its fault."""

import ast

import numpy as np
import pytest

from ch_delift.baselines import gradient_scores, gradient_sketches, highest, random_subset
from ch_delift.fast.shared_prefix import make_batches
from ch_delift.greedy import maximize
from ch_delift.selection import Pairs, Similarities, budget_of, objective
from ch_delift.utility import shown, similarity
from ch_instruct.encoding import encode_record
from common.losses import IGNORE_INDEX
from tests.ch_delift.test_utility import RECORDS, encoded, matrix, plain_matrix, record
from tests.conftest import ROOT
from tests.models import make_model


@pytest.fixture(scope="module")
def model():
    return make_model(n_positions=700)


def test_fault_1_an_over_long_pair_is_not_scored_as_perfect(model, tokenizer, capsys):
    """Distance 0 for what does not fit would make the longest examples look best."""
    lengths = [len(encode_record(r, tokenizer).ids) - 1 for r in RECORDS[:3]]  # the third has an input, and is longest
    room = 700 - max(lengths) + 1  # an example of so many tokens fits before the others, and is one too long for the third
    words = record("Tell a story.", "")
    long = words | {"output": "x" * (room - len(shown(encode_record(words, tokenizer), tokenizer)))}
    assert len(shown(encode_record(long, tokenizer), tokenizer)) + max(lengths) == 701
    found = matrix(model, tokenizer, RECORDS[:3], [RECORDS[3], long])
    assert found[2, 1] == 0 and "1 pairs do not fit into 700 tokens: utility 0" in capsys.readouterr().out
    np.testing.assert_allclose(found[:2], plain_matrix(model, tokenizer, RECORDS[:2], [RECORDS[3], long]), atol=1e-5)
    np.testing.assert_allclose(found[:, 0], np.ravel(plain_matrix(model, tokenizer, RECORDS[:3], [RECORDS[3]])), atol=1e-5)


def test_fault_2_the_longest_of_a_batch_keeps_its_end_of_text(model, tokenizer):
    """The response's last token is end-of-text, in every row, the longest too."""
    targets = [encode_record(r, tokenizer, "phi3") for r in (record("a", "x"), record("b", "xyzzy"), record("c", "xyzzy!"))]
    [batch] = make_batches(targets, range(3), [], tokenizer.eot_id, tokens=1000)
    for row, wanted in zip(batch.rows, batch.targets):
        response = wanted[wanted != IGNORE_INDEX].tolist()
        assert response == targets[row].ids[targets[row].prompt_length:] and response[-1] == tokenizer.eot_id


def test_fault_3_the_responses_are_given_not_generated(model, tokenizer, monkeypatch):
    """Teacher forcing: utilities depend on the expected response, and nothing is ever generated."""
    monkeypatch.setattr("common.fast.answering.continue_all", lambda *_: pytest.fail("generated"))
    one, two = (matrix(model, tokenizer, [record("Say hello.", text)], RECORDS[1:2]) for text in ("Hello.", "Hi!"))
    assert one[0, 0] != two[0, 0]


def test_fault_4_an_outlier_leaves_other_similarities_alone():
    utility = np.random.default_rng(0).uniform(-0.2, 0.2, (6, 6))
    with_outlier = utility.copy()
    with_outlier[0, 0] = 1.0
    same, changed = similarity(utility), similarity(with_outlier)
    np.testing.assert_array_equal(same.ravel()[1:], changed.ravel()[1:])
    assert not np.allclose(similarity(utility, "minmax").ravel()[1:], similarity(with_outlier, "minmax").ravel()[1:])


@pytest.mark.parametrize(("fraction", "n", "expected"), [
    (0.3, 10, 3), (0.3, 1562, 468), (0.29, 100, 29), (1.0, 7, 7), (0.1, 19, 1)])
def test_fault_5_a_fraction_is_a_share_of_the_examples(fraction, n, expected):
    """Not of clusters or groups; and exactly floor(fraction · N), whatever chooses."""
    budget = budget_of(fraction, n)
    assert budget == expected
    scores = np.random.default_rng(0).random(n)
    for chosen in (random_subset(n, budget, seed=1), highest(scores, budget)):
        assert len(chosen) == len(set(chosen)) == expected and set(chosen) <= set(range(n))


def test_fault_6_the_highest_scores_are_taken():
    assert highest(np.array([0.1, 0.9, 0.5, 0.9]), 3) == [1, 3, 2]


def test_fault_6_a_gradient_score_is_high_where_a_step_helps(model, tokenizer):
    """A candidate equal to the target scores highest, and a step on it lowers the target's loss."""
    examples = [encode_record(r, tokenizer, "phi3") for r in RECORDS]
    sketches = gradient_sketches(model, examples)
    for i in range(len(examples)):
        assert gradient_scores(sketches, sketches[i:i + 1]).argmax() == i
    assert sketches.dtype == np.float32 and not any(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("pairs", [Pairs("all"), Pairs("neighbours", 3)])
def test_fault_7_ids_are_places_in_the_data(pairs, model, tokenizer, tmp_path):
    """Not places within the candidates that were looked at."""
    data = [*RECORDS, *(r | {"instruction": "Please: " + r["instruction"]} for r in RECORDS)]
    similarities = Similarities(model, tokenizer, {"data": encoded(data, tokenizer, "phi3")}, tmp_path, pairs=pairs)
    ids, gains = maximize(objective("instruction", similarities.by_utility), 4)
    assert len(set(ids)) == 4 and set(ids) <= set(range(len(data)))
    # The first gain is what that very record adds: the sum of its column, counted anew from the definition.
    rows = [i for i in range(len(data))
            if pairs.kind != "neighbours" or ids[0] in similarities.neighbours("data", "data")[0][i]]
    column = plain_matrix(model, tokenizer, [data[i] for i in rows], [data[ids[0]]], "phi3")
    assert gains[0] == pytest.approx(sum(max(u[0], 0) for u in column), abs=1e-4)


def test_fault_8_the_stored_matrix_has_targets_as_rows(model, tokenizer, tmp_path):
    targets, candidates = RECORDS[:2], RECORDS[2:]
    file = tmp_path / "target-data.npy"
    matrix(model, tokenizer, targets, candidates, file=file)
    stored = np.load(file)
    assert stored.shape == (2, 4)
    np.testing.assert_allclose(stored, plain_matrix(model, tokenizer, targets, candidates), atol=1e-5)
    square = matrix(model, tokenizer, RECORDS[:3], RECORDS[:3])
    assert not np.allclose(square, square.T, atol=1e-4)  # so a swap would be seen


def test_fault_9_no_error_is_swallowed(model, tokenizer, tmp_path, monkeypatch):
    """An error inside an experiment ends it; and no handler in the chapter catches everything."""
    monkeypatch.setattr("ch_delift.fast.shared_prefix.distances", lambda *_: 1 / 0)
    similarities = Similarities(model, tokenizer, {"data": encoded(RECORDS, tokenizer)}, tmp_path)
    with pytest.raises(ZeroDivisionError):
        similarities.by_utility("data", "data")
    for path in (ROOT / "ch_delift").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None and ast.unparse(node.type) not in ("Exception", "BaseException"), path.name


