"""Mixup between the halves (SFTMix, arXiv 2410.05248): train on points between a confident and an
unconfident example.

The paper's symbols: z the last hidden state, y the target as a one-hot vector, λ ~ Beta(α, α), ~
for a mixture.
"""

import random
from typing import NamedTuple

import torch
from torch import Tensor

from ch_instruct.collate import collate
from ch_instruct.encoding import Example
from common.fast.views import places, take
from common.gpt2 import GPT2
from common.losses import IGNORE_INDEX, head_loss, states_for
from common.support.device import send
from common.training import Dataset


class Pair(NamedTuple):
    """A confident and an unconfident example, and their λ."""

    confident: Example
    unconfident: Example
    lam: float
    scale: float  # of the mixup term, the same for all pairs of an epoch; see `PairDataset`


class PairDataset(Dataset):
    """Pairs across the two halves, drawn anew each epoch.

    Each example is in one pair an epoch, so an epoch sees what a plain epoch sees, in batches half
    confident and half unconfident. (Of an odd number, one unconfident example is in two pairs.)

    The objective is Σ_NTP / N_NTP + μ Σ_Mixup / N_Mixup, each a mean over its own positions. The
    training loop divides both sums by the N_NTP of the step, so Σ_Mixup is first scaled by
    μ N_NTP / N_Mixup. These two numbers are of the whole epoch: so a step has the objective only
    nearly, but however a batch is cut into passes or processes, the result is the same. A batch of
    P pairs has 2P rows.
    """

    def __init__(self, examples: list[Example], halves: tuple[list[int], list[int]], pad_id: int,
                 loss_on: str, alpha: float, mu: float, seed: int):
        def size(pair: Pair) -> int:  # tokens that are read: the last of each row is a target only
            return len(pair.confident.ids) - 1 + len(pair.unconfident.ids) - 1

        self.examples, self.halves, self.pad_id, self.loss_on = examples, halves, pad_id, loss_on
        self.alpha, self.mu, self.seed = alpha, mu, seed
        # as many pairs in each epoch
        super().__init__(self.order(0), self.collate_pairs, size, seed)

    def order(self, epoch: int) -> list[Pair]:
        """The pairs of this epoch, each with its λ."""
        rng = random.Random(f"pairs {self.seed} {epoch}")
        confident, unconfident = ([self.examples[i] for i in rng.sample(half, len(half))]
                                  for half in self.halves)
        unconfident += unconfident[:len(confident) - len(unconfident)]
        pairs = list(zip(confident, unconfident))
        # λ ~ Beta(α, α), one per pair
        lams = [rng.betavariate(self.alpha, self.alpha) for _ in pairs]

        n_mixup = sum(min(c.response_tokens, u.response_tokens) for c, u in pairs)
        n_ntp = sum(example.targets(self.loss_on) for pair in pairs for example in pair)
        scale = self.mu * n_ntp / n_mixup
        return [Pair(c, u, lam, scale) for (c, u), lam in zip(pairs, lams)]

    def collate_pairs(self, pairs: list[Pair]) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
        """P pairs -> inputs, targets, response targets (int64 [2P, T]), λ [P], and the scale.

        The confident rows come first.
        """
        rows = [pair.confident for pair in pairs] + [pair.unconfident for pair in pairs]
        inputs, targets = collate(rows, self.pad_id, self.loss_on)
        _, response_targets = collate(rows, self.pad_id, "response")
        lam = torch.tensor([pair.lam for pair in pairs])
        return inputs, targets, response_targets, lam, pairs[0].scale


def shared_positions(hidden_c: Tensor, targets_c: Tensor, hidden_u: Tensor,
                     targets_u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The positions that get mixed: the n-th of one response with the n-th of the other, up to the
    end of the shorter one.

    Args:
        hidden_c, hidden_u: float [P, T, D], of P pairs.
        targets_c, targets_u: int64 [P, T], IGNORE_INDEX everywhere but at the response.

    Returns:
        z_c [S, D], y_c [S], z_u [S, D], y_u [S]: hidden states and targets of all S shared
        positions; and which pair each position belongs to, int64 [S].
    """
    has_c, has_u = targets_c != IGNORE_INDEX, targets_u != IGNORE_INDEX  # [P, T]
    # [P], the length of the shorter response
    shared = torch.minimum(has_c.sum(dim=1), has_u.sum(dim=1))
    # [P, T], the first shared[p] response positions of each row
    first_c, first_u = (has & (has.cumsum(dim=1) <= shared[:, None]) for has in (has_c, has_u))
    pair = torch.repeat_interleave(torch.arange(len(shared), device=shared.device), shared)
    z_c, z_u = (take(hidden, places(first, hidden.device))  # hidden[first]; waits for no GPU
                for hidden, first in ((hidden_c, first_c), (hidden_u, first_u)))
    return z_c, targets_c[first_c], z_u, targets_u[first_u], pair


def mixup_loss(model: GPT2, hidden_c: Tensor, targets_c: Tensor, hidden_u: Tensor,
               targets_u: Tensor, lam: Tensor) -> tuple[Tensor, int]:
    """The mixup term alone, a sum over mixed positions and their number.

    For each response position n that a pair shares:

        z̃_n = λ z^c_n + (1-λ) z^u_n      ỹ_n = λ y^c_n + (1-λ) y^u_n
        Σ_Mixup = -Σ_n ỹ_n · log softmax(head(z̃_n))

    As ỹ has at most two entries above zero, each product is λ log p̃[y^c] + (1-λ) log p̃[y^u].

    Args:
        hidden_c, hidden_u: float [P, T, D], after the final LayerNorm. The head is linear, so
            mixing here equals mixing logits, with one pass of the head instead of two.
        targets_c, targets_u: int64 [P, T], IGNORE_INDEX everywhere but at the response.
        lam: float [P], λ of each pair, from 0 (only the unconfident example) to 1 (only the
            confident one).
    """
    z_c, y_c, z_u, y_u, pair = shared_positions(hidden_c, targets_c, hidden_u, targets_u)
    # [S], λ and targets of the S mixed positions
    lam, y_c, y_u = (send(part, z_c.device) for part in (lam[pair], y_c, y_u))
    z = lam[:, None] * z_c + (1 - lam[:, None]) * z_u  # [S, D]
    log_p = model.logits(z).float().log_softmax(dim=-1)  # [S, V]
    of_c = log_p.gather(1, y_c[:, None]).squeeze(1)  # [S]
    of_u = log_p.gather(1, y_u[:, None]).squeeze(1)
    return -(lam * of_c + (1 - lam) * of_u).sum(), z.size(0)


def sftmix_terms(model: GPT2,
                 batch: tuple[Tensor, Tensor, Tensor, Tensor, float]) -> tuple[Tensor, Tensor, int]:
    """Σ_NTP over both halves, (μ N_NTP / N_Mixup) Σ_Mixup, and the number of NTP targets.

    For batches of a PairDataset.
    """
    inputs, targets, response_targets, lam, scale = batch
    hidden = states_for(model, inputs, targets)  # [2P, T, D]
    ntp, count = head_loss(model, hidden, targets)
    if scale == 0:  # μ = 0 is plain training, to the last bit
        return ntp, torch.zeros_like(ntp), count
    P = len(lam)
    mixed, _ = mixup_loss(model, hidden[:P], response_targets[:P], hidden[P:],
                          response_targets[P:], lam)
    return ntp, scale * mixed, count


def sftmix_loss(model: GPT2,
                batch: tuple[Tensor, Tensor, Tensor, Tensor, float]) -> tuple[Tensor, int]:
    """What SFTMix minimises, the sum of both `sftmix_terms`, and the number of NTP targets."""
    ntp, mixed, count = sftmix_terms(model, batch)
    return ntp + mixed, count
