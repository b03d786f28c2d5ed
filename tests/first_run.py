"""The first day on a machine: does everything compute here what it should, and how fast? One text file, to read or to send.

    python -m tests.first_run                   # the model that ships with the repository, a minute
    python -m tests.first_run --model gpt2      # public weights, fetched at first use; on a GPU where there is one

Parts: the machine and its versions; the weights and their hash; the model against transformers, layer by layer; ten training
steps; twenty answers; some utilities. The last three run on the CPU in fp32, on the device in fp32, and on the device in the
precision that training would take, and are compared with the first of these. If a part fails, the report has its error, and the
next part goes on. Exit status 1 if anything failed or differs.
"""

import platform
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from common.support import options
from common.support.console import say, shorten, table
from common.support.files import InputError, sha256, write_text
from common.support.options import ModelOption, PrecisionOption, new_file, option


@dataclass(frozen=True)
class FirstRunOptions(PrecisionOption, ModelOption):
    """The options of this command."""

    device: str = option("auto", "where to compute (default: %(default)s)", choices=["auto", "cpu", "cuda"])
    out: Path = option("first_run.txt", "a new file for the report (default: %(default)s)", new_file, metavar="FILE")


if __name__ == "__main__":
    options.run_command(options.parse, FirstRunOptions, __doc__)  # --help and wrong options end here: imports take seconds

import numpy as np
import torch

from ch_delift.utility import plain_utility, utility_matrix
from ch_instruct.encoding import Example, encode_record
from ch_instruct.lab.bench import memory_rate, needed_operations, product_rates, training_side
from ch_pretrain import classroom
from common.fast.answering import Continuation, continue_all
from common.pretrained import PUBLIC, find_folder, load_pretrained
from common.support.device import evaluating, pick_device, pick_precision
from common.support.runs import git_commit
from common.support.verify import against_transformers, likely_cause

STEPS, BATCH = 10, 8  # of training
ANSWERS, MAX_NEW_TOKENS = 20, 32
UTILITIES = 4  # targets, and as many examples
LIBRARIES = ("torch", "transformers", "numpy", "tiktoken", "safetensors", "huggingface_hub")
# How far a loss (as a share of itself) and a utility may be from those of the CPU in fp32.
TOLERANCE = {"fp32": 1e-3, "bf16": 3e-2}
NEAR_TIES = 2  # so many answers may differ in fp32: where two tokens are nearly as likely, rounding decides
# What PyTorch and the libraries raise where something is missing here or does not work.
FAULTS = (AssertionError, AttributeError, ImportError, InputError, OSError, RuntimeError, TypeError, ValueError)


@cache
def rates_of(device: torch.device) -> dict[str, float]:
    """What this machine can do: operations a second in fp32 and bf16, and bytes a second ("memory")."""
    return product_rates(device) | {"memory": memory_rate(device)}


class Setting(NamedTuple):
    """What is looked at."""

    name: str  # as --model says
    folder: Path
    device: torch.device
    precision: str
    examples: list[Example]  # of the classroom's test part, as long as the model reads

    @property
    def sides(self) -> list[tuple[torch.device, str]]:
        """Where and how the parts compute; the first is what the others are compared with."""
        cpu = torch.device("cpu")
        return list(dict.fromkeys([(cpu, "fp32"), (self.device, "fp32"), (self.device, self.precision)]))


Part = tuple[str, bool]  # text for the report, and whether all is as it should be


def machine(given: Setting) -> Part:
    """Processor or GPU, versions, commit."""
    versions = []
    for library in LIBRARIES:
        try:
            versions.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            versions.append(f"no {library}")
    lines = [f"{platform.platform()}, Python {platform.python_version()}, {torch.get_num_threads()} threads",
             ", ".join(versions), f"commit {git_commit()}", f"computes on {given.device} in {given.precision}"]
    if given.device.type == "cuda":
        gpu = torch.cuda.get_device_properties(given.device)
        lines.append(f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB, compute capability {gpu.major}.{gpu.minor}, "
                     f"CUDA {torch.version.cuda}")
    rates = rates_of(given.device)
    lines.append(f"{rates['fp32'] / 1e9:,.0f} billion operations a second in fp32, {rates['bf16'] / 1e9:,.0f} in bf16; reads "
                 f"{rates['memory'] / 1e9:,.1f} GB a second")
    return "\n".join(lines), True


def weights(given: Setting) -> Part:
    """Where they come from, and their hash. (Weights that differ from their pin were refused when they were fetched.)"""
    pin = PUBLIC.get(given.name)
    lines = [f"{pin.repo}, revision {pin.revision}" if pin else str(given.folder)]
    for path in sorted(given.folder.glob("model*.safetensors")):
        known = pin and pin.sha256
        lines.append(f"{path.name}: {path.stat().st_size:,} bytes, SHA-256 {sha256(path)} "
                     f"({'as pinned' if known else 'nothing is pinned'})")
    return "\n".join(lines), True


def parity(given: Setting) -> Part:
    """Our model and tokenizer against those of transformers, where these are installed."""
    if find_spec("transformers") is None:
        return "transformers is not installed, nothing compared (pip install -r requirements-dev.txt)", True
    ids, their_ids, rows = against_transformers(given.name)
    wrong = [place for place, _, agrees in rows if not agrees]
    said = f"tokens {'equal' if ids == their_ids else 'DIFFER'}; largest difference in {len(rows)} places "
    said += f"{max(difference for _, difference, _ in rows):.1e}"
    if wrong:
        said += f"; first DIFFERS: {wrong[0]}. Likely cause: {likely_cause(wrong[0])}"
    return said, ids == their_ids and not wrong


def training(given: Setting) -> Part:
    """The loop's own step, ten times on the same records: the loss falls, and is that of the CPU."""
    batch, (model, _) = given.examples[:BATCH], load_pretrained(given.folder)
    rows, right = [], True
    expected: list[float] = []  # the losses of the first side
    for device, precision in given.sides:
        step = training_side("ours", precision, given.folder, device)
        losses, seconds = [], []
        for _ in range(STEPS):
            start = time.perf_counter()
            losses.append(step(batch))  # a number, so a GPU has been waited for
            seconds.append(time.perf_counter() - start)
        expected = expected or losses
        off = max(abs(a - b) / b for a, b in zip(losses, expected))
        right &= off <= TOLERANCE[precision] and losses[-1] < losses[0]
        typical = float(np.median(seconds[1:]))  # the first is a warm-up
        share = needed_operations(model, batch) / typical / rates_of(device)[precision]
        rows.append([f"{device} {precision}", f"{losses[0]:.4f}", f"{losses[-1]:.4f}", f"{off:.1e}",
                     f"{sum(len(e.ids) - 1 for e in batch) / typical:,.0f}", f"{share:.0%}"])
    return table([f"{STEPS} steps, {BATCH} records", "first loss", "last loss", "off by", "tokens/s", "of the machine's rate"],
                 rows), right


def answers(given: Setting) -> Part:
    """Greedy answers to questions of the classroom: those of the CPU, and how fast."""
    prompts = [e.ids[:e.prompt_length] for e in given.examples[:ANSWERS]]
    rows, right = [], True
    expected: list[Continuation] = []  # the answers of the first side
    for device, precision in given.sides:
        model, tokenizer = load_pretrained(given.folder, device)
        with evaluating(model, precision):
            continue_all(model, prompts[:1], 2, tokenizer.eot_id, 1)  # a warm-up
            start = time.perf_counter()
            found = continue_all(model, prompts, MAX_NEW_TOKENS, tokenizer.eot_id, ANSWERS)
            seconds = time.perf_counter() - start
        expected = expected or found
        equal = sum(a.ids == b.ids for a, b in zip(found, expected))
        right &= precision != "fp32" or len(prompts) - equal <= NEAR_TIES
        made = sum(len(new.ids) + new.stopped for new in found)
        size = sum(p.numel() for p in model.parameters()) * (2 if precision == "bf16" else 4)
        share = made / ANSWERS * size / seconds / rates_of(device)["memory"]  # the weights are read once a full batch
        rows.append([f"{device} {precision}", f"{equal} of {len(prompts)}", f"{made / seconds:,.0f}", f"{share:.0%}"])
    texts = [f"  {shorten(tokenizer.decode(p), 1000)[-60:]} -> {shorten(tokenizer.decode(new.ids), 60)}"
             for p, new in zip(prompts, found)]
    return "\n".join([table(["answers", "as on the CPU", "new tokens/s", "of the memory's rate"], rows), *texts]), right


def utilities(given: Setting) -> Part:
    """DELIFT's utilities: by their definition on the CPU, and as they are really computed."""
    targets, candidates = given.examples[:UTILITIES], given.examples[UTILITIES:2 * UTILITIES]
    model, tokenizer = load_pretrained(given.folder)
    expected = plain_utility(model, tokenizer, targets, candidates)
    rows, right = [], True
    for device, precision in given.sides:
        model, tokenizer = load_pretrained(given.folder, device)
        start = time.perf_counter()
        found = utility_matrix(model, tokenizer, targets, candidates, precision)
        seconds = time.perf_counter() - start
        off = float(np.abs(found - expected).max())
        right &= off <= TOLERANCE[precision]
        rows.append([f"{device} {precision}", f"{off:.1e}", f"{found.size / seconds:,.1f}"])
    return table([f"{UTILITIES} x {UTILITIES} utilities", "off by", "pairs/s"], rows), right


PARTS: list[Callable[[Setting], Part]] = [machine, weights, parity, training, answers, utilities]


def read_setting(name: str, device_name: str, precision: str) -> Setting:
    """Find (or fetch) the model, choose the device, encode one question after the other of each family.

    Raises:
        InputError: if there is no such model or device, or the model reads too little.
    """
    device = pick_device(device_name)
    folder = find_folder(name)
    model, tokenizer = load_pretrained(folder)
    by_family: dict[str, list[dict]] = {}
    for record in classroom.records():
        if record["split"] == "test":
            by_family.setdefault(record["family"], []).append(record)
    records = [record for together in zip(*by_family.values()) for record in together]
    room = model.config.n_positions - MAX_NEW_TOKENS
    examples = [e for e in (encode_record(r, tokenizer) for r in records) if len(e.ids) <= room]
    if len(examples) < ANSWERS:
        raise InputError(f"--model {name} reads {model.config.n_positions} tokens, which is too little for {ANSWERS} questions "
                         "of the classroom; use another model.")
    return Setting(name, folder, device, pick_precision(precision, device)[0], examples)


def main() -> None:
    args = options.parse(FirstRunOptions, __doc__)
    given = read_setting(args.model, args.device, args.precision)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    report, wrong = [f"First run of {given.name}\n"], []
    for part in PARTS:
        try:
            text, right = part(given)
        except FAULTS:
            text, right = traceback.format_exc(), False
        if not right:
            wrong.append(part.__name__)
        report.append(f"== {part.__name__}: {'as it should be' if right else 'NOT AS IT SHOULD BE'}\n{text}\n")
        write_text(args.out, "\n".join(report))  # what is known is kept, whatever comes
        say(report[-1])
    report.append("Everything is as it should be." if not wrong else f"Not as it should be: {', '.join(wrong)}.")
    write_text(args.out, "\n".join(report) + "\n")
    say(f"{report[-1]}\nAll of this is in {args.out}")
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    options.run_command(main)
