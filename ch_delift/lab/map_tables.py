"""What the trials of `where_it_pays.py` come to: scores, shares of the oracle's gain, tests, and what was chosen.

An entry is one training: the fields of a `Trial`, "exact_match", "places" (the chosen training records), "choosing" (seconds)
and what `what_was_chosen` says. Trainings of one arm on one data set are averaged; intervals and tests are over data sets.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from ch_delift.lab.conditions import SETS, Series
from ch_delift.lab.plots import draw_differences, draw_margins
from common.support.console import say, table
from common.support.files import write_json
from common.support.plots import save_picture
from common.support.reports import cell, difference_table, mean_interval, mean_or_none, plus_minus, tested

CHOSEN = {"choosing": ("seconds to choose", "{:.2f}"), "different": ("different things", "{:.1f}"),
          "wrong": ("wrong answers", "{:.0%}"), "large": ("large families", "{:.0%}"),
          "large_in_data": ("of all data", "{:.0%}"), "other_families": ("match in the others", "{:.1%}")}


def of_arm(entries: Sequence[dict], series: Series, arm: str) -> Iterator[list[dict]]:
    """An arm's entries in a series, one list for each data set."""
    for seed in series.seeds:
        wanted = (series.condition, series.fraction, series.schedule, seed, arm)
        yield [e for e in entries if (e["condition"], e["fraction"], e["schedule"], e["seed"], e["arm"]) == wanted]


def by_data_set(entries: Sequence[dict], series: Series, arm: str, measure: str = "exact_match") -> list:
    """An arm's measure on each data set of a series; None where it does not apply."""
    return [mean_or_none([entry[measure] for entry in found]) for found in of_arm(entries, series, arm)]


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
        [arm, plus_minus(row["exact_match"]), "-" if arm == "random" else plus_minus(row["minus_random"]),
         cell(row["share_of_oracle"], ".0%")] for arm, row in found.items()])


def choice_means(entries: Sequence[dict], series: Series) -> dict[str, dict]:
    """What each arm of a series chose, means over data sets; see `CHOSEN`."""
    return {arm: {measure: mean_or_none(by_data_set(entries, series, arm, measure)) for measure in CHOSEN}
            for arm in series.arms}


def choice_table(found: dict[str, dict]) -> str:
    """The arms of a series, one row each."""
    return table(["what was chosen", *(heading for heading, _ in CHOSEN.values())], [
        [arm, *("-" if row[measure] is None else form.format(row[measure]) for measure, (_, form) in CHOSEN.items())]
        for arm, row in found.items()])


def overlaps(entries: Sequence[dict], series: Series) -> dict[str, float]:
    """Which share of their choice each two methods have in common, means over data sets; by chance it is the fraction."""
    chosen = {arm: [set(found[0]["places"]) for found in of_arm(entries, series, arm)]
              for arm in ("se", "gradient", "delift") if arm in series.arms}
    return {f"{one} and {other}": fmean(len(a & b) / len(a) for a, b in zip(chosen[one], chosen[other]))
            for one, other in combinations(chosen, 2)}


def pair_table(entries: Sequence[dict], plan: Sequence[Series]) -> tuple[dict[str, dict], str]:
    """The mean utility of each kind of pair in the data sets of each condition, and the same as a table."""
    found: dict[str, dict] = {}
    for series in plan:
        if "delift" in series.arms and series.condition not in found:
            told = [entries_here[0]["pairs"] for entries_here in of_arm(entries, series, "delift")]
            found[series.condition] = {kind: mean_or_none([pairs[kind] for pairs in told]) for kind in told[0]}
    rows = [[condition, *(cell(mean, "+.3f") for mean in means.values())]
            for condition, means in found.items()]
    return found, table(["mean utility of pairs", *next(iter(found.values()), {})], rows)


def primaries(entries: Sequence[dict], plan: Sequence[Series]) -> list[dict]:
    """The comparisons that were named beforehand: DELIFT minus random subsets and minus SE, over data sets; see `tested`."""
    rows: list[dict] = []
    for series, other in ((series, other) for series in plan if series.primary for other in ("random", "se")):
        if {"delift", other} <= set(series.arms):
            differences = [a - b for a, b in zip(by_data_set(entries, series, "delift"), by_data_set(entries, series, other))]
            rows.append({"name": f"{series.condition}: DELIFT - {other}", "condition": series.condition, "minus": other,
                         "differences": differences})
    return tested(rows)


def heading(rows: Sequence[dict]) -> str:
    """What stands above the primary comparisons; on fewer data sets they are a sketch."""
    return f"{'primary' if len(rows[0]['differences']) == len(SETS) else 'sketched'} comparisons"


def draw_primaries(path: Path, rows: Sequence[dict]) -> None:
    """The primary comparisons as a picture, in points."""
    found: dict[str, dict] = {}
    for row in rows:
        mean, half = row["interval"]
        found.setdefault(row["condition"], {})[f"DELIFT - {row['minus']}"] = (100 * mean, 100 * half)
    save_picture(path, lambda ax: draw_differences(ax, found, "points of exact match, equal epochs (95 % interval)"))


def margins_by_fraction(entries: Sequence[dict], plan: Sequence[Series]) -> dict[str, dict[float, dict[str, float]]]:
    """Where several fractions were tried at equal epochs: condition -> fraction -> {method: points above random subsets}, means
    over the data sets that all these fractions have."""
    found: dict[str, dict[float, dict[str, float]]] = {}
    for condition in dict.fromkeys(series.condition for series in plan):
        tried = [series for series in plan if (series.condition, series.schedule) == (condition, "equal epochs")]
        if len(tried) > 1:
            seeds = min((series.seeds for series in tried), key=len)  # each begins with the same ones
            found[condition] = {}
            for series in tried:
                more = scores(entries, series._replace(seeds=seeds))
                found[condition][series.fraction] = {name: 100 * more[arm]["minus_random"][0] for arm, name in
                                                     (("delift", "DELIFT"), ("se", "SE"), ("oracle", "oracle"))}
    return found


def show(folder: Path, plan: Sequence[Series], entries: Sequence[dict]) -> None:
    """Print the tables, draw the primary comparisons and the fractions, and write all that they hold to report.json."""
    report: dict[str, Any] = {}
    for series in plan:
        found: dict[str, Any] = {"primary": series.primary, "data_sets": list(series.seeds),
                                 "scores": scores(entries, series), "choices": choice_means(entries, series),
                                 "overlaps": overlaps(entries, series)}
        report[series.name] = found
        say(f"\n{series.name}{'' if series.primary else ' (descriptive)'}: {len(series.seeds)} data sets, mean ± half of the "
            f"95 % interval\n\n{score_table(found['scores'])}\n\n{choice_table(found['choices'])}\n")
        for pair, share in found["overlaps"].items():
            say(f"{pair} have {share:.0%} of their choice in common (by chance {series.fraction:.0%})")
    if rows := primaries(entries, plan):
        say("\n" + difference_table(rows, heading(rows)))
        draw_primaries(folder / "differences.png", rows)
    if margins := margins_by_fraction(entries, plan):
        save_picture(folder / "fractions.png", lambda ax: draw_margins(ax, margins), width=8.5)
    pairs, told = pair_table(entries, plan)
    if pairs:
        say("\n" + told)
    write_json(folder / "report.json", {"series": report, "primaries": rows, "utilities": pairs})
