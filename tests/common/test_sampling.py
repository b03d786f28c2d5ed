"""Choosing the next token: by hand, and equal to what transformers does."""

import pytest
import torch

from common.sampling import GREEDY, Sampling, banned_tokens, discourage_repetition, keep_likely, next_tokens

TEXT = [5, 6, 7, 5, 6, 8, 5, 6]


def test_greedy_takes_the_largest_logit():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 1.0, 0.0]])
    assert next_tokens(logits).tolist() == [1, 0] and not GREEDY.looks_back


def test_what_would_repeat_an_n_gram_by_hand():
    assert sorted(banned_tokens(TEXT, 3)) == [7, 8]  # after 5 6 came 7, then 8
    assert sorted(banned_tokens(TEXT, 2)) == [7, 8] and sorted(set(banned_tokens(TEXT, 1))) == [5, 6, 7, 8]
    assert banned_tokens(TEXT, 4) == banned_tokens([1], 3) == banned_tokens(TEXT, None) == []


def test_the_penalty_makes_seen_tokens_less_likely_by_hand():
    logits = torch.tensor([[3.0, -1.0, 2.0, -2.0]])
    assert discourage_repetition(logits, Sampling(repetition_penalty=2.0), [[0, 0, 1]]).tolist() == [[1.5, -2.0, 2.0, -2.0]]
    assert logits.tolist() == [[3.0, -1.0, 2.0, -2.0]]  # what was given stays


def test_of_equal_logits_no_more_are_kept_than_asked_for():
    logits = torch.tensor([[2.0, 2.0, 2.0, 1.0], [0.0, 3.0, 2.0, 2.0]])
    assert (keep_likely(logits, 2, 1.0) > -torch.inf).sum(dim=-1).tolist() == [2, 2]


def test_the_nucleus_by_hand():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.08, 0.1, 0.8, 0.02]]).log()
    assert (keep_likely(logits, None, 0.75) > -torch.inf).tolist() == [[True, True, False, False], [False, False, True, False]]
    assert (keep_likely(logits, None, 0.01) > -torch.inf).sum(dim=-1).tolist() == [1, 1]  # one token is always left
    assert (keep_likely(logits, 3, 0.99) > -torch.inf).sum(dim=-1).tolist() == [3, 3]


@pytest.mark.parametrize("how", [
    Sampling(0.7), Sampling(1.3, top_k=5), Sampling(1.0, top_p=0.6), Sampling(0.8, top_k=20, top_p=0.9),
    Sampling(1.0, repetition_penalty=1.7), Sampling(1.0, no_repeat_ngram=2), Sampling(1.0, no_repeat_ngram=1),
    Sampling(0.9, 12, 0.8, 1.2, 3), Sampling(1.0, top_p=0.999, repetition_penalty=0.5)])
def test_probabilities_are_those_of_transformers(how, monkeypatch):
    """Their processors in their order: penalty, n-grams, temperature, top-k, top-p."""
    theirs = pytest.importorskip("transformers.generation.logits_process")
    torch.manual_seed(0)
    logits = 3 * torch.randn(6, 40)
    before = torch.randint(0, 9, (6, 30))  # few different tokens, so that n-grams do come twice
    chain = theirs.LogitsProcessorList()
    if how.repetition_penalty != 1:
        chain.append(theirs.RepetitionPenaltyLogitsProcessor(how.repetition_penalty))
    if how.no_repeat_ngram:
        chain.append(theirs.NoRepeatNGramLogitsProcessor(how.no_repeat_ngram))
    chain.append(theirs.TemperatureLogitsWarper(how.temperature))
    if how.top_k:
        chain.append(theirs.TopKLogitsWarper(how.top_k))
    if how.top_p < 1:
        chain.append(theirs.TopPLogitsWarper(how.top_p))
    expected = chain(before, logits.clone()).softmax(dim=-1)

    given = []
    monkeypatch.setattr(torch, "multinomial", lambda p, n, generator: given.append(p) or p.argmax(dim=-1, keepdim=True))
    chosen = next_tokens(logits, how, before.tolist())
    torch.testing.assert_close(given[0], expected)
    assert chosen.tolist() == expected.argmax(dim=-1).tolist()
    assert not torch.allclose(expected, logits.softmax(dim=-1))  # each of them does change something


def test_greedy_choice_looks_back_too():
    logits = torch.zeros(2, 10)
    logits[:, 7], logits[:, 8], logits[:, 9] = 3.0, 2.0, 1.0
    free = [1, 2, 3]
    assert next_tokens(logits, Sampling(no_repeat_ngram=3), [TEXT, free]).tolist() == [9, 7]
    assert next_tokens(logits, Sampling(repetition_penalty=2.0), [[7], free]).tolist() == [8, 7]


def test_draws_follow_the_probabilities_and_the_generator():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(20_000, 3)
    draws = [next_tokens(logits, Sampling(1.0), generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws)
    shares = torch.bincount(draws[0], minlength=3) / len(logits)
    assert shares.tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.02)
    assert set(next_tokens(logits, Sampling(1.0, top_k=2)).tolist()) == {0, 1}
