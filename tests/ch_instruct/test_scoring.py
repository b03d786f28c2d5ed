import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ch_instruct.scoring import exact_match, normalise, rouge_l, score


def response(answer: str, output: str, stopped: bool = True, **more: str) -> dict:
    return {"instruction": "?", "answer": answer, "output": output, "stopped": stopped} | more


@pytest.mark.parametrize(("text", "expected"), [
    ("Paris", "paris"), (" The  capital\n of\tFrance ", "the capital of france"), ("It is red.", "it is red"),
    ("It is red. ", "it is red"), ("It is red .", "it is red"), ("2.5", "2.5"), ("Wait...", "wait.."), ("", ""), (".", "."),
    ("STRASSE", "strasse"), ("Straße", "strasse"), ("really?", "really?"), ("a\u00a0b", "a b")])
def test_normalise(text, expected):
    assert normalise(text) == expected


@pytest.mark.parametrize(("answer", "expected"), [
    ("It\u2019s red", "it's red"), ("cafe\u0301", "caf\u00e9"), ("Москва.", "москва"), ("北京\u3002", "北京"),
    ("दिल्ली\u0964", "दिल्ली"), ("ΟΔΟΣ", "οδος")])
def test_other_ways_to_write_the_same_match(answer, expected):
    assert exact_match(answer, expected)


@pytest.mark.slow
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_it_does_not_matter_how_accents_are_stored(text):
    one, two = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert exact_match(one, two) and rouge_l(one, two) == rouge_l(one, one)


@pytest.mark.slow
@given(text=st.text(st.characters(exclude_characters=".\u3002\u0964\u06d4", exclude_categories=["Cs"])))
def test_exact_match_ignores_spacing_and_a_final_stop(text):
    assert exact_match(text, text)
    assert exact_match(f"  {text}\n", text)
    assert exact_match(f"{text}.", text) == bool(text.strip())  # a full stop alone is an answer


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
    ("a a a", "a", 0.5), ("a-b", "a b", 1.0)])
def test_rouge_l(answer, expected, value):
    assert rouge_l(answer, expected) == pytest.approx(value)


@pytest.mark.parametrize(("answer", "expected", "value"), [
    ("Столица - Москва", "Москва - столица", 1 / 2), ("Москва", "москва", 1.0), ("Нет, 7", "Да, 7", 1 / 2), ("7", "Семь", 0.0),
    ("العاصمة هي القاهرة", "القاهرة هي العاصمة", 1 / 3), ("राजधानी दिल्ली है", "दिल्ली", 1 / 2), ("५ आम", "५", 2 / 3),
    ("Η Αθήνα", "η αθήνα", 1.0), ("서울 입니다", "서울", 2 / 3), ("été chaud", "ete chaud", 1 / 2),
    ("北京是首都", "首都是北京", 2 / 5), ("東京タワー", "東京", 4 / 7), ("กรุงเทพ", "กรุงเทพ", 1.0),
    ("Tokyo 東京", "tokyo東京", 1.0)])
def test_rouge_l_of_other_scripts(answer, expected, value):
    """Words where the script parts them, characters where it does not."""
    assert rouge_l(answer, expected) == pytest.approx(value)


@pytest.fixture(scope="module")
def peer():
    """ROUGE-L of the rouge-score package."""
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    return lambda answer, expected: scorer.score(expected, answer)["rougeL"].fmeasure


WORDS = st.lists(st.sampled_from(["the", "The", "cat", "sat", "sat.", "on-a", "9", "don't", "a_b", "--"]), max_size=12)

ASCII = st.text(st.characters(max_codepoint=127), max_size=30)


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(answer=WORDS.map(" ".join) | ASCII, expected=WORDS.map(" ".join) | ASCII)
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


@pytest.mark.slow
@settings(max_examples=50)
@given(rows=st.lists(st.tuples(st.sampled_from(["a", "b", ""]), st.sampled_from(["a", "b", "a b"]), st.booleans(),
                               st.sampled_from("fgh")), min_size=1, max_size=10))
def test_scores_are_shares(rows):
    responses = [response(answer, output, stopped, family=family) for answer, output, stopped, family in rows]
    found = score(responses)
    assert all(0 <= found[name] <= 1 for name in ("exact_match", "rouge_l", "stopped"))
    weights = {family: sum(row[3] == family for row in rows) for family in found["families"]}
    assert found["exact_match"] == pytest.approx(sum(found["families"][f] * n for f, n in weights.items()) / len(rows))
