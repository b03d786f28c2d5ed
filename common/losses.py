"""What a target is, and the loss on targets.

A batch is two tensors [B, T]: the inputs, and for each position the token that should come next, or
IGNORE_INDEX where nothing is to be learnt.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from common.fast.cache import KVCache
from common.fast.views import places, run, take
from common.gpt2 import GPT2
from common.support import distributed
from common.support.console import Progress
from common.support.device import evaluating, send

if TYPE_CHECKING:
    from common.training import Dataset

IGNORE_INDEX = -100  # the target of a position that is not in the loss; cross_entropy's own default

# (model, batch) -> the sum over all targets, and their number
Loss = Callable[[GPT2, Any], tuple[Tensor, int]]


def up_to_last_target(targets: Tensor) -> Tensor:
    """The positions that a loss needs: in each row those up to the last target. None of them sees
    what comes after.

    int64 [B, T] -> bool [B, T].
    """
    from_the_right = (targets != IGNORE_INDEX).flip(1).cumsum(dim=1).flip(1)  # targets from here on
    return from_the_right > 0


def states_for(model: GPT2, inputs: Tensor, targets: Tensor,
               cache: KVCache | None = None) -> Tensor:
    """Hidden states for predicting the targets: float [B, T, D], zeros after the last target of
    each row.

    inputs, targets: int64 [B, T]; targets[b, t] is the token after inputs[b, t], or IGNORE_INDEX.
    cache: holds what comes before the inputs.
    """
    # As model.hidden_states(inputs), without computing what stands after the last targets.
    return run(model, send(inputs, model.device), cache, needed=up_to_last_target(targets))


def head_logits(model: GPT2, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Run the head only where there is a target: logits float32 [N, V] and the N targets, int64,
    where the model is.

    With a vocabulary of 50,257 the head is a third of `gpt2`'s work, and its output the largest
    tensor of all; prompts and padding need neither.

    Args:
        hidden: float [B, T, D], from `model.hidden_states`.
        targets: int64 [B, T], on the CPU or where the model is; IGNORE_INDEX where there is none.
    """
    # As hidden[chosen], without waiting for a GPU: [N], the place of each target in the flat batch.
    chosen = places(targets != IGNORE_INDEX, hidden.device)
    return model.logits(take(hidden, chosen)).float(), take(send(targets, hidden.device), chosen)


def head_loss(model: GPT2, hidden: Tensor, targets: Tensor,
              label_smoothing: float = 0.0) -> tuple[Tensor, int]:
    """Cross-entropy, -log p(target), summed over all targets, from hidden states.

    Args:
        hidden, targets: as for `head_logits`.
        label_smoothing: share ε of each target, 0 to 1, that is spread evenly over the whole
            vocabulary (Szegedy et al., 2016).

    Returns:
        The sum (a scalar, in nats) and the number of targets. Callers divide sums by counts only
        after adding up everything that belongs together, so short batches weigh no more than long
        ones.
    """
    logits, wanted = head_logits(model, hidden, targets)  # [N, V], [N]
    loss = F.cross_entropy(logits, wanted, reduction="sum", label_smoothing=label_smoothing)
    return loss, len(wanted)


def next_token_loss(model: GPT2, batch: tuple[Tensor, Tensor],
                    label_smoothing: float = 0.0) -> tuple[Tensor, int]:
    """The loss of plain training, for a batch of inputs and targets, int64 [B, T] each, as
    `collate` makes them."""
    inputs, targets = batch
    return head_loss(model, states_for(model, inputs, targets), targets, label_smoothing)


def evaluate(model: GPT2, data: "Dataset", loss: Loss, batch_size: int, precision: str) -> float:
    """Mean loss per target over all of `data`, in nats. Every target weighs the same; no random
    number is drawn."""
    total, targets = 0.0, 0.0
    batches = [data.items[i:i + batch_size] for i in range(0, len(data), batch_size)]
    with Progress("evaluating", len(data), "text") as progress, evaluating(model, precision):
        for items in distributed.my_share(batches):
            part, count = loss(model, data.collate(list(items)))
            total, targets = total + part.item(), targets + count
            progress.advance(len(items) * distributed.world_size())
    total, targets = distributed.add_up(total, targets)
    return total / max(targets, 1)
