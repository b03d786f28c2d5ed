"""How fast is our training step? Side by side with transformers' GPT2LMHeadModel, in one run.

    python ch_instruct/bench.py                        # the 124M shape, random weights, classroom records
    python ch_instruct/bench.py --data my.json         # your own records: the share of supervised tokens matters

Both sides get the same weights, batches, optimizer and precision, and take turns, so a change in the machine's speed
meets all of them. Speeds are medians over the rounds; ratios are medians of the ratios within each round. Needs
transformers (pip install -r requirements-dev.txt).
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ch_instruct.collate import collate
from ch_instruct.encoding import encode_record
from ch_instruct.records import load_records
from common import options
from common.console import Progress, say, table
from common.device import autocast, pick_device, to_device
from common.files import InputError
from common.gpt2 import GPT2, GPT2Config
from common.losses import IGNORE_INDEX, next_token_loss
from common.pretrained import load_pretrained, save_pretrained
from common.tokenizer import Tokenizer
from common.training import TrainOptions, make_optimizer


def their_loss(model: torch.nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
    """What a loop around transformers does: logits everywhere, cross-entropy that skips what is not asked."""
    inputs, targets = batch
    logits = model(inputs, use_cache=False).logits  # [B, T, V]
    total = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum")
    return total, int((targets != IGNORE_INDEX).sum())


def take_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: Callable, batch: tuple[Tensor, Tensor],
              precision: str) -> tuple[float, float]:
    """One optimizer step. Returns seconds and the loss before it, in nats per target."""
    device = batch[0].device
    start = time.perf_counter()
    with autocast(device, precision):
        total, count = loss(model, batch)
    mean = total / count
    mean.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    value = mean.item()  # on a GPU this waits for the work to be done
    return time.perf_counter() - start, value


def main() -> None:
    parser = options.Parser(__doc__)
    parser.add_argument("--data", default="classroom", metavar="D",
                        help="classroom, a public set by name, or a .json or .jsonl file of records (default: %(default)s)")
    parser.add_argument("--batch-size", type=options.whole, default=16, metavar="N",
                        help="records in a batch (default: %(default)s)")
    parser.add_argument("--rounds", type=options.whole, default=5, metavar="N",
                        help="counted steps of each side, after one that is not (default: %(default)s)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"],
                        help="where to compute (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="a tiny model, to see that everything runs")
    args = parser.parse_args()
    try:
        from transformers import GPT2LMHeadModel
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise InputError("This comparison needs transformers: pip install -r requirements-dev.txt") from error

    disable_progress_bar()  # theirs; ours stays
    device = pick_device(args.device)
    tokenizer = Tokenizer.gpt2()
    records = load_records(args.data).records[:args.batch_size * (args.rounds + 1)]
    examples = [example for example in (encode_record(r, tokenizer) for r in records) if len(example.ids) <= 1024]
    if len(examples) < args.batch_size:
        raise InputError(f"--data {args.data} has {len(examples)} records of up to 1024 tokens; a batch takes "
                         f"{args.batch_size}.")
    batches = [to_device(collate(examples[i:i + args.batch_size], tokenizer.eot_id), device)
               for i in range(0, len(examples) - args.batch_size + 1, args.batch_size)]

    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_embd": 64, "n_head": 2} if args.smoke else {}
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(GPT2(GPT2Config(**shape)), tokenizer, folder)
        sides = {}
        for precision in ("fp32", "bf16"):
            ours, _ = load_pretrained(Path(folder), device)
            theirs: torch.nn.Module = GPT2LMHeadModel.from_pretrained(folder)  # the folder says: no dropout
            for name, model, loss in (("transformers", theirs, their_loss), ("ours", ours, next_token_loss)):
                sides[name, precision] = (model.train(), make_optimizer(model, TrainOptions(1, 1, 1, 1e-5, precision)), loss)

    first: dict[tuple[str, str], float] = {}
    seconds: dict[tuple[str, str], list[float]] = {side: [] for side in sides}
    with Progress("rounds", (args.rounds + 1) * len(sides), "step") as progress:
        for turn in range(args.rounds + 1):
            for (name, precision), (model, optimizer, loss) in sides.items():
                took, value = take_step(model, optimizer, loss, batches[turn % len(batches)], precision)
                if turn == 0:  # warm-up, and the check that both compute the same
                    first[name, precision] = value
                else:
                    seconds[name, precision].append(took)
                progress.advance(1)

    tokens = [sum(len(e.ids) - 1 for e in examples[i * args.batch_size:(i + 1) * args.batch_size]) for i in range(len(batches))]
    counted = [tokens[turn % len(batches)] for turn in range(1, args.rounds + 1)]
    supervised = sum(int((targets != IGNORE_INDEX).sum()) for _, targets in batches) / sum(tokens)
    parameters = sum(p.numel() for p in sides["ours", "fp32"][0].parameters())
    say(f"{parameters:,} parameters, {len(batches)} batches of {args.batch_size} records from {args.data}, "
        f"{sum(tokens) / len(batches):.0f} tokens each without padding, {supervised:.0%} of them supervised; {device}, "
        f"{torch.get_num_threads()} threads, {args.rounds} rounds\n")

    rows = []
    for side, times in seconds.items():
        speed = statistics.median(n / t for n, t in zip(counted, times))
        ratios = [statistics.median(t / mine for t, mine in zip(seconds["transformers", p], times)) for p in ("fp32", "bf16")]
        rows.append([" ".join(side), f"{speed:,.0f}", f"{ratios[0]:.2f}", f"{ratios[1]:.2f}", f"{first[side]:.4f}"])
    say(table(["", "tokens/s", "x transformers fp32", "x transformers bf16", "first loss"], rows))


if __name__ == "__main__":
    options.run_command(main)
