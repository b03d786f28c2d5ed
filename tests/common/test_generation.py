import pytest
import torch

from common.fast.answering import continue_all
from common.generation import stream
from common.sampling import Sampling, next_tokens
from tests.models import EOT, make_model


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


@pytest.mark.slow
def test_a_stream_is_the_plain_continuation_token_by_token(stopping_model):
    for prompt in ([n, n + 1, 7] * (1 + n % 10) for n in range(0, 60, 3)):
        assert list(stream(stopping_model, prompt, 12, EOT)) == plain_greedy(stopping_model, prompt, 12)[0]


def test_an_answer_may_end_as_an_earlier_one_did(monkeypatch):
    """End-of-text in the prompt is no token that should not come again."""
    asked: list = []
    for place in ("common.generation", "common.fast.answering"):
        monkeypatch.setattr(f"{place}.next_tokens", lambda logits, how, before, generator: (
            asked.extend(map(list, before)) or torch.tensor([EOT])))
    how = Sampling(no_repeat_ngram=2)
    assert list(stream(make_model(), [9, EOT, 8, 9], 5, EOT, how)) == []
    [text] = continue_all(make_model(), [[9, EOT, 8, 9]], 5, EOT, how=how)
    assert text.stopped and asked == [[9, 8, 9]] * 2


@pytest.mark.slow
@pytest.mark.parametrize("how", [
    Sampling(1.5, 50), Sampling(1.0, top_p=0.7, repetition_penalty=1.3), Sampling(no_repeat_ngram=2)])
def test_a_sampled_stream_draws_from_the_plain_model(stopping_model, how):
    """The same seed and the same probabilities, read from the whole text each time, give the same tokens."""
    def plain(prompt: list[int], generator: torch.Generator) -> list[int]:
        ids = list(prompt)
        while len(ids) < min(32, len(prompt) + 12):
            with torch.no_grad():
                token = next_tokens(stopping_model(torch.tensor([ids]))[:, -1], how, [ids], generator).item()
            if token == EOT:
                break
            ids.append(token)
        return ids[len(prompt):]

    for prompt in ([n, n + 1, 7] * (1 + n % 10) for n in range(0, 60, 3)):
        streamed = stream(stopping_model, prompt, 12, EOT, how, torch.Generator().manual_seed(3))
        assert list(streamed) == plain(prompt, torch.Generator().manual_seed(3))


def test_a_prompt_that_fills_the_context_is_refused(stopping_model):
    prompt = [1] * stopping_model.config.n_positions
    with pytest.raises(ValueError, match="leaves no room"):
        next(stream(stopping_model, prompt, 3, eot_id=0))
    assert len(list(stream(stopping_model, prompt[1:], 3, eot_id=-1))) == 1


def test_a_stream_can_be_left_before_its_end(stopping_model):
    tokens = stream(stopping_model, [1, 2], 12, EOT)
    first = next(tokens)
    tokens.close()
    assert first == plain_greedy(stopping_model, [1, 2], 12)[0][0]
    assert not torch.is_inference_mode_enabled()
