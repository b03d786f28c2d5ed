import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ch_instruct.scoring import exact_match, normalise, rouge_l, score


def response(answer: str, output: str, stopped: bool = True, **more: str) -> dict:
    return {"instruction": "?", "answer": answer, "output": output, "stopped": stopped} | more


@pytest.mark.parametrize(("text", "expected"), [
    ("Paris", "paris"), (" The  capital\n of\tFrance ", "the capital of france"), ("It is red.", "it is red"),
    ("It is red. ", "it is red"), ("It is red .", "it is red"), ("2.5", "2.5"), ("Wait...", "wait.."), ("", ""), (".", ""),
    ("STRASSE", "strasse"), ("Straße", "strasse"), ("really?", "really?"), ("a\u00a0b", "a b")])
def test_normalise(text, expected):
    assert normalise(text) == expected


@given(text=st.text(st.characters(exclude_characters=".", exclude_categories=["Cs"])))
def test_exact_match_ignores_spacing_and_a_final_stop(text):
    assert exact_match(text, text)
    assert exact_match(f"  {text}\n", text)
    assert exact_match(f"{text}.", text)


@pytest.mark.parametrize(("answer", "expected"), [
    ("red", "green"), ("", "red"), ("the red", "red"), ("red!", "red"), ("re d", "red"), ("2, 5, 9", "2, 9, 5"),
    ("r\u00e9", "re")])
def test_other_answers_do_not_match(answer, expected):
    assert not exact_match(answer, expected) and not exact_match(expected, answer)


def test_rouge_l_by_hand():
    # Longest common subsequence: the cat the mat, 4 words. Precision 4/5, recall 4/6.
    f1 = 2 * (4 / 5) * (4 / 6) / (4 / 5 + 4 / 6)
    assert rouge_l("the cat on the mat", "The cat sat, under the mat!") == pytest.approx(f1)


@pytest.mark.parametrize(("answer", "expected", "value"), [
    ("a b c", "A, B. C!", 1.0), ("c b a", "a b c", 1 / 3), ("a", "b", 0.0), ("", "a", 0.0), ("a", "", 0.0), ("", "", 0.0),
    ("\u4f60", "\u4f60", 0.0), ("a a a", "a", 0.5), ("a-b", "a b", 1.0)])
def test_rouge_l(answer, expected, value):
    assert rouge_l(answer, expected) == pytest.approx(value)


@pytest.fixture(scope="module")
def peer():
    """ROUGE-L of the rouge-score package."""
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    return lambda answer, expected: scorer.score(expected, answer)["rougeL"].fmeasure


WORDS = st.lists(st.sampled_from(["the", "The", "cat", "sat", "sat.", "on-a", "9", "\u00e9t\u00e9", "a_b", "--"]), max_size=12)


@settings(deadline=None, max_examples=200)
@given(answer=WORDS.map(" ".join) | st.text(max_size=30), expected=WORDS.map(" ".join) | st.text(max_size=30))
@example(answer="\u0130stanbul \u212a", expected="istanbul k")
def test_rouge_l_equals_the_package(peer, answer, expected):
    assert rouge_l(answer, expected) == pytest.approx(peer(answer, expected), abs=1e-12)


def test_score_gives_means():
    found = score([response("Red.", "red"), response("blue sky", "blue sea", stopped=False), response("", "green"),
                   response("x y", "X Y.")])
    assert found == {"exact_match": 0.5, "rouge_l": pytest.approx((1 + 0.5 + 0 + 1) / 4), "stopped": 0.75, "families": None}


def test_score_by_family():
    found = score([response("1", "1", family="sums"), response("2", "1", family="sums"), response("a", "a", family="letters"),
                   response("b", "a")])
    assert found["families"] == {"letters": 1.0, "sums": 0.5}
    assert list(found["families"]) == ["letters", "sums"]
    assert found["exact_match"] == 0.5


@settings(max_examples=50)
@given(rows=st.lists(st.tuples(st.sampled_from(["a", "b", ""]), st.sampled_from(["a", "b", "a b"]), st.booleans(),
                               st.sampled_from("fgh")), min_size=1, max_size=10))
def test_scores_are_shares(rows):
    responses = [response(answer, output, stopped, family=family) for answer, output, stopped, family in rows]
    found = score(responses)
    assert all(0 <= found[name] <= 1 for name in ("exact_match", "rouge_l", "stopped"))
    weights = {family: sum(row[3] == family for row in rows) for family in found["families"]}
    assert found["exact_match"] == pytest.approx(sum(found["families"][f] * n for f, n in weights.items()) / len(rows))
