"""What was measured by `where_it_pays.py`, as a page: RESULTS.md is what this command makes of the journals beside it.

    python ch_delift/lab/tables.py                                             # prints it
    python ch_delift/lab/tables.py --map runs/where/trials.jsonl --out mine.md   # of a run of your own, finished or not

An entry of a journal is one training: the fields of a `Trial` and what `run_trial` tells. Intervals and tests are over data
sets. What is not measured is marked so. Nothing is tested before all data sets are measured.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from common.support import options, reports
from common.support.console import say, table
from common.support.files import Journal, write_text
from common.support.options import Options, option

HERE = Path(__file__).parent


@dataclass(frozen=True)
class ResultOptions(Options):
    """The options of this command."""

    map: Path = option(HERE / "map.jsonl", "journal of the map (default: the one that is kept here)", Path, metavar="FILE")
    pilot: Path = option(HERE / "pilot.jsonl", "that of the pilot (default: the one that is kept here)", Path, metavar="FILE")
    out: Path | None = option(None, "write the page to this file, too, and a picture beside it", Path, metavar="FILE")


if __name__ == "__main__":
    options.run_command(options.parse, ResultOptions, __doc__)  # --help and wrong options end here: imports take seconds

from ch_delift.lab.conditions import draw_data
from ch_delift.lab.plan import MAP, MARGIN, PILOT, PILOT_SETS, PRIMARY, Series, Trial
from ch_delift.lab.plots import draw_differences
from common.support.plots import save_picture

Measure = str | Callable[[dict], float]  # a key of an entry, or what is computed of one
MEASURES = {"macro": "families alike", "pool": "as the pool", "small": "small families"}  # of exact match
BESIDE = ("random", "SE")  # what each arm is compared with
ARM_HEADS = ["exact match", "data sets", *MEASURES.values(),
             *(f"- {arm}{how}" for how in (", alike", ", pool") for arm in BESIDE), "oracle's gain"]
CHOSEN = {"seconds": ("seconds to choose", ".1f"), "different": ("different things", ".1f"), "kinds": ("families", ".1f"),
          "wrong": ("wrong answers", ".0%"), "small_share": ("of small families", ".0%")}
HEAD = """# DELIFT's map: what was measured

`python ch_delift/lab/tables.py --out ch_delift/lab/RESULTS.md` makes this page of the journals beside it, which
`where_it_pays.py` writes. [conditions.md](conditions.md) was fixed before. Exact match on the test questions, means over data
sets ± half of the 95 % interval: *families alike*, every family of questions counting the same; *as the pool*, each by its
share in the data; and the small families alone. Differences (-) are told in the first two ways, and the share of the oracle's
gain over random subsets with families alike. Seconds are processor seconds of one core, where a choice was made in one go;
DELIFT-ρ uses DELIFT's utilities."""
SET_ARMS = ("random", "SE", "DELIFT", "DELIFT-ρ", "oracle")  # of `set_rows` and `family_rows`
AFTERWARDS = """## Skewed data, looked at afterwards

**We looked at these two tables after all tests**: they raise questions for new data sets, and answer none. The data set with
DELIFT's largest loss against SE is first, and the family that the oracle's choice teaches least."""
LEFT_OUT = ("kind", "color")  # the families that move most of these differences
SECOND = """## Primary comparisons on a second base

`python ch_pretrain/train.py --seed 1 --out BASE` made it: the same pages, another random start and another order. The data
sets, rate and steps are those above: the first phase of `where_it_pays.py --model BASE --precision fp32`. The six tests are
corrected among themselves.

All of this page is measured in fp32. On the first base these arms ran on one processor. All else, also the second base, ran on
another, on which SE takes half as long and rounding decides some ties differently ([more](conditions.md#changed-later))."""
WITHOUT = """## Without one family, looked at afterwards

**We looked at this after all tests.** Which family of questions carries a difference? Families count alike."""
PICTURE = "differences.png"  # of the primary comparisons, beside the page
XLABEL = "points of exact match, families alike (95 % interval)"
CONFIDENT = 0.05  # tests below this are called seen
WORTH = 0.04  # the difference that should be seen
SPREADS = (0.03, 0.05, 0.07, 0.1)  # of differences between methods, from set to set, in what was measured before


def read(journal: Path) -> list[dict]:
    """The entries of a journal; none if there is no such file."""
    return Journal(journal, Trial.__annotations__, "no trial of the map").entries


def by_data_set(entries: Sequence[dict], series: Series, arm: str, measure: Measure = "macro") -> dict[int, Any]:
    """Seed of a data set -> an arm's measure there; None where it does not apply."""
    wanted = (series.condition, arm, series.lr, series.steps)
    found = {e["seed"]: measure(e) if callable(measure) else e.get(measure)  # an older journal lacks some
             for e in entries if (e["condition"], e["arm"], e["lr"], e["steps"]) == wanted}
    return {seed: found[seed] for seed in series.seeds if seed in found}


def gains(entries: Sequence[dict], series: Series, first: str, second: str, measure: Measure = "macro") -> dict[int, float]:
    """One arm minus another, on each data set that has both, by its seed."""
    return reports.paired(*(by_data_set(entries, series, arm, measure) for arm in (first, second)))


def of_arms(plan: Sequence[Sequence[Series]]) -> Iterator[tuple[Series, list[str]]]:
    """Each condition's first series of a plan, and all arms that the plan has for it."""
    for name in dict.fromkeys(series.condition for phase in plan for series in phase):
        some = [series for phase in plan for series in phase if series.condition == name]
        yield some[0], list(dict.fromkeys(arm for series in some for arm in series.arms))


def series_of(condition: str) -> Series:
    """The map's first series of a condition."""
    return next(series for series, _ in of_arms(MAP) if series.condition == condition)


def arm_rows(entries: Sequence[dict], series: Series, arms: Sequence[str]) -> list[list[str]]:
    """A row for each arm that is measured: on how many data sets, exact match in each way, the differences to random subsets
    and to SE, and the share of the oracle's gain over random subsets on the data sets that have all three."""
    chance, best = (by_data_set(entries, series, arm) for arm in ("random", "oracle"))
    rows = []
    for arm in arms:
        found = {measure: by_data_set(entries, series, arm, measure) for measure in MEASURES}
        macro = found["macro"]
        if not macro:
            continue
        seeds = macro.keys() & chance.keys() & best.keys()
        gain = sum(best[seed] - chance[seed] for seed in seeds)
        share = sum(macro[seed] - chance[seed] for seed in seeds) / gain if gain > 0 else None
        told = [reports.interval_of([v for v in values.values() if v is not None]) for values in found.values()]
        minus = ["-" if arm == other else reports.interval_of(gains(entries, series, arm, other, measure).values(), "+.1%")
                 for measure in ("macro", "pool") for other in BESIDE]
        rows.append([arm, f"{len(macro)} of {len(series.seeds)}", *told, *minus, reports.cell(share, ".0%")])
    return rows


def choice_rows(entries: Sequence[dict], series: Series, arms: Sequence[str]) -> list[list[str]]:
    """What each arm that is measured chose, means over the data sets; see `CHOSEN`."""
    rows = []
    for arm in arms:
        found = {measure: [v for v in by_data_set(entries, series, arm, measure).values() if v is not None]
                 for measure in CHOSEN}
        if found["different"]:
            rows.append([arm, *(reports.cell(fmean(found[measure]) if found[measure] else None, form)
                                for measure, (_, form) in CHOSEN.items())])
    return rows


def primary_rows(entries: Sequence[dict], measure: str) -> list[dict[str, Any]]:
    """The comparisons that were named beforehand, with the differences on each data set that has both arms, "of" so many."""
    rows = []
    for condition, first, second in PRIMARY:
        series = series_of(condition)
        rows.append({"name": f"{condition}: {first} - {second}", "condition": condition, "minus": f"{first} - {second}",
                     "differences": list(gains(entries, series, first, second, measure).values()), "of": len(series.seeds)})
    return rows


def primary_text(entries: Sequence[dict]) -> str:
    """The primary comparisons: families alike, tested; and as the pool, tested for being equal."""
    rows, pool = primary_rows(entries, "macro"), primary_rows(entries, "pool")
    told = reports.difference_text(rows, MEASURES["macro"])
    if not reports.complete(rows):
        return told
    p = reports.holm(same := [reports.equivalence_p_value(row["differences"], MARGIN) for row in pool])
    spreads = ", ".join(f"{100 * stdev(row['differences']):.1f}" for row in rows)
    as_pool = table(["as the pool", "difference", "p (not within)", "p after Holm"], [
        [row["name"], reports.interval_of(row["differences"], "+.1%"), reports.p_of(a), reports.p_of(b)]
        for row, a, b in zip(pool, same, p)])
    return (f"{told}\n\nTheir standard deviations from set to set are {spreads} points, in this order.\n\nWeighted as the "
            f"pool, with two one-sided tests of whether the difference is within ± {100 * MARGIN:.0f} points:\n\n"
            f"{reports.fenced(as_pool)}")


def base_rows(first: Sequence[dict], second: Sequence[dict]) -> list[list[str]]:
    """A row for each primary comparison and way to count: on the first base, on the second, and by how much they differ within
    each data set that has both."""
    rows = []
    for measure in ("macro", "pool"):
        for condition, arm, other in PRIMARY:
            found = [gains(entries, series_of(condition), arm, other, measure) for entries in (first, second)]
            rows.append([f"{condition}: {arm} - {other}, {MEASURES[measure]}", *(
                reports.interval_of(gain.values(), "+.1%") for gain in (*found, reports.paired(found[1], found[0])))])
    return rows


def second_text(first: Sequence[dict], second: Sequence[dict]) -> list[str]:
    """The primary comparisons on a second base, beside the first, and what its arms reach, as parts of a page."""
    parts = [SECOND, primary_text(second),
             reports.fenced(table(["difference", "first base", "second base", "second - first"], base_rows(first, second)))]
    for series, arms in of_arms(MAP):
        if rows := arm_rows(second, series, arms):
            parts.append(f"Second base, {series.condition} data:\n\n{reports.fenced(table(ARM_HEADS, rows))}")
    return [*parts, "Second base, skewed data, set by set as [below](#skewed-data-looked-at-afterwards):", set_table(second)]


def pilot_text(entries: Sequence[dict]) -> str:
    """The grid of rates and steps: what random subsets and the oracle reach, and how much the gain differs from set to set."""
    grid: dict[tuple[float, int], list[str]] = {}
    chance: dict[tuple[float, int], list[float]] = {}  # what random subsets reach on every data set of both conditions
    for series in PILOT[0]:
        values = {arm: list(by_data_set(entries, series, arm).values()) for arm in ("random", "oracle")}
        chance.setdefault((series.lr, series.steps), []).extend(values["random"])
        gain = gains(entries, series, "oracle", "random").values()
        cells = [f"{100 * fmean(found):.1f}" if found else "-" for found in values.values()]
        grid.setdefault((series.lr, series.steps), []).extend(
            [*cells, f"{100 * fmean(gain):+.1f}" if gain else "-", f"{100 * stdev(gain):.1f}" if len(gain) > 1 else "-"])
    counts = {series.condition: len(by_data_set(entries, series, "oracle")) for series in PILOT[0]}
    heads = [f"{name}: {what}" for name in counts for what in ("random", "oracle", "gain", "spread")]
    told = table(["rate", "steps", *heads], [[f"{lr:g}", str(steps), *cells] for (lr, steps), cells in grid.items()])
    sets = ", ".join(f"{name} {n} of {len(PILOT_SETS)}" for name, n in counts.items())
    best = "not decided, as random subsets are not measured everywhere"
    if all(len(found) == len(counts) * len(PILOT_SETS) for found in chance.values()):
        lr, steps = max(chance, key=lambda cell: fmean(chance[cell]))
        best = f"{steps} steps at {lr:g}, {fmean(chance[lr, steps]):.1%} in the mean over both"
    power = table(["spread (points)", "one test", "the first of six, after Holm"], [  # how many data sets a difference takes
        [f"{100 * spread:.0f}", *(str(reports.repetitions_needed(spread, WORTH, CONFIDENT / m)) for m in (1, len(PRIMARY)))]
        for spread in SPREADS])
    return (f"{reports.fenced(told)}\n\nBest for random subsets: {best}. The oracle is measured on: {sets}. How many data sets "
            f"it takes to see a true difference of {100 * WORTH:.0f} points with 80 %:\n\n{reports.fenced(power)}")


def arms_text(plan: Sequence[Sequence[Series]], entries: Sequence[dict]) -> str:
    """What each arm reaches and what it chose, condition by condition."""
    parts = []
    for series, arms in of_arms(plan):
        parts.append(f"## {series.condition.capitalize()} data")
        if measured := arm_rows(entries, series, arms):
            parts.append(reports.fenced(table(ARM_HEADS, measured)))
        if missing := [arm for arm in arms if arm not in [row[0] for row in measured]]:
            parts.append(f"Planned and not measured yet: {'; '.join(missing)}.")
        if rows := choice_rows(entries, series, arms):
            parts.append(reports.fenced(table(["what was chosen", *(heading for heading, _ in CHOSEN.values())], rows)))
    return "\n\n".join(parts)


def set_rows(entries: Sequence[dict], series: Series) -> list[list[str]]:
    """A row for each data set that has DELIFT and SE: its three largest families, exact match in %, the family from which
    DELIFT took most records, and from how many families SE and DELIFT took any. The largest loss of DELIFT is first."""
    macro = {arm: by_data_set(entries, series, arm) for arm in SET_ARMS}
    places = {(e["seed"], e["arm"]): e["places"] for e in entries if e["condition"] == series.condition}
    rows = []
    for seed in sorted(macro["DELIFT"].keys() & macro["SE"].keys(), key=lambda seed: macro["DELIFT"][seed] - macro["SE"][seed]):
        families = [record["family"] for record in draw_data(series.condition, seed).training]
        large = [family for family, _ in Counter(families).most_common(3)]
        taken = {arm: Counter(families[i] for i in places[seed, arm]) for arm in ("SE", "DELIFT")}
        [(most, count)] = taken["DELIFT"].most_common(1)
        rows.append([str(seed), ", ".join(sorted(large)), *(reports.cell(macro[arm].get(seed), ".0%") for arm in SET_ARMS),
                     f"{count} {most}", *(str(len(found)) for found in taken.values())])
    return rows


def family_rows(entries: Sequence[dict], series: Series) -> list[list[str]]:
    """A row for each family: exact match in %, means over the data sets. The family that the oracle's choice teaches least is
    first."""
    scores: dict[str, dict[str, list[float]]] = {}  # family -> arm -> one for each training
    for e in entries:
        if (e["condition"], e["lr"], e["steps"]) == (series.condition, series.lr, series.steps) and e["arm"] in SET_ARMS:
            for family, match in e["families"].items():
                scores.setdefault(family, {arm: [] for arm in SET_ARMS})[e["arm"]].append(match)
    means = {family: [fmean(found) if found else None for found in arms.values()] for family, arms in scores.items()}
    return [[family, *(reports.cell(mean, ".0%") for mean in found)]
            for family, found in sorted(means.items(), key=lambda row: row[1][-1] or 0)]


def set_table(entries: Sequence[dict]) -> str:
    """`set_rows` of skewed data, in Markdown."""
    heads = ["data set", "large families", *SET_ARMS, "most of DELIFT's choice", "families: SE", "DELIFT"]
    return reports.fenced(table(heads, set_rows(entries, series_of("skewed"))))


def without(family: str) -> Measure:
    """Exact match, all families but this one counting alike."""
    return lambda entry: fmean(match for name, match in entry["families"].items() if name != family)


def without_rows(entries: Sequence[dict]) -> list[list[str]]:
    """A row for each arm and kind of data: its difference to SE with all families, and without each of `LEFT_OUT`."""
    rows = []
    for series, arms in of_arms(MAP):
        for arm in arms:
            found = [gains(entries, series, arm, "SE", measure).values() for measure in ("macro", *map(without, LEFT_OUT))]
            if arm != "SE" and found[0]:
                rows.append([f"{series.condition}: {arm} - SE", *(reports.interval_of(some, "+.1%") for some in found)])
    return rows


def page(measured: Sequence[dict], pilot: Sequence[dict], second: Sequence[dict] = ()) -> str:
    """RESULTS.md of these entries: of the map, its pilot, and the primary comparisons on a second base."""
    complete = reports.complete(primary_rows(measured, "macro"))
    parts = [HEAD, "## Rates and steps: the pilot", pilot_text(pilot), "## Primary comparisons", primary_text(measured)]
    if complete:
        parts.append(f"![the six differences, families alike, with their 95 % intervals]({PICTURE})")
    parts += second_text(measured, second) if second else []
    parts.append(arms_text(MAP, measured))
    if complete:
        parts += [AFTERWARDS, set_table(measured),
                  reports.fenced(table(["family", *SET_ARMS], family_rows(measured, series_of("skewed")))), WITHOUT,
                  reports.fenced(table(["families alike", "all", *(f"without {family}" for family in LEFT_OUT)],
                                       without_rows(measured)))]
    return "\n\n".join(parts) + "\n"


def write_page(file: Path, text: str, entries: Sequence[dict]) -> None:
    """Write a page and, when the primary comparisons are complete, their picture beside it."""
    write_text(file, text.rstrip() + "\n")
    if reports.complete(rows := primary_rows(entries, "macro")):
        found: dict[str, dict] = {}  # condition -> {comparison: (mean, half of the interval)}, in points
        for row in rows:
            mean, half = reports.mean_interval(row["differences"])
            found.setdefault(row["condition"], {})[row["minus"]] = (100 * mean, 100 * half)
        save_picture(file.with_name(PICTURE), lambda ax: draw_differences(ax, found, XLABEL))


def show(folder: Path, plan: Sequence[Sequence[Series]], entries: Sequence[dict]) -> None:
    """Print what a run has found so far, and write it to the run's folder."""
    text = pilot_text(entries) if plan is PILOT else page(entries, []) if plan is MAP else arms_text(plan, entries)
    say("\n" + text)
    write_page(folder / "RESULTS.md", text, entries)


def main() -> None:
    given = options.parse(ResultOptions, __doc__)
    measured = read(given.map)
    second = read(HERE / "second_base.jsonl") if given.map == ResultOptions.map else []  # it stands beside our map only
    text = page(measured, read(given.pilot), second)
    say(text)
    if given.out is not None:
        write_page(given.out, text, measured)


if __name__ == "__main__":
    options.run_command(main)
