"""How fast are training and answering? Side by side with transformers, and against what this machine can do at all.

    python ch_instruct/lab/bench.py                                  # the 124M shape, random weights, classroom records
    python ch_instruct/lab/bench.py --data my.json                   # your own records: lengths matter
    python ch_instruct/lab/bench.py --model runs/ch_instruct/001     # a model that stops by itself: answers as they come

Training: both sides get the same weights, records, optimizer and precision; ours is the loop's own step. Answering: the
same prompts, greedily, until a text ends or has --max-new-tokens. Both take turns, so a change in the machine's speed meets
both; speeds are medians over the rounds, ratios medians of the ratios within each round. Shares: the work that is needed
(blocks at real tokens, head at targets, forward and backward) against a large matrix product in the same round; and the
weights read once for one more token of each text against reading memory. bf16 is measured where there are instructions for
it. Needs transformers: pip install -r requirements-dev.txt.
"""

import contextlib
import itertools
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from ch_instruct.support.data_forms import RecordOptions
from common.support import options
from common.support.console import Progress, say, table
from common.support.files import InputError
from common.support.options import NewTokensOption, natural, option, whole


@dataclass(frozen=True)
class BenchOptions(NewTokensOption, RecordOptions):
    """The options of this command."""

    data: str = option("classroom", "classroom, a public set by name, or a .json or .jsonl file of records (default: "
                       "%(default)s)", metavar="D")
    model: str | None = option(None, "a model as for --model elsewhere (default: the shape of gpt2, random)", metavar="M")
    lora: int | None = option(None, "train by LoRA of this rank, too (default: all weights only)", whole, metavar="RANK")
    batch_size: int = option(8, "records in a step (default: %(default)s)", whole, metavar="N")
    rounds: int = option(5, "counted turns of each side, after one that is not (default: %(default)s)", whole, metavar="N")
    answers: int = option(64, "prompts to answer, in batches of 8 and of 32; 0 for none (default: %(default)s)", natural,
                          metavar="N")
    max_new_tokens: int = 64  # of every answer, so that speeds can be compared
    device: str = option("auto", "where to compute (default: %(default)s)", choices=["auto", "cpu", "cuda"])
    busy: int = option(0, "other processes that compute meanwhile, as a browser or a second notebook may (default: "
                       "%(default)s)", natural, metavar="N")
    smoke: bool = option(False, "a tiny model, to see that everything runs")


if __name__ == "__main__":
    options.run_command(options.parse, BenchOptions, __doc__)  # --help and wrong options end here: imports take seconds

import torch
import torch.nn.functional as F

from ch_instruct.collate import collate
from ch_instruct.encoding import Example, encode_record
from ch_instruct.pipeline import example_dataset
from ch_instruct.records import load_records
from common.fast.answering import continue_all
from common.fast.int8 import to_int8
from common.gpt2 import GPT2, GPT2Config
from common.lora import add_lora
from common.losses import IGNORE_INDEX, next_token_loss
from common.pretrained import CLASSROOM_FOLDER, find_folder, load_pretrained, save_pretrained
from common.support import memory
from common.support.device import autocast, evaluating, peak_memory, pick_device, pick_precision, send
from common.support.verify import quiet_transformers
from common.tokenizer import Tokenizer
from common.training import TrainOptions, accumulate_gradients, make_optimizer, take_step

WHO = ("transformers", "ours")
Step = Callable[[list[Example]], float]  # one optimizer step on these examples -> the loss before it
Side = TypeVar("Side")
Turn = TypeVar("Turn")
Found = TypeVar("Found")


def median_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """The median over rounds of slow / fast."""
    return statistics.median(a / b for a, b in zip(slow, fast))


@contextlib.contextmanager
def beside(others: int) -> Iterator[None]:
    """Meanwhile, so many other processes compute."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """How long something takes, a GPU waited for."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turns(what: str, sides: dict[Side, Callable[[Turn], Found]],
             turns: Sequence[Turn]) -> tuple[dict[Side, list[float]], dict[Side, Found]]:
    """Let every side do each turn's work, one after the other, so that a change in the machine's speed meets all of them.

    Returns:
        By side, the seconds of each turn, and what came of the first.
    """
    seconds: dict[Side, list[float]] = {side: [] for side in sides}
    first: dict[Side, Found] = {}
    with Progress(what, len(turns) * len(sides), "turn") as progress:
        for turn in turns:
            for side, work in sides.items():
                start = time.perf_counter()
                found = work(turn)
                seconds[side].append(time.perf_counter() - start)
                first.setdefault(side, found)
                progress.advance(1)
    return seconds, first


def precisions_of(device: torch.device) -> list[str]:
    """fp32, and bf16 where there are instructions for it: without them a step takes many times as long, and nobody takes it."""
    return ["fp32", "bf16"] if pick_precision("auto", device)[0] == "bf16" else ["fp32"]


def model_of(name: str | None, smoke: bool) -> tuple[GPT2, Tokenizer]:
    """The model of this name; without one, the shape of gpt2 (with smoke, a tiny one) with random weights."""
    if name:
        return load_pretrained(find_folder(name))
    tokenizer = Tokenizer.from_folder(CLASSROOM_FOLDER) if smoke else Tokenizer.gpt2()
    shape = {"n_layer": 2, "n_embd": 64, "n_head": 2} if smoke else {}
    torch.manual_seed(0)
    return GPT2(GPT2Config(vocab_size=tokenizer.vocab_size, **shape)), tokenizer


def product_rates(device: torch.device, precisions: Sequence[str] = ("fp32", "bf16")) -> dict[str, float]:
    """Operations a second of a large matrix product in each precision."""
    rates = {}
    for precision in precisions:
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        a, b = torch.randn(1024, 768, device=device, dtype=dtype), torch.randn(768, 3072, device=device, dtype=dtype)
        rates[precision] = 2 * 1024 * 768 * 3072 / min(seconds_of(partial(torch.mm, a, b), device) for _ in range(20))
    return rates


def memory_rate(device: torch.device) -> float:
    """Bytes a second of reading memory."""
    block = torch.ones(2**27, device=device)  # 0.5 GB
    return block.numel() * 4 / min(seconds_of(block.sum, device) for _ in range(5))


def needed_operations(model: GPT2, examples: Sequence[Example]) -> float:
    """Operations of a training step that cannot be left out: two per weight and token, as much twice again backward."""
    blocks = sum(p.numel() for p in model.h.parameters() if p.dim() == 2)
    tokens = sum(len(e.ids) - 1 for e in examples)
    looking = sum(2 * len(e.ids) ** 2 * model.config.n_embd * model.config.n_layer for e in examples)  # q·k and shares·v
    return 3 * (2 * blocks * tokens + looking + 2 * model.wte.weight.numel() * sum(e.response_tokens for e in examples))


def training_side(who: str, precision: str, folder: Path, device: torch.device) -> Step:
    """One side's optimizer step, with the weights in this folder. who: transformers, ours, or as in "LoRA 8"."""
    how = TrainOptions(1, 2**20, 1, 1e-5, precision)
    if who != "transformers":
        ours, tokenizer = load_pretrained(folder, device)
        if who != "ours":
            add_lora(ours, int(who.removeprefix("LoRA ")))
        optimizer = make_optimizer(ours.train(), how)

        def our_step(examples: list[Example]) -> float:
            data = example_dataset(examples, tokenizer)
            total, targets = accumulate_gradients(ours, data, next_token_loss, examples, how)
            take_step(ours, optimizer, targets, how.lr, how.clip)
            return total.item() / targets

        return our_step
    eot_id = Tokenizer.from_folder(folder).eot_id
    # The folder says: no dropout.
    theirs: torch.nn.Module = quiet_transformers().AutoModelForCausalLM.from_pretrained(folder).train().to(device)
    optimizer = make_optimizer(theirs, how)

    def their_step(examples: list[Example]) -> float:
        """What a loop around transformers does: a padded batch, logits everywhere, the mean over what has a target."""
        inputs, targets = (send(part, device) for part in collate(examples, eot_id))
        with autocast(device, precision):
            logits = theirs(inputs, use_cache=False).logits  # [B, T, V]
            loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE_INDEX)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), how.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return their_step


def bench_training(folder: Path, batches: list[list[Example]], device: torch.device, lora: int | None = None) -> None:
    """Steps in turns; the first round is a warm-up and the check that all compute the same. Prints a table."""
    precisions = precisions_of(device)
    updates = [] if lora is None else [(f"LoRA {lora}", precision) for precision in precisions]
    both = [(who, precision) for precision in precisions for who in WHO]
    sides = {side: training_side(*side, folder, device) for side in [*both, *updates]}
    rates: list[dict[str, float]] = []  # the machine takes its turn, too: what it can do changes with what else it has to do

    def machine(_: list[Example]) -> float:
        rates.append(product_rates(device, precisions))
        return torch.nan

    # A step gives a number, so a GPU has been waited for. Freed memory is kept, as in training; this makes both sides faster.
    with memory.kept():
        seconds, first = in_turns("training", {**sides, ("machine", ""): machine}, batches)
    counted = {side: seconds[side][1:] for side in sides}
    model, _ = load_pretrained(folder)
    rows = []
    for side, times in counted.items():
        speed = statistics.median(sum(len(e.ids) - 1 for e in b) / t for b, t in zip(batches[1:], times))
        share = statistics.median(needed_operations(model, b) / t / rate[side[1]]
                                  for b, t, rate in zip(batches[1:], times, rates[1:]))
        peak = peak_megabytes(one_step, *side, folder, batches[0]) if device.type == "cpu" else torch.nan
        rows.append([" ".join(side), f"{speed:,.0f}", *(f"{median_ratio(counted['transformers', p], times):.2f}"
                                                        for p in precisions),
                     "-" if side in updates else f"{share:.0%}",  # it leaves out a part of the operations
                     f"{peak:,.0f}", f"{first[side]:.4f}"])
    say("\n" + table(["training", "tokens/s", *(f"x transformers {p}" for p in precisions), "of the machine's rate", "peak MB",
                      "first loss"], rows))
    told = ", ".join(f"{statistics.median(rate[p] for rate in rates[1:]) / 1e9:,.0f} in {p}" for p in precisions)
    say(f"\nThis machine, in the same turns, in billions of operations a second: {told}.")


def answering_side(who: str, precision: str, folder: Path, device: torch.device,
                   max_new_tokens: int) -> Callable[[list[list[int]], int], int]:
    """A function (prompts, batch size) -> how many new tokens were made."""
    tokenizer = Tokenizer.from_folder(folder)
    if who == "ours":
        ours, _ = load_pretrained(folder, device)
        if precision == "int8":
            to_int8(ours)

        def our_answers(prompts: list[list[int]], batch_size: int) -> int:
            with evaluating(ours, precision):
                return sum(len(new.ids) + new.stopped for new in continue_all(ours, prompts, max_new_tokens, tokenizer.eot_id,
                                                                              batch_size))
        return our_answers
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    theirs = quiet_transformers().AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().to(device)

    def their_answers(prompts: list[list[int]], batch_size: int) -> int:
        """Batches of like length, padded on the left."""
        count, by_length = 0, sorted(prompts, key=len)
        for batch in (by_length[i:i + batch_size] for i in range(0, len(by_length), batch_size)):
            longest = max(map(len, batch))
            ids = torch.tensor([[tokenizer.eot_id] * (longest - len(p)) + p for p in batch], device=device)
            mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in batch], device=device)
            new = theirs.generate(ids, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False,
                                  pad_token_id=tokenizer.eot_id)[:, longest:]
            ended = (new == tokenizer.eot_id).long().cumsum(dim=1)
            count += int((ended - (new == tokenizer.eot_id).long() == 0).sum())  # up to the first end-of-text, it included
        return count

    return their_answers


def bench_answers(folder: Path, prompts: list[list[int]], sizes: Sequence[int], rounds: int, device: torch.device,
                  max_new_tokens: int) -> None:
    """Answers in turns, at each batch size; prints a table."""
    precisions = precisions_of(device)
    both = [(who, precision) for precision in precisions for who in WHO]
    sides = {side: answering_side(*side, folder, device, max_new_tokens)
             for side in (*both, *[("ours", "int8")] * (device.type == "cpu"))}
    rows = []
    for size in sizes:
        found, made = in_turns("answering", {side: partial(run, prompts) for side, run in sides.items()}, [size] * (rounds + 1))
        seconds = {side: times[1:] for side, times in found.items()}  # the first is a warm-up
        for side, times in seconds.items():
            rows.append([f"{' '.join(side)}, batch {size}", f"{made[side] / statistics.median(times):,.0f}",
                         *(f"{median_ratio(seconds['transformers', p], times):.2f}" for p in precisions)])
    say("\n" + table([f"answering {len(prompts)} prompts", "new tokens/s", *(f"x transformers {p}" for p in precisions)], rows))
    model, _ = load_pretrained(folder, device)
    weights = sum(p.numel() for p in model.parameters())
    rows = []
    weight_bytes = {"fp32": 4, "bf16": 2, "int8": 1}
    for precision, size in itertools.product([*precisions, *["int8"] * (device.type == "cpu")], (1, *sizes)):
        if precision == "int8" and size == 1:  # its first turn; the others stay so
            to_int8(model)
        rate = memory_rate(device)
        seconds_a_step = decoding_step(model, (prompts * size)[:size], precision, max_new_tokens)
        share = weights * weight_bytes[precision] / seconds_a_step / rate
        rows.append([f"batch {size}, {precision}", f"{1000 * seconds_a_step:.1f}", f"{share:.0%}", f"{rate / 1e9:.1f}"])
    say("\n" + table(["one more token of each text, ours", "ms", "of the memory's rate", "which is GB/s"], rows))


def decoding_step(model: GPT2, prompts: list[list[int]], precision: str, steps: int) -> float:
    """Seconds that one more token of each of these texts takes, when all have been read; by so many steps."""
    end_id = 0  # not end-of-text, but what a model seldom says: "!" or a zero byte. Texts should go on, and the batch stay full
    with evaluating(model, precision):
        reading, whole = (min(seconds_of(partial(continue_all, model, prompts, tokens, end_id, len(prompts)), model.device)
                              for _ in range(3)) for tokens in (1, 1 + steps))
    return (whole - reading) / steps


def peak_megabytes(work: Callable, *args: object) -> float:
    """The most memory that a new process takes while it does this."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_with_peak, work, *args).result()


def _with_peak(work: Callable, *args: object) -> float:
    work(*args)
    return peak_memory(torch.device("cpu")) / 1e6


def one_step(who: str, precision: str, folder: Path, examples: list[Example]) -> None:
    """Load, and take two steps (the optimizer's memory comes with the first): for `peak_megabytes`."""
    step = training_side(who, precision, folder, torch.device("cpu"))
    step(examples)
    step(examples)


def main() -> None:
    args = options.parse(BenchOptions, __doc__)
    quiet_transformers()  # ends here if it is missing
    device = pick_device(args.device)
    with tempfile.TemporaryDirectory() as made, beside(args.busy):
        folder = Path(made)
        save_pretrained(*model_of(args.model, args.smoke), folder)  # in a form that both read alike
        model, tokenizer = load_pretrained(folder)
        context = model.config.n_positions
        records = load_records(args.data, fields=args.fields, bad_rows=args.bad_rows).records
        examples = [e for e in (encode_record(r, tokenizer) for r in records) if len(e.ids) <= context]
        needed = args.batch_size * (args.rounds + 1)
        if len(examples) < needed:
            raise InputError(f"--data {args.data} has {len(examples)} records of up to {context} tokens; {args.rounds + 1} "
                             f"rounds of {args.batch_size} take {needed}.")
        batches = [examples[i:i + args.batch_size] for i in range(0, needed, args.batch_size)]
        tokens = sum(len(e.ids) - 1 for e in examples[:needed])
        say(f"{sum(p.numel() for p in model.parameters()):,} parameters on {device} ({pick_precision('auto', device)[1]}), "
            f"{torch.get_num_threads()} threads, "
            f"{args.busy} other processes compute meanwhile, {args.rounds} rounds. "
            f"{args.batch_size} records of {args.data} have {tokens / len(batches):.0f} tokens, "
            f"{sum(e.response_tokens for e in examples[:needed]) / tokens:.0%} of them in the loss.")
        bench_training(folder, batches, device, args.lora)
        prompts = [e.ids[:e.prompt_length] for e in examples if e.prompt_length + args.max_new_tokens <= context]
        if args.answers:
            bench_answers(folder, prompts[:args.answers], (2, 4) if args.smoke else (8, 32), args.rounds, device,
                          args.max_new_tokens)


if __name__ == "__main__":
    options.run_command(main)
