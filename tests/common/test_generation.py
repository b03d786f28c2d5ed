import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common import generation
from common.generation import continue_all, continue_batch, next_tokens, stream
from tests.conftest import make_model

EOT = 256


def plain_greedy(model, prompt: list[int], max_new_tokens: int) -> tuple[list[int], bool]:
    """One prompt, no cache, no batch: the definition."""
    ids = list(prompt)
    while len(ids) - len(prompt) < max_new_tokens and len(ids) < model.config.n_positions:
        with torch.no_grad():
            token = model(torch.tensor([ids]))[0, -1].argmax().item()
        if token == EOT:
            return ids[len(prompt):], True
        ids.append(token)
    return ids[len(prompt):], False


@pytest.fixture(scope="module")
def stopping_model():
    """A random model that sometimes stops: end-of-text gets a larger embedding, so its logit varies more."""
    model = make_model(n_positions=32)
    with torch.no_grad():
        model.wte.weight[EOT] *= 2.5
    return model


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=31), min_size=1, max_size=6))
def test_batched_equals_one_by_one(stopping_model, prompts):
    together = continue_all(stopping_model, prompts, 12, EOT, batch_size=4)
    assert [tuple(c) for c in together] == [plain_greedy(stopping_model, prompt, 12) for prompt in prompts]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.integers(1, 5), st.integers(1, 12))
def test_waiting_prompts_take_the_places_of_ended_ones(stopping_model, lengths, batch_size, max_new_tokens):
    """Many more prompts than places, in kinds that begin alike or not, and a cache so short that old columns are dropped."""
    beginnings = ([], [3, 4, 5], [3, 4, 6, 8, 1]) if len(lengths) % 2 else ([2, 2],)
    prompts = [beginnings[i % len(beginnings)] + [(7 * i + j) % 251 for j in range(length)] for i, length in enumerate(lengths)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "ROOM", 1)
        relayed = continue_all(stopping_model, prompts, max_new_tokens, EOT, batch_size)
    assert [tuple(c) for c in relayed] == [plain_greedy(stopping_model, prompt, max_new_tokens) for prompt in prompts]


def test_some_rows_stop_and_some_run_into_the_limit(stopping_model):
    """The property above would say little if all answers ended alike."""
    prompts = [[n, n + 1, 7] for n in range(0, 120, 3)]
    answers = continue_all(stopping_model, prompts, 12, EOT)
    assert {c.stopped for c in answers} == {True, False}
    assert len({len(c.ids) for c in answers}) > 2


@pytest.mark.parametrize("way", [continue_batch, continue_all])
def test_memory_is_for_what_fits_into_the_context(way, stopping_model, monkeypatch):
    taken = []
    made = generation.BatchCache.__init__
    monkeypatch.setattr(generation.BatchCache, "__init__", lambda self, length: taken.append(length) or made(self, length))
    prompts = [[0, 1], [3] * 30, [4, 5, 6, 7]]  # the shortest may get 30 tokens, behind padding as long as the longest
    unlimited = way(stopping_model, prompts, 10**9, EOT)
    assert [tuple(c) for c in unlimited] == [plain_greedy(stopping_model, prompt, 10**9) for prompt in prompts]
    assert len(unlimited[0].ids) == 30 and taken == [60 if way is continue_batch else 32 + generation.ROOM]


def test_a_prompt_that_fills_the_context_is_refused(stopping_model):
    with pytest.raises(ValueError, match="32 tokens leaves no room"):
        continue_all(stopping_model, [[1] * 32], 4, EOT)


def test_greedy_takes_the_largest_logit():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 1.0, 0.0]])
    assert next_tokens(logits, 0, None, None).tolist() == [1, 0]


def test_sampling_follows_temperature_and_top_k():
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0]).expand(20_000, 4)
    generator = torch.Generator().manual_seed(0)
    for temperature, top_k in ((1.0, None), (0.5, None), (2.0, 2)):
        expected = logits[0] / temperature
        if top_k:
            expected = expected.masked_fill(expected < expected.topk(top_k).values[-1], -torch.inf)
        drawn = next_tokens(logits, temperature, top_k, generator).bincount(minlength=4) / len(logits)
        torch.testing.assert_close(drawn, expected.softmax(0), atol=0.015, rtol=0)


def test_sampling_depends_on_the_seed_alone(stopping_model):
    def sample(seed: int):
        return continue_batch(stopping_model, [[1, 2], [3]], 8, EOT, 1.0, 20, torch.Generator().manual_seed(seed))

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_stream_is_the_continuation_token_by_token(stopping_model, temperature):
    for prompt in ([n, n + 1, 7] * (1 + n % 10) for n in range(0, 60, 3)):
        ways = []
        for way in (stream, lambda model, prompt, *rest: continue_batch(model, [prompt], *rest)[0].ids):
            ways.append(list(way(stopping_model, prompt, 12, EOT, temperature, 50, torch.Generator().manual_seed(3))))
        assert ways[0] == ways[1]


def test_a_stream_can_be_left_before_its_end(stopping_model):
    tokens = stream(stopping_model, [1, 2], 12, EOT)
    first = next(tokens)
    tokens.close()
    assert first == continue_all(stopping_model, [[1, 2]], 12, EOT)[0].ids[0]
    assert not torch.is_inference_mode_enabled()
