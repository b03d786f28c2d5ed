"""What was measured by `where_it_pays.py`, as a page: RESULTS.md is what this command makes of the journal beside it.

    python ch_sftmix/lab/tables.py                                                     # prints it
    python ch_sftmix/lab/tables.py --map runs/sftmix_map/trials.jsonl --out mine.md    # of a run of your own, finished or not

An entry of a journal is one training: noise, data seed, arm, and what `measure` found. Differences are taken within each data
set that has both arms. What is not measured is told so, and no test is made before all data sets are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from common.support import options
from common.support.console import say, table
from common.support.files import Journal, write_text
from common.support.options import Options, option

HERE = Path(__file__).parent


@dataclass(frozen=True)
class ResultOptions(Options):
    """The options of this command."""

    map: Path = option(HERE / "map.jsonl", "journal of the map (default: the one that is kept here)", Path, metavar="FILE")
    out: Path | None = option(None, "write the page to this file, too", Path, metavar="FILE")


if __name__ == "__main__":
    options.run_command(options.parse, ResultOptions, __doc__)  # --help and wrong options end here: imports take seconds

import torch

from ch_sftmix.lab.calibration import calibration_error
from ch_sftmix.lab.plots import draw_reliability
from common.support.plots import save_picture
from common.support.reports import complete, difference_text, fenced, interval_of, mean_interval, paired

HEAD = """# SFTMix's map: what was measured

`python ch_sftmix/lab/tables.py --out ch_sftmix/lab/RESULTS.md` makes this page of the journal beside it, which
`where_it_pays.py` writes. [conditions.md](conditions.md) was fixed before. Means over data sets ± half of the 95 % interval;
differences are taken within each data set. A dash: not measured (without noise, the oracle is NTP). Training losses are those
of all records of a half, also of records that an arm leaves out."""
ENTRY = {"noise": float, "seed": int, "arm": str}  # of the journal, with what `measure` found
NOISE, SEEDS = (0.0, 0.2, 0.4), tuple(range(8, 16))  # of the map
PRIMARY = (("sftmix", "ntp"), ("relative tenth left out", "tenth left out"))  # at each level of noise
SECONDARY = (("relative tenth left out", "ntp"), ("tenth left out", "ntp"), ("random tenth left out", "ntp"),
             ("highest loss left out", "ntp"), ("highest loss left out", "tenth left out"), ("neftune", "ntp"),
             ("sftmix", "mu = 0"), ("oracle", "ntp"))
OTHERS = (("sftmix", "random halves"), ("mixup in confident half", "confident half"),
          ("mixup in unconfident half", "unconfident half"), ("ntp, twice as long", "sftmix"), ("label smoothing", "ntp"),
          ("dropout", "ntp"))  # where somebody has measured them
SECOND = """## Primary comparisons on a second base

`python ch_pretrain/train.py --seed 1 --out BASE` made it: the same pages, another random start and another order. The data sets
and settings are those above:

```
python ch_sftmix/lab/where_it_pays.py --model BASE --precision fp32 --arms sftmix "tenth left out" "relative tenth left out"
```

The six tests are corrected among themselves.

All of this page is measured in fp32. On the first base, NTP, SFTMix and the two tenths of these comparisons ran on one
processor. All else, also the second base, ran on another."""
CARRIER = "kind"  # the family of questions that moves these differences most
AFTERWARDS = f"""## One family, looked at afterwards

**We looked at this after all tests.** Here every family of questions counts alike: first all 18, then all but `{CARRIER}`.
Nothing is tested."""
MEASURES: dict[str, tuple[Callable[[dict], float], str]] = {
    "Exact match": (lambda found: found["exact_match"], ".1%"),
    "Test loss": (lambda found: found["test_loss"], ".3f"),
    "Expected calibration error": (lambda found: calibration_error(torch.tensor(found["bins"])), ".1%"),
    "Gap in the confident half: test loss minus training loss": (
        lambda found: found["test_loss"] - found["training_loss"][0], ".3f"),
    "Gap in the unconfident half": (lambda found: found["test_loss"] - found["training_loss"][1], ".3f")}

ONE_FAMILY: dict[str, tuple[Callable[[dict], float], str]] = {
    "Families alike": (lambda found: fmean(found["families"].values()), ".1%"),
    f"Without `{CARRIER}`": (
        lambda found: fmean(match for family, match in found["families"].items() if family != CARRIER), ".1%")}

Results = dict[float, dict[str, dict[int, dict]]]  # noise -> arm -> data seed -> entry


def collect(entries: Sequence[dict]) -> Results:
    """The entries of a journal, sorted."""
    found: Results = {}
    for entry in entries:
        found.setdefault(entry["noise"], {}).setdefault(entry["arm"], {})[entry["seed"]] = entry
    return dict(sorted(found.items()))


def gains(results: Results, first: str, second: str, value: Callable[[dict], float]) -> dict[float, dict[int, float]]:
    """One arm minus another, on each data set that has both, by its seed, at each noise that has any."""
    found = {noise: paired(*({seed: value(entry) for seed, entry in arms.get(arm, {}).items()} for arm in (first, second)))
             for noise, arms in results.items()}
    return {noise: values for noise, values in found.items() if values}


def primary_text(results: Results, fixed: bool = True) -> str:
    """The primary comparisons of exact match, tested where all data sets of all of them are measured, under the conditions that
    were `fixed`; and what SFTMix's intervals leave out."""
    found = {pair: gains(results, *pair, MEASURES["Exact match"][0]) for pair in PRIMARY}
    rows: list[dict[str, Any]] = [
        {"name": f"{first} - {second}, noise {noise:g}", "of": len(SEEDS),
         "differences": list(found[first, second].get(noise, {}).values())} for first, second in PRIMARY for noise in NOISE]
    told = difference_text(rows, "exact match", untested="" if fixed else "Not the conditions of the map: nothing is tested.")
    if not fixed or not complete(rows):
        return told
    highest = (f"{sum(mean_interval(row['differences'])):+.1%} (noise {noise:g})" for row, noise in zip(rows, NOISE))
    return f"{told}\n\nUpper ends of SFTMix's intervals, each for itself: {', '.join(highest)}."


def difference_rows(results: Results, measure: str, pairs: Sequence[tuple[str, str]],
                    measures: dict[str, tuple[Callable[[dict], float], str]] = MEASURES) -> str:
    """Differences of one measure, a column for each noise; pairs of which nothing is measured are told as that."""
    value, form = measures[measure]
    return table([f"{measure}, difference", *(f"noise {noise:g}" for noise in results)], [
        [f"{first} - {second}", *(interval_of(found.get(noise, {}).values(), f"+{form}") for noise in results)]
        for first, second in pairs for found in [gains(results, first, second, value)]])


def arm_table(results: Results, measure: str) -> str:
    """One measure of every arm, a column for each noise, with the number of data sets where that is not all."""
    value, form = MEASURES[measure]
    seeds = {seed for arms in results.values() for found in arms.values() for seed in found}

    def told(found: dict[int, dict]) -> str:
        values = [value(one) for one in found.values()]
        return interval_of(values, form) + (f" ({len(values)})" if 0 < len(values) < len(seeds) else "")

    return table([measure, *(f"noise {noise:g}" for noise in results)], [
        [arm, *(told(arms.get(arm, {})) for arms in results.values())]
        for arm in dict.fromkeys(arm for arms in results.values() for arm in arms)])


def wrong_table(results: Results) -> str:
    """How many of the answers are wrong in each half and in each tenth that is left out."""
    wrong = {noise: [one["wrong"] for one in arms.get("ntp", {}).values()] for noise, arms in results.items()}
    groups = dict.fromkeys(group for found in wrong.values() for one in found for group in one)
    return table(["Wrong answers among", *(f"noise {noise:g}" for noise in results)], [
        [group, *(interval_of([one[group] for one in found], ".1%") for found in wrong.values())] for group in groups])


def second_text(first: Results, second: Results) -> list[str]:
    """The primary comparisons on a second base, and beside the first, as parts of a page."""
    (value, form), rows = MEASURES["Exact match"], []
    to_ntp = [(arm, "ntp") for arm in ("relative tenth left out", "tenth left out")]
    for pair in (*PRIMARY, *to_ntp):
        here, there = (gains(results, *pair, value) for results in (first, second))
        for noise in sorted(here.keys() & there.keys()):
            told = (here[noise], there[noise], paired(there[noise], here[noise]))
            rows.append([f"{' - '.join(pair)}, noise {noise:g}", *(interval_of(gain.values(), f"+{form}") for gain in told)])
    beside = table(["exact match", "first base", "second base", "second - first"], rows)
    return [SECOND, primary_text(second), fenced(beside),
            fenced(difference_rows(second, "Test loss", [*PRIMARY, *to_ntp])),
            *(fenced(difference_rows(second, one, [*PRIMARY, *to_ntp], ONE_FAMILY)) for one in ONE_FAMILY),
            *(fenced(arm_table(second, measure)) for measure in ("Exact match", "Test loss")), fenced(wrong_table(second))]


def page(entries: Sequence[dict], fixed: bool = True, second: Sequence[dict] = ()) -> str:
    """RESULTS.md of these entries: of the map, and of the primary comparisons on a second base."""
    results = collect(entries)
    parts = [HEAD, "## Primary comparisons", primary_text(results, fixed)]
    parts += second_text(results, collect(second)) if second else []
    if results:
        pairs = [*SECONDARY, *(pair for pair in OTHERS if gains(results, *pair, MEASURES["Test loss"][0]))]
        parts += ["## All others: described, not tested",
                  fenced(difference_rows(results, "Exact match", pairs)),
                  fenced(difference_rows(results, "Test loss", [*PRIMARY, *pairs])),
                  *(fenced(arm_table(results, measure)) for measure in MEASURES), fenced(wrong_table(results)),
                  AFTERWARDS, *(fenced(difference_rows(results, one, [*PRIMARY, *pairs], ONE_FAMILY)) for one in ONE_FAMILY)]
    return "\n\n".join(parts) + "\n"


def finish(folder: Path, entries: Sequence[dict], fixed: bool) -> None:
    """Print what a run has found, write it to the run's folder, and draw how often the models are right."""
    text = page(entries, fixed)
    say("\n" + text)
    write_text(folder / "RESULTS.md", text)
    for noise, arms in collect(entries).items():
        binned: dict[str, torch.Tensor] = {arm: torch.tensor([one["bins"] for one in arms[arm].values()]).sum(dim=0)
                                           for arm in ("ntp", "sftmix", "neftune") if arm in arms}
        save_picture(folder / f"reliability-{noise:g}.png", partial(draw_reliability, binned=binned))


def main() -> None:
    given = options.parse(ResultOptions, __doc__)
    journals = [given.map, HERE / "second_base.jsonl"] if given.map == ResultOptions.map else [given.map]  # beside our map only
    measured, *second = (Journal(journal, ENTRY, "no trial of the map").entries for journal in journals)
    text = page(measured, True, *second)
    say(text)
    if given.out is not None:
        write_text(given.out, text)


if __name__ == "__main__":
    options.run_command(main)
