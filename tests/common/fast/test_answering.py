from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.fast import answering
from common.fast.answering import continue_all, text_generator, texts_at_once
from common.generation import stream
from common.gpt2 import GPT2Config
from common.sampling import Sampling
from tests.common.test_generation import plain_greedy
from tests.models import EOT


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=31), min_size=1, max_size=6))
def test_batched_equals_one_by_one(stopping_model, prompts):
    together = continue_all(stopping_model, prompts, 12, EOT, batch_size=4)
    assert [tuple(c) for c in together] == [plain_greedy(stopping_model, prompt, 12) for prompt in prompts]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.integers(1, 5), st.integers(1, 12))
def test_waiting_prompts_take_the_places_of_ended_ones(stopping_model, lengths, batch_size, max_new_tokens):
    """Many more prompts than places, in kinds that begin alike or not, and a cache so short that old columns are dropped."""
    beginnings = ([], [3, 4, 5], [3, 4, 6, 8, 1]) if len(lengths) % 2 else ([2, 2],)
    prompts = [beginnings[i % len(beginnings)] + [(7 * i + j) % 251 for j in range(length)] for i, length in enumerate(lengths)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answering, "ROOM", 1)
        relayed = continue_all(stopping_model, prompts, max_new_tokens, EOT, batch_size)
    assert [tuple(c) for c in relayed] == [plain_greedy(stopping_model, prompt, max_new_tokens) for prompt in prompts]


def test_some_rows_stop_and_some_run_into_the_limit(stopping_model):
    """The property above would say little if all answers ended alike."""
    prompts = [[n, n + 1, 7] for n in range(0, 120, 3)]
    answers = continue_all(stopping_model, prompts, 12, EOT)
    assert {c.stopped for c in answers} == {True, False}
    assert len({len(c.ids) for c in answers}) > 2


@pytest.mark.slow
def test_memory_is_for_what_fits_into_the_context(stopping_model, monkeypatch):
    taken = []
    made = answering.BatchCache.__init__
    monkeypatch.setattr(answering.BatchCache, "__init__", lambda self, length: taken.append(length) or made(self, length))
    prompts = [[0, 1], [3] * 30, [4, 5, 6, 7]]  # the shortest may get 30 tokens, behind padding as long as the longest
    unlimited = continue_all(stopping_model, prompts, 10**9, EOT)
    assert [tuple(c) for c in unlimited] == [plain_greedy(stopping_model, prompt, 10**9) for prompt in prompts]
    assert len(unlimited[0].ids) == 30 and taken == [32 + answering.ROOM]


def test_many_texts_at_once_where_their_cache_is_small():
    prompts = [[1] * 40] * 100
    small, large = (SimpleNamespace(config=config) for config in (GPT2Config(n_layer=4, n_embd=256, n_head=4), GPT2Config()))
    assert texts_at_once(small, prompts, 128) == texts_at_once(large, prompts, 64) == 64
    assert texts_at_once(large, prompts, 10**9) == 32  # 64 x 1,088 x 24 x 768 x 4 bytes are 5 GB
    assert texts_at_once(small, [], 10**9) == 64


def test_a_prompt_that_fills_the_context_is_refused(stopping_model):
    with pytest.raises(ValueError, match="32 tokens leaves no room"):
        continue_all(stopping_model, [[1] * 32], 4, EOT)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("how", [Sampling(1.3, 50), Sampling(1.3, None, 0.8, 1.2, 2)])
def test_a_sampled_text_depends_on_the_seed_and_its_number_alone(stopping_model, batch_size, how):
    prompts = [[n, n + 1, 7] * (1 + n % 4) for n in range(8)]
    together = continue_all(stopping_model, prompts, 9, EOT, batch_size, "", how, seed=3)
    alone = [list(stream(stopping_model, prompt, 9, EOT, how, text_generator(stopping_model, 3, i)))
             for i, prompt in enumerate(prompts)]
    assert [text.ids for text in together] == alone
    assert together != continue_all(stopping_model, prompts, 9, EOT, batch_size, "", how, seed=4)


@pytest.mark.slow
def test_greedy_texts_without_repeated_n_grams_are_those_of_the_plain_decoder(stopping_model):
    how, prompts = Sampling(no_repeat_ngram=1), [[n, n + 1, 7] * (1 + n % 4) for n in range(8)]
    together = [text.ids for text in continue_all(stopping_model, prompts, 12, EOT, 3, how=how)]
    assert together == [list(stream(stopping_model, prompt, 12, EOT, how)) for prompt in prompts]
    assert together != [text.ids for text in continue_all(stopping_model, prompts, 12, EOT, 3)]
    assert all(len({*prompt, *new}) == len({*prompt}) + len(new) for prompt, new in zip(prompts, together))


@pytest.mark.slow
def test_an_id_without_a_token_is_never_said(stopping_model):
    """Rows by which a checkpoint pads its vocabulary, here those that are said otherwise."""
    def said() -> set[int]:
        sampled = continue_all(stopping_model, [[5, 6]] * 6, 8, EOT, 4, how=Sampling(2.0))
        greedy = continue_all(stopping_model, [[5, 6], [7]], 8, EOT)
        streamed = stream(stopping_model, [5, 6], 8, EOT)
        return {*streamed} | {token for text in sampled + greedy for token in text.ids}

    unused = said()
    stopping_model.register_buffer("without_token", torch.tensor([i in unused for i in range(257)]), persistent=False)
    try:
        assert len(unused) > 9 and not unused & said()
    finally:
        del stopping_model.without_token


def test_equal_prompts_are_sampled_apart(stopping_model):
    texts = continue_all(stopping_model, [[5, 6]] * 6, 8, EOT, 4, "", Sampling(2.0))
    assert len({tuple(text.ids) for text in texts}) > 3
