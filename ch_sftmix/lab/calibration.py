"""Calibration: of the tokens to which a model gives a probability of 0.8, are 8 in 10 right? (Guo et al., arXiv 1706.04599)"""

import torch
import torch.nn.functional as F
from torch import Tensor

from common.gpt2 import GPT2
from common.losses import head_logits, states_for
from common.support.device import evaluating
from common.training import Dataset

BINS = 15  # as in Guo et al.


def token_predictions(model: GPT2, data: Dataset, batch_size: int, precision: str) -> tuple[Tensor, Tensor]:
    """The model's likeliest next token at each of the N targets of `data`, the right tokens before it given.

    Returns:
        Its probability, float [N], and whether it is the target, bool [N].
    """
    sure, right = [], []
    with evaluating(model, precision):
        for start in range(0, len(data), batch_size):
            inputs, targets = data.collate(list(data.items[start:start + batch_size]))
            logits, wanted = head_logits(model, states_for(model, inputs, targets), targets)  # [n, V], [n]
            p, token = logits.softmax(dim=-1).max(dim=-1)  # [n] each
            sure.append(p.cpu())
            right.append((token == wanted).cpu())
    return torch.cat(sure), torch.cat(right)


def reliability(sure: Tensor, right: Tensor, bins: int = BINS) -> Tensor:
    """Predictions sorted by their probability into bins of equal width: (0, 1/M], (1/M, 2/M], ..., (1 - 1/M, 1].

    Args:
        sure, right: float and bool [N], as `token_predictions` gives them.

    Returns:
        float64 [M, 3]: of each bin the number of predictions, the sum of their probabilities, and how many were right. The bins
        of several tests can be added up.
    """
    place = ((sure.double() * bins).ceil().long() - 1).clamp(0, bins - 1)
    return F.one_hot(place, bins).double().T @ torch.stack([torch.ones_like(sure), sure, right], dim=1).double()


def calibration_error(binned: Tensor) -> float:
    """Expected calibration error, ECE = Σ_m (n_m / N) |accuracy_m - confidence_m|, from 0 to 1 (Guo et al., equation 3).

    Accuracy is the share of a bin's predictions that are right, confidence their mean probability, so a bin adds the difference
    of its two sums. Which way a model errs (too sure, or not sure enough) the diagram shows.

    Args:
        binned: float [M, 3], from `reliability`.
    """
    count, confidence, accuracy = binned.unbind(dim=1)
    return ((accuracy - confidence).abs().sum() / count.sum()).item()
