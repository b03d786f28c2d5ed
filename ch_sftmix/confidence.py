"""Confidence from training dynamics: how sure the model was of each response while it learnt (SFTMix, arXiv 2410.05248)."""

import random

import torch
import torch.nn.functional as F
from torch import Tensor

from common import distributed
from common.console import Progress
from common.device import autocast, to_device
from common.gpt2 import GPT2
from common.losses import IGNORE_INDEX
from common.training import Dataset


@torch.no_grad()
def response_perplexities(model: GPT2, data: Dataset, batch_size: int, precision: str) -> Tensor:
    """Perp(Y|X) = exp(-mean log p(y_n | x, y_<n)) of each example's targets, the end-of-text token among them.

    Args:
        data: items that collate to inputs and targets, with the loss on the response only.

    Returns:
        float64 [N], each from 1 up. No random number is drawn.
    """
    was_training = model.training
    model.eval()
    items = distributed.my_share(data.items)
    found = torch.empty(len(items), dtype=torch.float64)
    by_length = sorted(range(len(items)), key=lambda i: data.size(items[i]))  # like lengths need little padding
    with Progress("perplexities", len(items), "text") as progress:
        for start in range(0, len(items), batch_size):
            ids = by_length[start:start + batch_size]
            inputs, targets = to_device(data.collate([items[i] for i in ids]), model.device)
            asked = targets != IGNORE_INDEX  # [B, T]
            with autocast(model.device, precision):
                logits = model.logits(model.hidden_states(inputs)[asked])  # [targets, V]
            losses = F.cross_entropy(logits.float(), targets[asked], reduction="none").cpu().double()  # [targets]
            per_example = [part.mean() for part in losses.split(asked.sum(dim=1).tolist())]
            found[ids] = torch.stack(per_example).exp()
            progress.advance(len(ids))
    model.train(was_training)
    return torch.tensor(distributed.put_together(found.tolist()), dtype=torch.float64)


def confidence(perplexities: Tensor) -> Tensor:
    """Conf(Y|X) = -(1/C) Σ_c Perp_c(Y|X): minus the mean perplexity over C checkpoints (SFTMix).

    Args:
        perplexities: float [C, N], one row per checkpoint.

    Returns:
        float [N], at most -1; higher is surer.
    """
    return -torch.as_tensor(perplexities).mean(dim=0)


def negative_loss(perplexities: Tensor) -> Tensor:
    """-(1/C) Σ_c log Perp_c: like confidence, but one bad checkpoint cannot outweigh the others. [C, N] -> [N]."""
    return -torch.as_tensor(perplexities).log().mean(dim=0)


def split(confidence: Tensor) -> tuple[list[int], list[int]]:
    """Cut the examples into two equal halves at the median.

    What happens to ties and odd numbers is not documented. Here, of equal confidences the lower id counts as surer, and
    of an odd number the middle one is confident.

    Args:
        confidence: float [N].

    Returns:
        Ids of the confident half (ceil(N/2), surest first) and of the unconfident half.
    """
    order = torch.as_tensor(confidence).argsort(descending=True, stable=True).tolist()
    half = (len(order) + 1) // 2
    return order[:half], order[half:]


def random_split(n: int, seed: int) -> tuple[list[int], list[int]]:
    """The control: two halves of the same sizes, drawn at random."""
    order = random.Random(f"halves {seed}").sample(range(n), n)
    return order[:(n + 1) // 2], order[(n + 1) // 2:]
