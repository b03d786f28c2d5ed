"""What the trials of `where_it_pays.py` come to: scores, shares of the oracle's gain, tests, and what was chosen.

An entry is one training: the fields of a `Trial`, "exact_match", "places" (the chosen training records, in order), and what
`what_was_chosen` says of them. Trainings of one arm on one data set are averaged; intervals and tests are over data sets.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from ch_delift.conditions import Series
from common.console import say, table
from common.files import write_json
from common.reports import mean_interval


def of_arm(entries: Sequence[dict], series: Series, arm: str) -> Iterator[list[dict]]:
    """An arm's entries in a series, one list for each data set."""
    for seed in series.seeds:
        wanted = (series.condition, series.fraction, series.schedule, seed, arm)
        yield [e for e in entries if (e["condition"], e["fraction"], e["schedule"], e["seed"], e["arm"]) == wanted]


def by_data_set(entries: Sequence[dict], series: Series, arm: str, measure: str = "exact_match") -> list[float]:
    """An arm's measure on each data set of a series."""
    return [fmean(entry[measure] for entry in found) for found in of_arm(entries, series, arm)]


def percent(mean_and_half: tuple[float, float]) -> str:
    """A share and half of its interval."""
    return "{:.1%} ± {:.1%}".format(*mean_and_half)


def scores(entries: Sequence[dict], series: Series) -> dict[str, dict]:
    """Every arm of a series: its exact match, what it has more than random subsets, and which share that is of what the
    oracle has more (None where the oracle has nothing more)."""
    values = {arm: by_data_set(entries, series, arm) for arm in series.arms}
    more = {arm: [a - b for a, b in zip(found, values["random"])] for arm, found in values.items()}
    most = fmean(more["oracle"])
    return {arm: {"data_sets": found, "exact_match": mean_interval(found), "minus_random": mean_interval(more[arm]),
                  "share_of_oracle": fmean(more[arm]) / most if most > 0 else None} for arm, found in values.items()}


def score_table(found: dict[str, dict]) -> str:
    """The arms of a series, one row each."""
    return table(["", "exact match", "minus random", "of the oracle's gain"], [
        [arm, percent(row["exact_match"]), "-" if arm == "random" else percent(row["minus_random"]),
         "-" if row["share_of_oracle"] is None else f"{row['share_of_oracle']:.0%}"] for arm, row in found.items()])


def show(folder: Path, plan: Sequence[Series], entries: Sequence[dict]) -> None:
    """Print the tables, and write all that they hold to report.json."""
    report: dict[str, dict] = {}
    for series in plan:
        report[series.name] = {"scores": scores(entries, series)}
        say(f"\n{series.name}: {len(series.seeds)} data sets, mean ± half of the 95 % interval\n")
        say(score_table(report[series.name]["scores"]))
    write_json(folder / "report.json", report)
