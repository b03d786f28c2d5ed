"""What a target is, and the loss on targets."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from common.gpt2 import GPT2
from common.support.device import send

IGNORE_INDEX = -100  # the target of a position that is not in the loss; cross_entropy's own default

# (model, batch) -> the sum over all targets, and their number. A method that adds something to the plain loss gives two sums,
# a tensor [2]: that of the plain loss, and what is added.
Loss = Callable[[GPT2, Any], tuple[Tensor, int]]


def take(x: Tensor, chosen: Tensor) -> Tensor:
    """The rows of x [B, T, ...] at the positions where `chosen`, bool [B, T], is true: [N, ...], in order.

    With `chosen` on the CPU, where batches are made, a GPU need not be waited for to learn how many there are.
    """
    return x.flatten(0, 1).index_select(0, send(chosen.flatten().nonzero().squeeze(1), x.device))


def up_to_last_target(targets: Tensor) -> Tensor:
    """Which positions a loss needs: those up to the last target of each row. No earlier one looks at what stands behind.

    int64 [B, T] -> bool [B, T].
    """
    return (targets != IGNORE_INDEX).flip(1).cumsum(dim=1).flip(1) > 0


def head_loss(model: GPT2, hidden: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> tuple[Tensor, int]:
    """Cross-entropy, -log p(target), summed over all targets, from hidden states.

    The head runs only at positions that have a target. With a vocabulary of 50,257 the head is a third of the work,
    and its output the largest tensor of all; prompts and padding need neither.

    Args:
        hidden: float [B, T, D], from `model.hidden_states`.
        targets: int64 [B, T], on the CPU or where the model is; IGNORE_INDEX where there is none.
        label_smoothing: share ε of each target, 0 to 1, that is spread evenly over the whole vocabulary (Szegedy et al., 2016).

    Returns:
        The sum (a scalar, in nats) and the number of targets. Callers divide sums by counts only after adding up
        everything that belongs together, so short batches weigh no more than long ones.
    """
    has_target = targets != IGNORE_INDEX  # [B, T]
    logits = model.logits(take(hidden, has_target)).float()  # [N, V], N positions with a target
    wanted = send(take(targets, has_target), logits.device)  # [N]
    return F.cross_entropy(logits, wanted, reduction="sum", label_smoothing=label_smoothing), logits.size(0)


def next_token_loss(model: GPT2, batch: tuple[Tensor, Tensor], label_smoothing: float = 0.0) -> tuple[Tensor, int]:
    """The loss of plain training: `head_loss` of a batch of inputs and targets, int64 [B, T] each, as `collate` makes them.

    What stands behind a row's last target, padding above all, is not computed.
    """
    inputs, targets = batch
    hidden = model.hidden_states(send(inputs, model.device), needed=up_to_last_target(targets))
    return head_loss(model, hidden, targets, label_smoothing)
