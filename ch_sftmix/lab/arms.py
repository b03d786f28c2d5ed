"""What SFTMix is compared with: its parts one by one, and other ways to train on the same records, as a table of functions.

Every arm begins with the same model and takes as many steps on as many examples per step as plain training (NTP) on all
records, however few it trains on; only "ntp, twice as long" takes more.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Module

from ch_instruct import pipeline
from ch_instruct.perplexity import response_perplexities
from ch_instruct.pipeline import Work
from ch_sftmix.confidence import confidence, random_split, relative_confidence, split, without_least_sure
from ch_sftmix.train import SFTMix, mean_states, mixup_run
from common.gpt2 import GPT2
from common.losses import Loss, next_token_loss
from common.pretrained import load_pretrained, load_weights
from common.support.checkpoints import Run

SMOOTHING, DROPOUT, NEFTUNE = 0.1, 0.1, 5.0  # the usual values; the last is α, the smallest of the paper's, not tuned


@dataclass(frozen=True)
class Cell:
    """One data set, ready to be trained on, and what the NTP run on it has shown."""

    work: Work
    folder: Path  # of the checkpoint: every arm's in turn
    seed: int
    perplexities: Tensor  # float64 [C, N], of the training responses

    @property
    def halves(self) -> tuple[list[int], list[int]]:
        """Ids of the confident and of the unconfident half, each surest first."""
        return split(confidence(self.perplexities))

    def plain(self, ids: Sequence[int], loss: Loss = next_token_loss, times: int = 1) -> Run:
        """Next-token training on these training examples."""
        data = pipeline.example_dataset([self.work.examples["train"][i] for i in ids], self.work.tokenizer, seed=self.seed)
        return pipeline.train(self.work, data, loss, self.folder, self.seed, **self.work.equal_steps(times))

    def mixup(self, halves: tuple[list[int], list[int]], mu: float = SFTMix.mu) -> Run:
        """Training with mixup between these halves, and on no others."""
        return mixup_run(self.work, halves, self.folder, self.seed, SFTMix.alpha, mu, **self.work.equal_steps())


def everything(cell: Cell) -> range:
    """All training examples."""
    return range(cell.perplexities.size(1))


def without_wrong(cell: Cell) -> list[int]:
    """What an oracle would train on: the examples whose answer is right."""
    return [i for i, record in enumerate(cell.work.records["train"]) if "wrong" not in record]


def base_perplexities(cell: Cell) -> Tensor:
    """Of the training responses, for the untouched model: what is known without a reference run. float64 [N]."""
    load_weights(cell.work.model, cell.work.folder)
    data = pipeline.example_dataset(cell.work.examples["train"], cell.work.tokenizer)
    return response_perplexities(cell.work.model, data, 2 * cell.work.options.batch_size, cell.work.precision)


LEFT_OUT: dict[str, Callable[[Cell], list[int]]] = {  # which training examples are kept; a tenth (rounded down) is not
    "tenth left out": lambda cell: without_least_sure(confidence(cell.perplexities), 0.1),
    "random tenth left out": lambda cell: without_least_sure(torch.rand(
        cell.perplexities.size(1), generator=torch.Generator().manual_seed(cell.seed)), 0.1),
    "highest loss left out": lambda cell: without_least_sure(-base_perplexities(cell), 0.1),
    "relative tenth left out": lambda cell: without_least_sure(
        relative_confidence(confidence(cell.perplexities), mean_states(cell.work)), 0.1)}


def random_parts(ids: list[int], seed: int) -> tuple[list[int], list[int]]:
    """These examples, cut into two halves at random."""
    one, other = random_split(len(ids), seed)
    return [ids[i] for i in one], [ids[i] for i in other]


def train_with_dropout(cell: Cell) -> Run:
    """NTP with DROPOUT; the cell's own model gets the weights."""
    model, _ = load_pretrained(cell.work.folder, cell.work.model.device, dropout=DROPOUT)
    run = replace(cell, work=replace(cell.work, model=model)).plain(everything(cell))
    load_weights(cell.work.model, cell.folder)
    return run


def neftune_loss(model: GPT2, batch: tuple) -> tuple[Tensor, int]:
    """The plain loss with noise on the embeddings of tokens, uniform within ±α / sqrt(L D), L the length of the longest row.

    NEFTune (Jain et al., 2023, arXiv 2310.05914), a rival named in the paper on SFTMix. In a small model the noise is large:
    with D = 256 and short records its standard deviation is half of that of the classroom's embeddings.
    """
    inputs, _ = batch

    def noisy(module: Module, ids: tuple, embedded: Tensor) -> Tensor:
        bound = NEFTUNE / math.sqrt(inputs.size(1) * embedded.size(-1))
        return embedded + torch.empty_like(embedded).uniform_(-bound, bound)

    hook = model.wte.register_forward_hook(noisy)
    try:
        return next_token_loss(model, batch)
    finally:
        hook.remove()


ARMS: dict[str, Callable[[Cell], Run]] = {  # besides "ntp", the reference run
    "sftmix": lambda cell: cell.mixup(cell.halves),
    **{arm: partial(lambda kept, cell: cell.plain(kept(cell)), kept) for arm, kept in LEFT_OUT.items()},
    "neftune": lambda cell: cell.plain(everything(cell), neftune_loss),
    "oracle": lambda cell: cell.plain(without_wrong(cell)),
    "random halves": lambda cell: cell.mixup(random_parts([*everything(cell)], cell.seed)),
    "mu = 0": lambda cell: cell.mixup(cell.halves, mu=0.0),
    "confident half": lambda cell: cell.plain(cell.halves[0]),
    "mixup in confident half": lambda cell: cell.mixup(random_parts(cell.halves[0], cell.seed)),
    "unconfident half": lambda cell: cell.plain(cell.halves[1]),
    "mixup in unconfident half": lambda cell: cell.mixup(random_parts(cell.halves[1], cell.seed)),
    "label smoothing": lambda cell: cell.plain(everything(cell), partial(next_token_loss, label_smoothing=SMOOTHING)),
    "dropout": train_with_dropout,
    "ntp, twice as long": lambda cell: cell.plain(everything(cell), times=2)}
