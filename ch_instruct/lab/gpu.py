"""Is training on a GPU faster with shapes that stay the same (`common/fast/packed.py`)? Ways and a peer take turns.

    python ch_instruct/lab/gpu.py        # on a machine with a CUDA GPU; about eight minutes

**Not run on a GPU so far**: its code is tested on a CPU, with a tiny model. Steps of the training loop, with random tokens, for
models of three shapes with random weights: 8 and 32 records (rows of 40 to 400 tokens), and 8 full rows of 1,024.

    padded               rows as long as the longest, attention by PyTorch's fused kernel
    padded, compiled     the same; blocks and loss are compiled. This is the peer. It stands for nanoGPT compiled, which is no
                         part of this repository, also runs the head where no target is, and compiles what lies between blocks
    today's              without padding, as the chapters train
    packed, compiled     without padding, filled up to one of few numbers of tokens; for full rows this is "padded, compiled"
    packed, graphs       the same, each block a CUDA graph; for the smallest shape

A batch's first row is always the longest, so "padded, compiled" meets one shape for each load. In training it would meet
many: this favours the peer. The loss of a batch, and the gradient of the first block's attention, are compared with those
of "padded" in fp32. If a way fails or differs too much, the exit status is 1.
"""

import copy
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from operator import itemgetter

from common.support import options
from common.support.console import say, shorten, table
from common.support.files import InputError

if __name__ == "__main__":
    options.run_command(options.parse, options.Options, __doc__)  # --help and wrong options end here: imports take seconds

import torch
import torch.nn.functional as F
from torch import Tensor

from ch_instruct.collate import collate
from ch_instruct.encoding import Example
from ch_instruct.lab.bench import in_turns, median_ratio
from common.fast.packed import compile_blocks, run_packed
from common.fast.views import places, run, take
from common.gpt2 import GPT2, GPT2Config
from common.losses import IGNORE_INDEX, up_to_last_target
from common.support.device import pick_device, pick_precision, send
from common.support.runs import git_commit
from common.training import Dataset, TrainOptions, accumulate_gradients, make_optimizer, take_step

# If compiling takes long, the last of these are left out.
SHAPES = {"classroom": GPT2Config(vocab_size=3072, n_embd=256, n_layer=4, n_head=4),
          "355M": GPT2Config(n_embd=1024, n_layer=24, n_head=16), "124M": GPT2Config()}
LOADS = {"8 full rows": (8, 1024, 1024), "8 records": (8, 40, 400), "32 records": (32, 40, 400)}  # rows, tokens from, to
BATCHES, WARM_UPS, ROUNDS = 3, 4, 3  # all batches take so many turns uncounted (the third captures graphs), and counted
SECONDS = 330  # no load begins later
TOLERANCE = {"fp32": (1e-5, 1e-3), "bf16": (1e-2, 0.1)}  # how far loss and gradient may be off, as a share of those in fp32
FAULTS = (AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError)

Batch = tuple[Tensor, Tensor]
States = Callable[[GPT2, Tensor, Tensor], Tensor]  # (model, ids, needed positions) -> hidden states
PEER, GRAPHS = "padded, compiled", "packed, graphs"
WAYS: dict[str, tuple[States, dict[str, str] | None]] = {  # with options of torch.compile; None: not compiled
    "padded": (lambda model, ids, needed: run(model, ids), None),
    PEER: (lambda model, ids, needed: run(model, ids), {}),
    "today's": (lambda model, ids, needed: run(model, ids, needed=needed), None),
    "packed, compiled": (run_packed, {}),
    GRAPHS: (run_packed, {"mode": "reduce-overhead"})}


def random_batch(rows: int, shortest: int, longest: int, vocab_size: int, seed: int) -> Batch:
    """Rows of random tokens, the first the longest. In records, the first third is prompt."""
    dice = random.Random(seed)
    texts = [[dice.randrange(vocab_size) for _ in range(1 + (dice.randint(shortest, longest) if row else longest))]
             for row in range(rows)]
    return collate([Example(ids, len(ids) // 3 if shortest < longest else 0) for ids in texts])


def summed_loss(model: GPT2, hidden: Tensor, wanted: Tensor) -> Tensor:
    """Of states [N, D] with targets [N]: a scalar."""
    return F.cross_entropy(model.logits(hidden).float(), wanted, reduction="sum")


def gradients_by(way: str, shared: GPT2, precision: str) -> Callable[[Batch], tuple[Tensor, int]]:
    """The loop's `accumulate_gradients` for one batch, with modules of this way's own, but weights that all ways share."""
    states, compiled = WAYS[way]
    own, head, cuda = copy.deepcopy(shared, {id(p): p for p in shared.parameters()}), summed_loss, shared.device.type == "cuda"
    if compiled is not None and cuda:
        compile_blocks(own, **compiled)
        head = torch.compile(summed_loss, dynamic=True)  # each batch has another number of targets

    def loss(model: GPT2, batch: Batch) -> tuple[Tensor, int]:
        """As `losses.next_token_loss`."""
        if cuda:
            torch.compiler.cudagraph_mark_step_begin()  # graphs may use their memory again
        inputs, targets = batch
        hidden = states(model, send(inputs, model.device), up_to_last_target(targets))
        chosen = places(targets != IGNORE_INDEX, model.device)
        return head(model, take(hidden, chosen), take(send(targets, model.device), chosen)), len(chosen)

    data, how = Dataset([], itemgetter(0), len), TrainOptions(1, 1, 1, 0.0, precision)
    return lambda batch: accumulate_gradients(own, data, loss, [batch], how)


def compared(gradients: Callable, shared: GPT2, batch: Batch) -> tuple[float, Tensor]:
    """The mean loss, and the gradient of the first block's attention, which comes through all others."""
    shared.zero_grad()
    total, targets = gradients(batch)
    gradient = {name: p.grad for name, p in shared.named_parameters() if p.grad is not None}["h.0.attn.c_attn.weight"]
    shared.zero_grad()
    return total.item() / targets, gradient / targets


def measure(name: str, load: tuple[int, int, int], ways: list[str], shared: GPT2,
            precision: str) -> tuple[list[list[str]], list[str]]:
    """A row of the table for each way that works; and, in sentences, what fails or differs too much."""
    batches = [random_batch(*load, shared.config.vocab_size, seed) for seed in range(BATCHES)]
    tokens = [int(up_to_last_target(targets).sum()) for _, targets in batches] * ROUNDS
    expected, reference = compared(gradients_by("padded", shared, "fp32"), shared, batches[0])
    optimizer, cuda = make_optimizer(shared, TrainOptions(1, 1, 1, 0.0, precision)), shared.device.type == "cuda"

    def step(gradients: Callable, batch: Batch) -> float:
        """The loop's own, at a learning rate of 0: all ways meet the same weights. A number, so a GPU has been waited for."""
        return take_step(shared, optimizer, gradients(batch)[1], 0.0, 1.0).item()

    steps: dict[str, Callable[[Batch], float]] = {}
    ends, wrong = {}, []
    for way in ways:
        try:
            gradients = gradients_by(way, shared, precision)
            loss, gradient = compared(gradients, shared, batches[0])
            for batch in batches * WARM_UPS:
                if cuda:
                    torch.cuda.reset_peak_memory_stats()  # what counts is the last step
                step(gradients, batch)
        except FAULTS as error:
            wrong.append(told(f"{name}, {way}", error))
            continue
        off = abs(loss - expected) / expected, float((gradient - reference).norm() / reference.norm())
        peak = f"{torch.cuda.max_memory_allocated() / 1e9:.2f}" if cuda else "-"
        steps[way], ends[way] = partial(step, gradients), [peak, f"{loss:.4f}", *map("{:.1e}".format, off)]
        if not all(a <= b for a, b in zip(off, TOLERANCE[precision])):
            wrong.append(f"{name}, {way}: loss and gradient are off by {off[0]:.1e} and {off[1]:.1e} of those in fp32.")
    shared.zero_grad()
    seconds, _ = in_turns(name, steps, batches * ROUNDS)
    return [[f"{name}, {way}", f"{1000 * statistics.median(times):.1f}",
             f"{statistics.median(n / t for n, t in zip(tokens, times)):,.0f}",
             *(f"{median_ratio(seconds[other], times):.2f}" if other in seconds else "-" for other in ("padded", PEER)),
             *ends[way]] for way, times in seconds.items()], wrong


def told(what: str, error: Exception) -> str:
    """What failed, in a line."""
    return f"{what}: {type(error).__name__}: {shorten(str(error), 400)}"


def cuda_gpu() -> torch.device:
    """Or an `InputError`."""
    if not torch.cuda.is_available():
        raise InputError("PyTorch sees no CUDA GPU here, and this command measures nothing else; for a CPU there is "
                         "python ch_instruct/lab/bench.py.")
    return pick_device("cuda")


def main() -> None:
    options.parse(options.Options, __doc__)
    start, device = time.monotonic(), cuda_gpu()
    precision = pick_precision("auto", device)[0]
    say(f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}, Python "
        f"{platform.python_version()}, commit {git_commit()}, {precision}")
    rows: list[list[str]] = []
    wrong: list[str] = []
    for shape, config in SHAPES.items():
        torch._dynamo.reset()  # what was compiled for another shape only takes time to look through
        torch.manual_seed(0)
        shared = GPT2(config).to(device)
        ways = [way for way in WAYS if way != GRAPHS or shape == next(iter(SHAPES))]
        for load, size in LOADS.items():
            try:
                if time.monotonic() - start > SECONDS:
                    raise TimeoutError(f"left out, as {SECONDS} seconds were over")
                found, differs = measure(f"{shape}, {load}", size, ways, shared, precision)
                rows, wrong = rows + found, wrong + differs
            except FAULTS as error:  # of "padded", with which the others are compared, or while time is taken
                wrong.append(told(f"{shape}, {load}", error))
    say("\n" + table(["a step", "ms", "tokens/s", "x padded", f"x {PEER}", "peak GB", "loss", "off by", "its gradient"], rows))
    say("\n".join(["", *wrong]) if wrong else "\nAll ways work, and agree with fp32.")
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    options.run_command(main)
