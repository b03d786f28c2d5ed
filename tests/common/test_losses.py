import torch
import torch.nn.functional as F

from common.losses import IGNORE_INDEX, head_loss, next_token_loss
from tests.models import make_model


def ragged_batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randint(0, 257, (4, 11), generator=generator)
    targets = torch.randint(0, 257, (4, 11), generator=generator)
    for row, (start, end) in enumerate([(0, 11), (3, 6), (10, 11), (5, 9)]):
        targets[row, :start] = IGNORE_INDEX
        targets[row, end:] = IGNORE_INDEX
    return inputs, targets


def test_what_is_ignored_is_no_token_and_what_cross_entropy_ignores_by_itself():
    assert IGNORE_INDEX == torch.nn.CrossEntropyLoss().ignore_index < 0


def test_head_at_targets_only_equals_the_full_computation(tiny_model):
    inputs, targets = ragged_batch()
    total, count = next_token_loss(tiny_model, (inputs, targets))
    total.backward()
    sparse = [p.grad.clone() for p in tiny_model.parameters()]

    tiny_model.zero_grad()
    full = F.cross_entropy(tiny_model(inputs).flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum")
    full.backward()
    torch.testing.assert_close(total, full)
    assert count == (targets != IGNORE_INDEX).sum() == 19
    for mine, p in zip(sparse, tiny_model.parameters()):
        torch.testing.assert_close(mine, p.grad, atol=1e-5, rtol=1e-5)


def test_a_batch_without_targets_has_loss_zero_and_no_nan(tiny_model):
    inputs, targets = ragged_batch()
    total, count = next_token_loss(tiny_model, (inputs, torch.full_like(targets, IGNORE_INDEX)))
    total.backward()
    assert (total.item(), count) == (0.0, 0)
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in tiny_model.parameters())


def test_a_hand_worked_value():
    """Three classes with probabilities 1/2, 1/4, 1/4: -log(1/2) - log(1/4) = 3 log 2."""
    model = make_model(vocab_size=3, n_embd=4, n_head=1)
    with torch.no_grad():
        model.wte.weight.zero_()
        model.wte.weight[0, 0] = torch.log(torch.tensor(2.0))
    hidden = torch.zeros(1, 2, 4)
    hidden[..., 0] = 1.0  # logits log 2, 0, 0
    total, count = head_loss(model, hidden, torch.tensor([[0, 2]]))
    torch.testing.assert_close(total.item() / 0.6931471805599453, 3.0)
    assert count == 2


def test_label_smoothing_by_hand():
    """Probabilities 1/2, 1/4, 1/4 and ε = 0.3, so 0.1 for each class. In units of log 2 the classes lose 1, 2, 2, together 5.

    For target 0: 0.7 · 1 + 0.1 · 5 = 1.2; for target 2: 0.7 · 2 + 0.1 · 5 = 1.9.
    """
    model = make_model(vocab_size=3, n_embd=4, n_head=1)
    with torch.no_grad():
        model.wte.weight.zero_()
        model.wte.weight[0, 0] = torch.log(torch.tensor(2.0))
    hidden = torch.tensor([[[1.0, 0, 0, 0]] * 3])
    total, count = head_loss(model, hidden, torch.tensor([[0, IGNORE_INDEX, 2]]), label_smoothing=0.3)
    torch.testing.assert_close(total.item() / 0.6931471805599453, 3.1)
    assert count == 2
