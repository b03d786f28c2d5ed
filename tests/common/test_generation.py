import torch

from common.generation import next_tokens, stream
from tests.conftest import EOT


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


def test_a_stream_is_the_plain_continuation_token_by_token(stopping_model):
    for prompt in ([n, n + 1, 7] * (1 + n % 10) for n in range(0, 60, 3)):
        assert list(stream(stopping_model, prompt, 12, EOT)) == plain_greedy(stopping_model, prompt, 12)[0]


def test_a_sampled_stream_draws_from_the_plain_model(stopping_model):
    """The same seed and the same probabilities, read from the whole text each time, give the same tokens."""
    def plain(prompt: list[int], generator: torch.Generator) -> list[int]:
        ids = list(prompt)
        while len(ids) < min(32, len(prompt) + 12):
            with torch.no_grad():
                token = next_tokens(stopping_model(torch.tensor([ids]))[:, -1], 1.5, 50, generator).item()
            if token == EOT:
                break
            ids.append(token)
        return ids[len(prompt):]

    for prompt in ([n, n + 1, 7] * (1 + n % 10) for n in range(0, 60, 3)):
        streamed = stream(stopping_model, prompt, 12, EOT, 1.5, 50, torch.Generator().manual_seed(3))
        assert list(streamed) == plain(prompt, torch.Generator().manual_seed(3))


def test_a_stream_can_be_left_before_its_end(stopping_model):
    tokens = stream(stopping_model, [1, 2], 12, EOT)
    first = next(tokens)
    tokens.close()
    assert first == plain_greedy(stopping_model, [1, 2], 12)[0][0]
    assert not torch.is_inference_mode_enabled()
