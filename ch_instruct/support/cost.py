"""What will a run cost? Hours and gigabytes, judged by a trial before it begins.

The trial does what the run will do, with its own data: it evaluates a batch, takes training steps at a learning rate of 0, and
answers a few tokens. The seconds of each, times how much of it there will be, are the estimate. Where a batch takes long, the
trial takes its shortest rows, and adds the memory that the others need.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from statistics import fmean
from typing import NamedTuple

import torch

from ch_instruct.encoding import encode_prompt
from ch_instruct.pipeline import Work
from common.fast.answering import continue_all, texts_at_once
from common.lora import add_lora, remove_lora
from common.losses import Loss, evaluate, next_token_loss
from common.pretrained import load_weights
from common.support import distributed, memory
from common.support.console import duration, say
from common.support.device import evaluating, peak_memory
from common.training import Dataset, TrainOptions, accumulate_gradients, make_optimizer, take_step

FEWEST_PASSES = 100  # a run of fewer is not worth the four or five that a trial takes
SHORT = 60  # seconds; a shorter training is better begun than estimated
KEPT = {"cpu": 9e8}  # bytes that PyTorch's kernels come to keep for batches of many shapes, measured; a trial sees few of them
PART = 0.5  # seconds that each part of a trial should take: of a batch that takes longer, it reads fewer rows
TOKENS = 8  # of each text in the trial of answers


class Training(NamedTuple):
    """All trainings of one kind in a run."""

    data: Dataset
    loss: Loss
    options: TrainOptions
    items: int  # how many they see, over all epochs
    runs: int = 1  # how many trainings these are

    @property
    def passes(self) -> float:
        """How many batches they see."""
        return self.items / self.options.batch_size

    @property
    def tokens(self) -> float:
        """How many tokens they see."""
        return self.items * self.tokens_of(self.data.items) / len(self.data)

    def tokens_of(self, items: Sequence) -> int:
        """How many tokens are in these."""
        return sum(map(self.data.size, items))

    def batches(self) -> list[list]:
        """The batches of the first epoch, the one with the fewest tokens first."""
        order, size = self.data.order(0), self.options.batch_size
        return sorted((order[i:i + size] for i in range(0, len(order), size)), key=self.tokens_of)


def tell(work: Work, trainings: list[Training], readings: int = 0, tests: list[Work] | None = None,
         further: Callable[[], dict[str, float]] = dict) -> None:
    """Say what a run will cost, before it begins. Of small runs, and of resumed ones, nothing is said.

    Weights, gradients and random numbers are afterwards what they were.

    Args:
        work: the model, and the validation part that judges the checkpoints.
        trainings: all there will be, the first by plain next-token prediction.
        readings: how often, besides, its data are read without being learnt (for perplexities, say).
        tests: whose test parts are answered after each training, and once by the untouched model (None: that of `work`).
        further: measures what else there is to do: its name -> seconds.
    """
    if work.options.resume or sum(kind.passes for kind in trainings) < FEWEST_PASSES:
        return
    start, model, was_training = time.monotonic(), work.model, work.model.training
    tests, count, first = tests or [work], sum(kind.runs for kind in trainings), trainings[0]
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []), memory.kept():
        reading = time_reading(work, first)
        if 3 * reading * sum(kind.tokens for kind in trainings) < SHORT:  # a gradient is about three times as much work
            return
        tried = [time_training(work, kind, reading) for kind in trainings]
        seconds = further() | {"training": sum(one.seconds for one in tried)}
    load_weights(model, work.folder)  # at a rate of 0 no weight moves, unless a gradient was not a number
    model.train(was_training)

    validation = count * (work.options.epochs + 1) * tokens_in(work, "validation")
    tested = (count + 1) * sum(tokens_in(part, "test") for part in tests)
    seconds["evaluation"] = reading * (validation + tested + readings * first.tokens_of(first.data.items))
    seconds["answers"] = sum(time_answers(part, count, reading) for part in tests)
    needed = peak_memory(model.device) + KEPT.get(model.device.type, 0) + max(one.more_memory for one in tried)
    say(f"This run will take about {duration(sum(seconds.values()))} ("
        + ", ".join(f"{name} {duration(value)}" for name, value in seconds.items())
        + f") and {needed / 1e9:.1f} GB of memory" + " in each process" * (distributed.world_size() > 1)
        + f", to judge by a trial of {duration(time.monotonic() - start)}")


def tokens_in(work: Work, split: str) -> int:
    """How many tokens are read to evaluate this split."""
    return sum(len(example.ids) - 1 for example in work.examples[split])


def few(kind: Training, items: list, token: float) -> list:
    """The shortest of these items: as many as take PART seconds, and at least one for each process.

    token: seconds that one takes.
    """
    items = sorted(items, key=kind.data.size)
    count = sum(token * tokens <= PART for tokens in accumulate(map(kind.data.size, items)))
    return items[:max(distributed.world_size(), count)]


def time_reading(work: Work, kind: Training) -> float:
    """Seconds that evaluating a token takes, by a batch of middling size (or its shortest rows) for each process. Every process
    gets the same."""
    batches, processes = kind.batches(), distributed.world_size()
    middling = batches[len(batches) // 2]

    def read(items: list) -> float:
        start, all_items = time.monotonic(), items * processes
        evaluate(work.model, Dataset(all_items, kind.data.collate, kind.data.size), next_token_loss, len(items), work.precision)
        return distributed.from_main((time.monotonic() - start) / kind.tokens_of(all_items))

    token = read([min(middling, key=kind.data.size)])
    rows = few(kind, middling, processes * token)
    return read(rows) if len(rows) > 1 else token


class Tried(NamedTuple):
    """What a trial of a training tells."""

    seconds: float  # that all trainings of this kind take
    more_memory: float  # bytes that the largest batch needs, beyond those that the trial has taken


@contextlib.contextmanager
def keeping(model: torch.nn.Module) -> Iterator[dict[int, int]]:
    """What a pass within this context keeps for its way back: bytes by address. Weights and copies of them do not count: they
    do not grow with the batch."""
    weights = {shape for p in model.parameters() for shape in (p.shape, p.shape[::-1])}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield kept


def time_training(work: Work, kind: Training, reading: float) -> Tried:
    """What these trainings take, by two steps of one pass each: (some of) the largest batch, and of a middling one.

    reading: seconds that evaluating a token takes.
    """
    model, batches = work.model, kind.batches()
    largest, middling = batches[-1], batches[len(batches) // 2]
    first, second = (few(kind, items, 3 * reading) for items in (largest, middling))
    if kind.options.lora is not None:
        add_lora(model, kind.options.lora)
    optimizer = make_optimizer(model, kind.options)
    model.train()
    seconds, tokens, taken = 0.0, 0, 0
    for items in (first, second):
        start = time.monotonic()
        with keeping(model) as kept:
            summed, targets = accumulate_gradients(model, kind.data, kind.loss, items, kind.options)
            summed.tolist()  # here a GPU is waited for
        taken += sum(kept.values()) + 2 * max(kept.values(), default=0)  # on its way, the loss makes two more like its logits
        seconds, tokens, stepping = seconds + time.monotonic() - start, tokens + kind.tokens_of(items), time.monotonic()
        take_step(model, optimizer, targets, 0.0, kind.options.clip).item()
    step = time.monotonic() - stepping  # the second one: in the first, the optimizer's memory is made
    remove_lora(model)
    return Tried(seconds / tokens * kind.tokens + step * kind.passes / kind.options.accumulate,
                 taken / tokens * (kind.tokens_of(largest) - kind.tokens_of(first)))


def time_answers(work: Work, trainings: int, reading: float) -> float:
    """Seconds that this test's answers take: of the untouched model, which seldom ends one, and after so many trainings, when
    answers are taken to be as long as the expected ones. reading: seconds that evaluating a token takes."""
    test, most = work.examples["test"], work.max_new_tokens
    prompts = [encode_prompt(record, work.tokenizer, work.options.style) for record in work.records["test"]]
    rows = min(len(distributed.my_share(prompts)), texts_at_once(work.model, prompts, most))  # as in the test
    times = []
    for tokens in (1, 1 + TOKENS):
        start = time.monotonic()
        with evaluating(work.model, work.precision):  # the prompts' ends alone: how long it takes to read them is known
            continue_all(work.model, [ids[-TOKENS:] for ids in prompts[:rows]], tokens, work.tokenizer.eot_id, rows)
        times.append(time.monotonic() - start)
    token = (times[1] - times[0]) / TOKENS / rows  # seconds
    length = fmean(min(example.response_tokens, most) for example in test)
    return ((1 + trainings) * reading * sum(map(len, prompts))
            + len(test) / distributed.world_size() * (most + trainings * length) * token)
