"""Other ways to choose a subset, for comparison: each gives every candidate a score, and the
highest are taken.

Unlike DELIFT's functions, a score looks at one candidate at a time: two copies of the best example
are chosen both.
"""

import random
from collections.abc import Sequence

import numpy as np
import torch

from ch_instruct.collate import collate
from ch_instruct.encoding import Example
from common.embedding import unit
from common.gpt2 import GPT2
from common.losses import next_token_loss
from common.support import distributed
from common.support.console import Progress
from common.support.device import evaluating

SKETCH = 2048  # numbers that stand for a gradient


def random_subset(n: int, budget: int, seed: int) -> list[int]:
    """`budget` of the numbers 0..n-1, drawn without replacement."""
    return random.Random(f"subset {seed}").sample(range(n), budget)


def highest(scores: np.ndarray, budget: int) -> list[int]:
    """The `budget` numbers with the highest scores [N], best first; of equal scores the lower
    number first."""
    return np.argsort(-np.asarray(scores), kind="stable")[:budget].tolist()


def gradient_sketches(model: GPT2, examples: Sequence[Example],
                      precision: str = "fp32") -> np.ndarray:
    """The gradient of each example's mean response loss, projected to few dimensions. float32
    [examples, SKETCH].

    A model has millions of parameters, so each gradient is "count-sketched" (Charikar et al.,
    2002): every parameter has a random sign and a random place out of SKETCH, and is added there.
    Scalar products stay the same on average. After LESS (Xia et al., 2024), which projects the
    gradients of low-rank adapters under Adam; this is the plain gradient of all matrices in the
    blocks.
    """
    parameters = [p for p in model.h.parameters() if p.dim() >= 2]
    size = sum(p.numel() for p in parameters)
    generator = torch.Generator().manual_seed(0)
    bucket = torch.randint(SKETCH, (size,), generator=generator).to(model.device)
    sign = torch.randint(2, (size,), generator=generator, dtype=torch.int8) * 2 - 1
    sign = sign.to(model.device)
    mine = distributed.my_share(examples)
    found = []
    progress = Progress("gradients", len(examples), "text")
    with progress, evaluating(model, precision), torch.enable_grad():
        for example in mine:
            total, count = next_token_loss(model, collate([example]))
            gradients = torch.autograd.grad(total / count, parameters)
            gradient = torch.cat([g.flatten() for g in gradients]).float()  # [size]
            sketch = torch.zeros(SKETCH, device=model.device)
            sketch.index_add_(0, bucket, gradient * sign)
            found.append(sketch.tolist())
            progress.advance(distributed.world_size())
    return np.array(distributed.put_together(found), dtype=np.float32)


def gradient_scores(candidates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """How much a step on each candidate [N, SKETCH] also lowers the targets' loss: the cosine of
    its gradient and the mean of the targets' unit gradients [T, SKETCH]. float32 [N]."""
    return unit(candidates) @ unit(unit(targets).mean(axis=0))
