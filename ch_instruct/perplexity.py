"""How well a model knows each response."""

import torch
import torch.nn.functional as F
from torch import Tensor

from common.gpt2 import GPT2
from common.losses import IGNORE_INDEX, head_logits, states_for
from common.support import distributed
from common.support.console import Progress
from common.support.device import evaluating
from common.training import Dataset


def response_perplexities(model: GPT2, data: Dataset, batch_size: int, precision: str) -> Tensor:
    """Perp(Y|X) = exp(-mean log p(y_n | x, y_<n)) of each example's targets, the end-of-text token
    among them.

    Args:
        data: items that collate to inputs and targets, with the loss on the response only.

    Returns:
        float64 [examples], each from 1 up. No random number is drawn.
    """
    items = distributed.my_share(data.items)
    found = torch.empty(len(items), dtype=torch.float64)
    # like lengths need little padding
    by_length = sorted(range(len(items)), key=lambda i: data.size(items[i]))
    with Progress("perplexities", len(items), "text") as progress, evaluating(model, precision):
        for start in range(0, len(items), batch_size):
            rows = by_length[start:start + batch_size]
            inputs, targets = data.collate([items[i] for i in rows])
            # [N, V], [N], of the N targets in these rows
            logits, wanted = head_logits(model, states_for(model, inputs, targets), targets)
            losses = F.cross_entropy(logits, wanted, reduction="none").cpu().double()  # [N]
            counts = (targets != IGNORE_INDEX).sum(dim=1).tolist()  # of targets, in each row
            found[rows] = torch.stack([part.mean() for part in losses.split(counts)]).exp()
            progress.advance(len(rows))
    return torch.tensor(distributed.put_together(found.tolist()), dtype=torch.float64)
