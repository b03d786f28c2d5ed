"""LESS (Xia et al., 2024, arXiv 2402.04333): choose the records whose gradients point where the target's do, small.

As published: a warm-up by LoRA on 5 % of the data for 4 epochs; at the end of each, the cosine of the step that Adam would take
on a candidate alone, its moments included, with the plain gradient of each task of the target; the sum over epochs, weighted by
their mean learning rates; the best task counts. Not as published: gradients are not projected to 8,192 numbers, as ours have
only 131,072. The target's tasks are its families.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ch_delift.baselines import random_subset
from ch_instruct.collate import collate
from ch_instruct.encoding import Example
from ch_instruct.pipeline import example_dataset
from common.gpt2 import GPT2
from common.lora import add_lora, remove_lora, trained_parameters
from common.losses import next_token_loss
from common.support.console import Progress
from common.support.options import default_lr
from common.tokenizer import Tokenizer
from common.training import TrainOptions, accumulate_gradients, learning_rate, make_optimizer, step_batches, take_step

WARM_UP, RANK = 0.05, 8  # share of the data that is trained on; rank of the updates
OPTIONS = TrainOptions(epochs=4, batch_size=8, accumulate=1, lr=default_lr(lora=True), precision="fp32", lora=RANK)


def gradients(model: GPT2, example: Example) -> list[Tensor]:
    """Of the example's mean response loss, for each parameter that is trained."""
    total, count = next_token_loss(model, collate([example]))
    return list(torch.autograd.grad(total / count, list(trained_parameters(model).values())))


def adam_direction(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], found: Sequence[Tensor]) -> Tensor:
    """Γ = m̂ / (√v̂ + ε): the direction of Adam's next step if its gradient were this one (section 3.1). float [all numbers]."""
    parts = []
    for p, g in zip(parameters, found):
        state, (first, second) = optimizer.state[p], optimizer.param_groups[0]["betas"]
        step = float(state["step"]) + 1
        m = (first * state["exp_avg"] + (1 - first) * g) / (1 - first ** step)
        v = (second * state["exp_avg_sq"] + (1 - second) * g.square()) / (1 - second ** step)
        parts.append((m / (v.sqrt() + optimizer.param_groups[0]["eps"])).flatten())
    return torch.cat(parts)


def less_scores(model: GPT2, tokenizer: Tokenizer, candidates: Sequence[Example], tasks: Sequence[Sequence[Example]],
                seed: int) -> np.ndarray:
    """max over tasks of Σ_epochs η̄ cos(∇task, Γ(candidate)) for each candidate. The model is left as it was.

    Args:
        tasks: the target's examples, one list for each of its tasks.

    Returns:
        float64 [candidates].
    """
    warm = random_subset(len(candidates), max(1, int(WARM_UP * len(candidates))), seed)
    data = example_dataset([candidates[i] for i in warm], tokenizer, seed=seed)
    torch.manual_seed(seed)  # of the updates' beginnings
    add_lora(model, RANK)
    optimizer, parameters = make_optimizer(model, OPTIONS), list(trained_parameters(model).values())
    total, per_epoch = OPTIONS.total_steps(len(data)), OPTIONS.steps_per_epoch(len(data))
    scores, rates = torch.zeros(len(tasks), len(candidates), dtype=torch.float64), []
    with Progress("gradients", OPTIONS.epochs * len(candidates), "text") as progress:
        for step, items in step_batches(data, OPTIONS, 1, total):
            rates.append(learning_rate(step, total, OPTIONS.lr, OPTIONS.warmup))
            _, targets = accumulate_gradients(model, data, next_token_loss, items, OPTIONS)
            take_step(model, optimizer, targets, rates[-1], OPTIONS.clip)
            if step % per_epoch:
                continue
            rate = sum(rates[-per_epoch:]) / per_epoch
            wanted = torch.stack([torch.stack([torch.cat([g.flatten() for g in gradients(model, example)])
                                               for example in task]).mean(dim=0) for task in tasks])  # [tasks, numbers]
            for i, candidate in enumerate(candidates):
                direction = adam_direction(optimizer, parameters, gradients(model, candidate))
                scores[:, i] += rate * torch.cosine_similarity(wanted, direction[None], dim=1).cpu()
                progress.advance(1)
    remove_lora(model)
    return scores.amax(dim=0).numpy()
