"""How fast are utilities and greedy choice? Compares them with the straightforward ways, in one run.

    python ch_delift/lab/bench.py                     # the 124M shape, random weights, classroom records
    python ch_delift/lab/bench.py --data my.json      # your own records: lengths matter
    python ch_delift/lab/bench.py --model smollm2     # another model

Utilities: ours against transformers' model on the same texts, example and target concatenated, padded, run whole, with logits
everywhere; in bf16, too, where there are instructions for it. Few targets: what a pair costs where an example is tried on
some neighbours only. Greedy: ours against submodlib's LazyGreedy on the same kernels. Cheaper kernels: how much of the
objective of all pairs a choice from fewer pairs reaches. All sides take turns, so a change in the machine's speed meets all
of them; ratios are medians of the ratios within each turn. Peak memory is that of a process of its own which does only this.
Needs transformers and submodlib-py (pip install -r requirements-dev.txt).
"""

import contextlib
import io
import statistics
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ch_instruct.support.data_forms import RecordOptions
from common.support import options
from common.support.console import say, table
from common.support.files import InputError, needs
from common.support.options import natural, option, whole


@dataclass(frozen=True)
class BenchOptions(RecordOptions):
    """The options of this command."""

    data: str = option("classroom", "classroom, or a .json or .jsonl file of Alpaca records (default: %(default)s)",
                       metavar="D")
    model: str | None = option(None, "a model as for --model elsewhere (default: the shape of gpt2, random)", metavar="M")
    targets: int = option(64, "targets (default: %(default)s)", whole, metavar="N")
    candidates: int = option(4, "candidates tried on them in each turn (default: %(default)s)", whole, metavar="N")
    rounds: int = option(3, "turns of each side (default: %(default)s)", whole, metavar="N")
    records: int = option(200, "records for the comparison of cheaper kernels, all pairs of which are measured once (default: "
                          "%(default)s)", whole, metavar="N")
    busy: int = option(0, "other processes that compute meanwhile (default: %(default)s)", natural, metavar="N")
    smoke: bool = option(False, "a tiny model and small kernels, to see that everything runs")


if __name__ == "__main__":
    options.run_command(options.parse, BenchOptions, __doc__)  # --help and wrong options end here: imports take seconds

import numpy as np
import torch
from scipy import sparse

from ch_delift.baselines import random_subset
from ch_delift.fast.shared_prefix import Targets
from ch_delift.greedy import maximize
from ch_delift.submodular import FacilityLocation
from ch_delift.utility import plain_utility, shown, similarity, utility_matrix
from ch_instruct.encoding import Example, encode_record
from ch_instruct.lab.bench import beside, in_turns, median_ratio, model_of, peak_megabytes, precisions_of
from ch_instruct.records import load_records
from ch_pretrain import classroom
from common.embedding import mean_hidden_states, nearest, unit
from common.pretrained import load_pretrained, save_pretrained
from common.support.device import autocast, evaluating
from common.support.verify import quiet_transformers
from common.tokenizer import Tokenizer

PRECISIONS = precisions_of(torch.device("cpu"))
KERNEL_SIZES = (2000, 8000)
NEIGHBOURS, DENSE = (8, 32, 64, 128), 64  # targets for each example
FRACTION = 0.3


def utility_side(who: str, precision: str, folder: Path) -> Callable[[list[Example], list[Example]], np.ndarray]:
    """A function (targets, candidates) -> utilities, with the model in this folder."""
    if who == "ours":
        model, tokenizer = load_pretrained(folder)

        def ours(targets: list[Example], candidates: list[Example]) -> np.ndarray:
            with contextlib.redirect_stdout(io.StringIO()):  # a report each turn would be in the way
                return utility_matrix(model, tokenizer, targets, candidates, precision=precision)

        return ours
    tokenizer = Tokenizer.from_folder(folder)
    model = quiet_transformers().AutoModelForCausalLM.from_pretrained(folder).eval()

    def run(targets: list[Example], candidates: list[Example]) -> np.ndarray:
        with autocast(torch.device("cpu"), precision):
            return plain_utility(lambda ids: model(ids, use_cache=False).logits, tokenizer, targets, candidates)

    return run


def kernel(n: int) -> np.ndarray:
    """Similarities of n random points, as positive cosines: float32 [n, n]."""
    points = unit(np.random.default_rng(0).normal(size=(n, 16)).astype(np.float32))
    return np.maximum(points @ points.T, 0)


def greedy_side(who: str) -> Callable[[np.ndarray, int], list[int]]:
    """A function (kernel, budget) -> chosen ids, by facility location."""
    if who == "ours":
        return lambda K, budget: maximize(FacilityLocation(K), budget)[0]
    import submodlib

    def run(K: np.ndarray, budget: int) -> list[int]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of SciPy, by submodlib
            function = submodlib.FacilityLocationFunction(n=len(K), mode="dense", separate_rep=False, sijs=K)
            return [i for i, _ in function.maximize(budget=budget, optimizer="LazyGreedy", show_progress=False)]

    return run


def one_utility(who: str, precision: str, folder: Path, targets: list[Example], candidates: list[Example]) -> None:
    """Load, and compute one matrix: for `peak_megabytes`."""
    utility_side(who, precision, folder)(targets, candidates)


def one_greedy(who: str, n: int) -> None:
    """Make a kernel and choose: for `peak_megabytes`."""
    greedy_side(who)(kernel(n), int(FRACTION * n))


def bench_utilities(folder: Path, targets: list[Example], turns: list[list[Example]]) -> None:
    """Part (a), and its memory: prints a table."""
    sides = {(who, precision): utility_side(who, precision, folder)
             for precision in PRECISIONS for who in ("concatenated", "ours")}
    seconds, first = in_turns("utilities", {side: partial(run, targets) for side, run in sides.items()}, turns)
    pairs = len(targets) * len(turns[0])
    plain = first["concatenated", "fp32"]
    say("\n" + table(["utilities", "pairs/s", *(f"x concatenated {p}" for p in PRECISIONS), "largest difference", "peak MB"], [
        [" ".join(side), f"{statistics.median(pairs / s for s in seconds[side]):.1f}",
         *(f"{median_ratio(seconds['concatenated', p], seconds[side]):.2f}" for p in PRECISIONS),
         f"{np.abs(first[side] - plain).max():.0e}",
         f"{peak_megabytes(one_utility, *side, folder, targets, turns[0][:1]):,.0f}" if side[1] == "fp32" else "-"]
        for side in sides]))


def bench_neighbours(folder: Path, targets: list[Example], examples: list[Example]) -> None:
    """What a pair costs where each example is tried on few targets, against 64: prints a table."""
    model, tokenizer = load_pretrained(folder)
    rows = []

    def behind(ready: Targets, number: int, example: Example) -> np.ndarray:
        return ready.distances(shown(example, tokenizer), range(number))

    for precision in PRECISIONS:
        with evaluating(model, precision):
            ready = Targets(model, targets, tokenizer.eot_id)
            seconds, _ = in_turns("few targets", {number: partial(behind, ready, number) for number in NEIGHBOURS}, examples)
        rows += [[f"{precision}, {number} targets for each example", f"{number / statistics.median(times):.1f}",
                  f"{median_ratio(times, seconds[DENSE]) * DENSE / number:.2f}"] for number, times in seconds.items()]
    say("\n" + table(["few targets", "pairs/s", f"cost of a pair, with {DENSE}: 1"], rows))


def bench_greedy(sizes: Sequence[int], rounds: int) -> None:
    """Part (b), and its memory: prints a table."""
    rows = []
    sides = {who: greedy_side(who) for who in ("submodlib", "ours")}
    for n in sizes:
        K, budget = kernel(n), int(FRACTION * n)
        seconds, chosen = in_turns("greedy", {who: partial(run, K) for who, run in sides.items()}, [budget] * rounds)
        rows += [[f"{who}, {n:,} candidates, {budget:,} chosen", f"{statistics.median(s):.2f}",
                  f"{median_ratio(seconds['submodlib'], s):.2f}", f"{FacilityLocation(K).value(chosen[who]):.4f}",
                  f"{peak_megabytes(one_greedy, who, n):,.0f}" if n == max(sizes) else "-"] for who, s in seconds.items()]
    say("\n" + table(["greedy facility location", "seconds", "x submodlib LazyGreedy", "objective", "peak MB"], rows))


def bench_kernels(records: list[dict]) -> None:
    """Part (c): how much of the full kernel's objective do choices from fewer pairs reach? Prints a table."""
    n, budget = len(records), int(FRACTION * len(records))
    model, tokenizer = load_pretrained("classroom")
    examples = [encode_record(record, tokenizer) for record in records]
    s = similarity(utility_matrix(model, tokenizer, examples, examples))
    whole, everything = FacilityLocation(s), maximize(FacilityLocation(s), budget)[0]
    vectors = mean_hidden_states(model, [example.ids for example in examples])

    def by_neighbours(number: int) -> list[int]:
        tried, _ = nearest(vectors, vectors, number)
        values, row = np.take_along_axis(s, tried, axis=1), np.repeat(np.arange(n), number)
        return maximize(FacilityLocation(sparse.coo_array((values.ravel(), (row, tried.ravel())), (n, n))), budget)[0]

    choices = {("all", 1.0): [everything]}
    for number in (64, 32, 16, 8, 4):
        if number < n:
            choices[f"neighbours:{number}", number / n] = [by_neighbours(number)]
    choices["none (random subset)", 0.0] = [random_subset(n, budget, seed) for seed in range(5)]
    say("\n" + table([f"--pairs, {n} records, {budget} chosen", "pairs measured", "objective reached"], [
        [name, f"{share:.1%}", f"{statistics.mean(map(whole.value, chosen)) / whole.value(everything):.1%}"]
        for (name, share), chosen in choices.items()]))


def main() -> None:
    args = options.parse(BenchOptions, __doc__)
    with needs("transformers and submodlib-py"):
        import submodlib  # noqa: F401
        import transformers  # noqa: F401

    loaded = load_records(args.data, fields=args.fields, bad_rows=args.bad_rows)
    records = [r for r in loaded.records if r.get("split", "train") == "train"]
    needed = args.targets + args.candidates * args.rounds
    if len(records) < needed:
        raise InputError(f"--data {args.data} has {len(records)} records; {args.targets} targets and {args.rounds} rounds of "
                         f"{args.candidates} candidates take {needed}.")
    model, tokenizer = model_of(args.model, args.smoke)
    examples = [encode_record(record, tokenizer) for record in records[:needed]]
    targets, rest = examples[:args.targets], examples[args.targets:]
    turns = [rest[i:i + args.candidates] for i in range(0, len(rest), args.candidates)]
    say(f"{torch.get_num_threads()} threads, {args.busy} other processes compute meanwhile, {args.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder, beside(args.busy):
        save_pretrained(model, tokenizer, folder)
        bench_utilities(Path(folder), targets, turns)
        bench_neighbours(Path(folder), (examples[:args.targets] * max(NEIGHBOURS))[:max(NEIGHBOURS)], rest)
    bench_greedy((100, 200) if args.smoke else KERNEL_SIZES, args.rounds)
    pool = [r for r in classroom.records() if r["split"] == "train"]
    bench_kernels(pool[:10 if args.smoke else args.records])


if __name__ == "__main__":
    options.run_command(main)
