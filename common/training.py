"""The training loop, the only one. A chapter brings a dataset and a loss; the rest happens here."""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.gpt2 import GPT2
from common.lora import add_lora, remove_lora, trained_parameters
from common.losses import Loss
from common.pretrained import load_weights
from common.support import distributed, memory
from common.support.checkpoints import Keeper, Run
from common.support.console import Progress
from common.support.device import autocast
from common.support.files import InputError
from common.tokenizer import Tokenizer


class Dataset:
    """What is trained on: items, how a list of them becomes a batch, and how many tokens one holds.

    An item can be anything that `collate` understands: a window's start, an example, a pair.
    """

    def __init__(self, items: Sequence, collate: Callable[[list], tuple],
                 size: Callable[[Any], int], seed: int = 0):
        self.items, self.collate, self.size, self.seed = items, collate, size, seed

    def __len__(self) -> int:
        return len(self.items)

    def order(self, epoch: int) -> list:
        """All items in the order of this epoch. It depends on seed and epoch alone, so a resumed
        run and every process see the same."""
        return random.Random(f"order {self.seed} {epoch}").sample(list(self.items), len(self.items))


@dataclass(frozen=True)
class TrainOptions:
    """How to train. One optimizer step covers `batch_size * accumulate` items."""

    epochs: int
    batch_size: int  # items in one forward pass
    accumulate: int  # forward passes in one step
    lr: float  # peak learning rate
    precision: str  # fp32 or bf16
    weight_decay: float = 0.1
    warmup: float = 0.1  # share of all steps in which the rate rises
    clip: float = 1.0  # largest gradient norm
    evaluate_every: int | None = None  # steps between evaluations; None means once an epoch
    patience: int | None = None  # stop after so many evaluations without a new best; None: never
    max_steps: int | None = None  # exactly so many steps, whatever the epochs; None: the epochs
    lora: int | None = None  # rank of the updates that are learnt; None: all weights are learnt
    base: str = ""  # hub id or folder of the pretrained model, for the adapter to name

    @property
    def step_size(self) -> int:
        """Items in one optimizer step."""
        return self.batch_size * self.accumulate

    def steps_per_epoch(self, items: int) -> int:
        """How many steps it takes to see so many items once; the last may be smaller."""
        return math.ceil(items / self.step_size)

    def total_steps(self, items: int) -> int:
        """How many steps the whole training takes."""
        return self.max_steps or self.epochs * self.steps_per_epoch(items)


def learning_rate(step: int, total: int, peak: float, warmup: float) -> float:
    """The rate of step 1..total: a straight rise to the peak, then half a cosine down. It reaches
    zero at step total + 1, so no step is wasted."""
    rising = max(1, round(warmup * total))  # small at first: Adam's averages rest on few gradients
    if step <= rising:
        return peak * step / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / (total + 1 - rising)))


def make_optimizer(model: torch.nn.Module, options: TrainOptions) -> torch.optim.AdamW:
    """AdamW. Weight decay pulls on matrices and embeddings, not on biases and LayerNorm gains."""
    trained = trained_parameters(model).values()
    groups = [{"params": [p for p in trained if p.dim() > 1], "weight_decay": options.weight_decay},
              {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0}]
    # betas: the averages of gradients and of their squares remember about 10 and 20 steps.
    return torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.95),
                             fused=next(model.parameters()).device.type != "mps")


def accumulate_gradients(model: GPT2, data: Dataset, loss: Loss, items: list,
                         options: TrainOptions) -> tuple[Tensor, int]:
    """Gradients of the loss *summed* over all targets of `items`, in passes of `batch_size` items.

    The mean's gradient is this divided by the number of targets, and `take_step` divides. A mean of
    the passes' means would let short batches weigh more.

    Returns:
        The summed loss, a scalar where the model is, and the number of targets.
    """
    total, targets = torch.zeros((), device=model.device), 0
    with autocast(model.device, options.precision):  # weights stay, so they are cast once
        for start in range(0, len(items), options.batch_size):
            mine = distributed.my_share(items[start:start + options.batch_size])
            if mine:  # with more processes than items, some have nothing to do
                part, count = loss(model, data.collate(list(mine)))
                part.backward()  # adds to p.grad of every parameter
                total, targets = total + part.detach(), targets + count
    return distributed.add_up_step(total, targets, trained_parameters(model))


def take_step(model: GPT2, optimizer: torch.optim.Optimizer, targets: int, lr: float,
              clip: float) -> Tensor:
    """Move the weights by the gradient of the mean loss, shortened to the norm `clip` if longer.

    Returns the norm of the mean's gradient before it was shortened, a scalar where the model is.
    """
    for gradient in [p.grad for p in model.parameters() if p.grad is not None]:
        gradient.div_(max(targets, 1))  # of the sum -> of the mean
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad()
    return norm


def step_batches(data: Dataset, options: TrainOptions, first: int,
                 last: int) -> Iterator[tuple[int, list]]:
    """The steps `first` to `last`, counted from 1, and the items of each."""
    order: list = []
    for step in range(first, last + 1):
        epoch, at = divmod(step - 1, options.steps_per_epoch(len(data)))
        if at == 0 or step == first:  # a new epoch, or a resumed one
            order = data.order(epoch)
        yield step, order[at * options.step_size:(at + 1) * options.step_size]


def fit(model: GPT2, tokenizer: Tokenizer, data: Dataset, validation: Dataset, loss: Loss,
        options: TrainOptions, folder: Path, resume: bool = False,
        after_step: Callable[[dict], None] | None = None) -> Run:
    """Train `model`, and leave its best checkpoint in the model and in `folder`.

    Args:
        data, validation: what to learn from, and what to stop and choose by: the plain next-token
            loss (if it is empty, the last checkpoint is kept).
        loss: gives a sum and a count for one batch.
        folder: gets the checkpoint, `metrics.csv`, with LoRA `adapter/`, and the training state.
        resume: go on from the training state, if it is there. On the CPU in fp32 (with dropout: in
            one process) the result is bit for bit that of a run that was never interrupted.
        after_step: gets the row of metrics of each step; a method may add columns to it.

    Raises:
        InputError: if the loss is no longer a number.
    """
    total, per_epoch = options.total_steps(len(data)), options.steps_per_epoch(len(data))
    evaluate_every = options.evaluate_every or per_epoch
    if options.lora is not None:
        add_lora(model, options.lora)
    optimizer = make_optimizer(model, options)
    keeper = Keeper(model, tokenizer, optimizer, validation, options, folder)
    run = keeper.begin(resume)
    last = run.step if run.done else total  # what is done is not done again
    tokens = sum(map(data.size, data.items)) * total // per_epoch  # about as many in all
    with memory.kept(), Progress("training", tokens, "tok", done=run.tokens) as progress:
        model.train()
        for step, items in step_batches(data, options, run.step + 1, last):
            started = time.monotonic()
            lr = learning_rate(step, total, options.lr, options.warmup)
            summed, targets = accumulate_gradients(model, data, loss, items, options)
            norm = take_step(model, optimizer, targets, lr, options.clip).item()  # waits for a GPU
            train_loss = summed.item() / max(targets, 1)
            if not math.isfinite(train_loss + norm):
                raise InputError(f"At step {step} the loss is {train_loss} and the gradient's norm "
                                 f"{norm}; lower --lr, or use --precision fp32.")

            seen = sum(map(data.size, items))  # tokens, without padding
            row = run.add_row(
                tokens=seen, targets=targets, step=step, epoch=step / per_epoch, lr=lr,
                train_loss=train_loss, gradient_norm=norm,
                tokens_per_second=seen / (time.monotonic() - started))
            progress.advance(seen, f"loss {train_loss:.3f}")
            if after_step is not None:
                after_step(row)
            if step % evaluate_every == 0 or step == total:
                keeper.judge(average_over=evaluate_every)  # keeps the checkpoint if it is the best
            keeper.save(done=step == total)  # now and then, all that is needed to go on
            if run.done:  # the keeper may stop early
                break

    distributed.barrier()  # the main process may still be writing
    remove_lora(model)
    load_weights(model, folder)  # the best checkpoint, not the last, with its updates merged
    model.eval()
    return run
