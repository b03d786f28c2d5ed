"""What must hold of the mixup loss, whatever the model."""

import math

import pytest
import torch
import torch.nn.functional as F

from ch_instruct.collate import collate
from ch_instruct.encoding import Example
from ch_sftmix.mixup import PairDataset, mixup_loss, sftmix_loss, sftmix_terms, shared_positions
from common.losses import IGNORE_INDEX, head_loss, next_token_loss
from common.training import TrainOptions, accumulate_gradients, fit
from tests.common.test_training import dataset, ragged_examples
from tests.models import make_model

SURE = [Example([1, 2, 3, 10, 11, 256], 3), Example([4, 5, 20, 21, 22, 23, 256], 2)]  # responses of 3 and 5 tokens
UNSURE = [Example([6, 7, 30, 31, 32, 33, 34, 256], 2), Example([8, 9, 12, 40, 256], 3)]  # of 6 and 2
SHARED = [3, 2]  # the shorter response of each pair


def halves(model) -> tuple[torch.Tensor, ...]:
    """hidden_c, targets_c, hidden_u, targets_u of the pairs above, padded together."""
    inputs, targets = collate(SURE + UNSURE, 256)
    hidden = model.hidden_states(inputs)
    return hidden[:2], targets[:2], hidden[2:], targets[2:]


def cut(targets: torch.Tensor) -> torch.Tensor:
    """Hide the targets beyond the shared span."""
    targets = targets.clone()
    for row, shared in enumerate(SHARED):
        places = (targets[row] != IGNORE_INDEX).nonzero().flatten()
        targets[row, places[shared:]] = IGNORE_INDEX
    return targets


@pytest.mark.parametrize(("lam", "side"), [(1.0, 0), (0.0, 2)])
def test_at_the_ends_it_is_ntp_of_one_example_on_the_shared_span(tiny_model, lam, side):
    parts = halves(tiny_model)
    mixed, count = mixup_loss(tiny_model, *parts, torch.full((2,), lam))
    plain, plain_count = head_loss(tiny_model, parts[side], cut(parts[side + 1]))
    torch.testing.assert_close(mixed, plain)
    assert count == plain_count == sum(SHARED)


def test_it_equals_the_dense_one_hot_formula(tiny_model):
    hidden_c, targets_c, hidden_u, targets_u = halves(tiny_model)
    lam = torch.tensor([0.3, 0.85])
    expected = 0.0
    for pair, shared in enumerate(SHARED):
        at_c, at_u = ((t[pair] != IGNORE_INDEX).nonzero().flatten() for t in (targets_c, targets_u))
        for n in range(shared):
            z = lam[pair] * hidden_c[pair, at_c[n]] + (1 - lam[pair]) * hidden_u[pair, at_u[n]]
            y = (lam[pair] * F.one_hot(targets_c[pair, at_c[n]], 257)
                 + (1 - lam[pair]) * F.one_hot(targets_u[pair, at_u[n]], 257))
            expected = expected - (y * tiny_model.logits(z).log_softmax(-1)).sum()
    mixed, _ = mixup_loss(tiny_model, hidden_c, targets_c, hidden_u, targets_u, lam)
    torch.testing.assert_close(mixed, expected)


def test_swapping_the_sides_and_lambda_changes_nothing(tiny_model):
    hidden_c, targets_c, hidden_u, targets_u = halves(tiny_model)
    lam = torch.tensor([0.25, 0.6])
    one, _ = mixup_loss(tiny_model, hidden_c, targets_c, hidden_u, targets_u, lam)
    other, _ = mixup_loss(tiny_model, hidden_u, targets_u, hidden_c, targets_c, 1 - lam)
    torch.testing.assert_close(one, other)


def test_a_value_worked_by_hand():
    """Width 2, vocabulary 3 with embeddings (1,0), (0,1), (0,0).

    z_c = (2, 0) asks for token 0, z_u = (0, 1) for token 1, λ = 1/2: z̃ = (1, 1/2), logits 1, 1/2, 0. With
    Z = e + √e + 1, the loss is -(1/2)(1 - log Z) - (1/2)(1/2 - log Z) = log Z - 3/4.
    """
    model = make_model(vocab_size=3, n_embd=2, n_head=1)
    with torch.no_grad():
        model.wte.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    z_c, z_u = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    loss, count = mixup_loss(model, z_c, torch.tensor([[0]]), z_u, torch.tensor([[1]]), torch.tensor([0.5]))
    assert count == 1
    assert loss.item() == pytest.approx(math.log(math.e + math.sqrt(math.e) + 1) - 0.75)


def test_shared_positions_end_with_the_shorter_response():
    hidden = torch.arange(2 * 4.0).view(2, 4, 1)  # each state is its own number
    targets_c = torch.tensor([[IGNORE_INDEX, 10, 11, 12], [IGNORE_INDEX, IGNORE_INDEX, 13, IGNORE_INDEX]])
    targets_u = torch.tensor([[20, 21, IGNORE_INDEX, IGNORE_INDEX], [22, 23, 24, IGNORE_INDEX]])
    z_c, y_c, z_u, y_u, pair = shared_positions(hidden, targets_c, -hidden, targets_u)
    assert z_c.flatten().tolist() == [1, 2, 6] and y_c.tolist() == [10, 11, 13]
    assert z_u.flatten().tolist() == [0, -1, -4] and y_u.tolist() == [20, 21, 22]
    assert pair.tolist() == [0, 0, 1]


def test_positions_outside_the_shared_span_get_no_gradient(tiny_model):
    hidden_c, targets_c, hidden_u, targets_u = (p.detach().requires_grad_(p.is_floating_point()) for p in halves(tiny_model))
    mixup_loss(tiny_model, hidden_c, targets_c, hidden_u, targets_u, torch.tensor([0.4, 0.7]))[0].backward()
    for hidden, targets in ((hidden_c, targets_c), (hidden_u, targets_u)):
        touched = hidden.grad.abs().sum(-1) > 0
        assert torch.equal(touched, cut(targets) != IGNORE_INDEX)


def test_mixing_after_the_last_layernorm_is_mixing_logits_and_before_it_is_not(tiny_model):
    x, y = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0)) * 3
    lam = 0.3
    logits = [tiny_model.logits(tiny_model.ln_f(z)) for z in (x, y)]
    of_mixed_logits = lam * logits[0] + (1 - lam) * logits[1]
    after = tiny_model.logits(lam * tiny_model.ln_f(x) + (1 - lam) * tiny_model.ln_f(y))
    before = tiny_model.logits(tiny_model.ln_f(lam * x + (1 - lam) * y))
    torch.testing.assert_close(after, of_mixed_logits, atol=1e-4, rtol=1e-4)
    assert (before - of_mixed_logits).abs().max() > 0.1


def test_it_is_not_a_reweighted_ntp_loss(tiny_model):
    parts = halves(tiny_model)
    lam = torch.tensor([0.5, 0.5])
    mixed, _ = mixup_loss(tiny_model, *parts, lam)
    of_c, _ = head_loss(tiny_model, parts[0], cut(parts[1]))
    of_u, _ = head_loss(tiny_model, parts[2], cut(parts[3]))
    assert abs(mixed - (0.5 * of_c + 0.5 * of_u)) > 0.1


@pytest.mark.slow
def test_mu_zero_trains_bit_for_bit_like_plain_fine_tuning_on_the_same_batches(tokenizer, tmp_path):
    examples = ragged_examples(12)

    class PlainOnPairs(PairDataset):
        """The same rows in the same order, as plain batches."""

        def collate_pairs(self, pairs):
            return super().collate_pairs(pairs)[:2]

    states = []
    for kind, loss in ((PairDataset, sftmix_loss), (PlainOnPairs, next_token_loss)):
        data = kind(examples, ([*range(0, 12, 2)], [*range(1, 12, 2)]), 256, "response", alpha=0.5, mu=0.0, seed=4)
        model = make_model()
        fit(model, tokenizer, data, dataset(3, 1), loss, TrainOptions(3, 2, 1, 1e-2, "fp32"), tmp_path / kind.__name__)
        states.append(model.state_dict())
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def pair_data(n: int = 9, mu: float = 0.2, loss_on: str = "response", alpha: float = 0.5) -> PairDataset:
    half = (n + 1) // 2
    return PairDataset(ragged_examples(n), ([*range(half)], [*range(half, n)]), 256, loss_on, alpha, mu, seed=0)


@pytest.mark.parametrize("loss_on", ["response", "all"])
@pytest.mark.parametrize(("batch_size", "accumulate"), [(2, 2), (1, 4), (3, 2)])
def test_gradients_do_not_depend_on_how_a_step_is_cut(tiny_model, loss_on, batch_size, accumulate):
    data = pair_data(8, loss_on=loss_on)
    gradients = []
    for options in (TrainOptions(1, 4, 1, 1e-3, "fp32"), TrainOptions(1, batch_size, accumulate, 1e-3, "fp32")):
        tiny_model.zero_grad()
        _, targets = accumulate_gradients(tiny_model, data, sftmix_loss, data.items, options)
        gradients.append([p.grad / targets for p in tiny_model.parameters()])
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_over_an_epoch_the_objective_is_mean_ntp_plus_mu_times_mean_mixup(tiny_model):
    data = pair_data(8, mu=0.7, loss_on="all")
    with torch.no_grad():
        total, count = sftmix_loss(tiny_model, data.collate(data.items))
        terms = sftmix_terms(tiny_model, data.collate(data.items))
        inputs, targets, responses, lam, _ = data.collate(data.items)
        hidden = tiny_model.hidden_states(inputs)
        ntp, ntp_count = head_loss(tiny_model, hidden, targets)
        mixed, mixed_count = mixup_loss(tiny_model, hidden[:4], responses[:4], hidden[4:], responses[4:], lam)
    torch.testing.assert_close(terms[0], ntp)
    assert terms[0] + terms[1] == total and terms[2] == count == ntp_count
    torch.testing.assert_close(total / count, ntp / ntp_count + 0.7 * mixed / mixed_count)


@pytest.mark.parametrize("n", [8, 9])
def test_an_epoch_sees_every_example_in_pairs_across_the_halves(n):
    data = pair_data(n)
    sure, unsure = data.examples[:(n + 1) // 2], data.examples[(n + 1) // 2:]
    for epoch in range(3):
        pairs = data.order(epoch)
        assert sorted(p.confident for p in pairs) == sorted(sure)
        assert sorted(set(map(str, (p.unconfident for p in pairs)))) == sorted(map(str, unsure))
        assert pairs == data.order(epoch) != data.order(epoch + 1)


@pytest.mark.slow
def test_lambda_follows_the_beta_distribution():
    """Beta(α, α) has mean 1/2 and variance 1 / (4 (2α + 1))."""
    for alpha in (0.5, 4.0):
        data = pair_data(8, alpha=alpha)
        lams = torch.tensor([pair.lam for epoch in range(2000) for pair in data.order(epoch)])
        assert lams.mean().item() == pytest.approx(0.5, abs=0.02)
        assert lams.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


def test_responses_of_conversations_are_mixed_position_by_position(tiny_model):
    """The turns of a conversation are lined up as if they followed each other without the prompts between."""
    talk = Example([1, 2, 10, 256, 3, 11, 12, 256], 2, ((2, 4), (5, 8)))
    plain = UNSURE[0]
    inputs, targets = collate([talk, plain], 256)
    hidden = tiny_model.hidden_states(inputs)
    lam = torch.tensor([0.3])
    mixed, count = mixup_loss(tiny_model, hidden[:1], targets[:1], hidden[1:], targets[1:], lam)
    places = torch.tensor([1, 2, 4, 5, 6])  # where 10, end-of-text, 11, 12 and end-of-text are asked for
    expected, _ = mixup_loss(tiny_model, hidden[:1, places], targets[:1, places], hidden[1:], targets[1:], lam)
    assert count == talk.response_tokens == 5
    torch.testing.assert_close(mixed, expected)

    data = PairDataset([talk, plain], ([0], [1]), 256, "response", alpha=0.5, mu=0.7, seed=0)
    assert data.items[0].scale == pytest.approx(0.7 * (5 + 6) / 5)
