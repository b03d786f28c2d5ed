"""Reports: the arms of an experiment as tables and as report.json, with intervals where there are several repetitions."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from common.support import files
from common.support.console import WIDTH, say, table

FEW_QUESTIONS = 50  # with fewer, even 10 points between two arms are no more than chance


def few_questions(n: int) -> str:
    """A warning before a comparison on almost nothing, and after it."""
    return (f"Warning: {n} test question{'s are' if n > 1 else ' is'} few: one answer more or less is {1 / n:.0%}. Do not rank "
            f"arms by them; give more records, {FEW_QUESTIONS} test questions or more.")


def arm_result(test_loss: float | None, scores: dict | None, seconds: float | None) -> dict:
    """One arm of a report. Shares are between 0 and 1; None where a measure does not apply."""
    return {"test_loss": test_loss, "perplexity": None if test_loss is None else math.exp(min(test_loss, 700.0)),
            "seconds": seconds} | (scores or dict.fromkeys(("exact_match", "rouge_l", "stopped", "families")))


def cell(value: float | None, form: str) -> str:
    """A number in a table, or - where nothing was measured."""
    return "-" if value is None else format(value, form)


def with_interval(share: float | None, n: int | None) -> str:
    """A share of n questions with its 95 % interval; alone if n is not known."""
    if share is None or not n:
        return cell(share, ".1%")
    low, high = share_interval(share, n)
    return f"{share:.1%} ({low:.1%} to {high:.1%})"


def report_table(arms: Mapping[str, dict], questions: Mapping[str, int] | None = None, loss: str = "test loss") -> str:
    """The arms of a report as a table, one row each.

    Args:
        questions: how many each was asked, for the intervals of exact match; arms that are not named get none.
        loss: what heads the losses.
    """
    asked = questions or {}
    return table(["", loss, "perplexity", "exact match", "ROUGE-L", "stopped", "seconds"], [
        [name, cell(arm["test_loss"], ".4f"), cell(arm["perplexity"], ",.2f"),
         with_interval(arm["exact_match"], asked.get(name)),
         *(cell(arm[share], ".1%") for share in ("rouge_l", "stopped")), cell(arm["seconds"], ".1f")]
        for name, arm in arms.items()], WIDTH)


def family_table(arms: dict[str, dict]) -> str:
    """Exact match by task family, a column per arm; arms may have been tested on different families."""
    families = sorted({family for arm in arms.values() for family in arm["families"]})
    return table(["exact match in", *arms], [
        [family, *(f"{arm['families'][family]:.0%}" if family in arm["families"] else "-" for arm in arms.values())]
        for family in families], WIDTH)


def finish_run(folder: Path, report: dict, by_family: list[str] | None = None) -> None:
    """Write report.json and print its arms; exact match by family for these arms (None: for all)."""
    files.write_json(folder / "report.json", report)
    questions = {name: test["questions"] for name, test in report.get("tests", {}).items()}
    say("\n" + report_table(report["arms"], questions, "test loss" if questions else "validation loss"))
    if questions:
        say("In brackets: the 95 % interval (Wilson) for the choice of the questions; there were "
            f"{' or '.join(f'{n:,}' for n in dict.fromkeys(questions.values()))}.")
    if questions and min(questions.values()) < FEW_QUESTIONS:
        say(few_questions(min(questions.values())))
    arms = {name: arm for name, arm in report["arms"].items() if by_family is None or name in by_family}
    if all(arm["families"] for arm in arms.values()):
        say("\n" + family_table(arms))


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean of at least two independent values, and half of its 95 % confidence interval (Student's t)."""
    from scipy.stats import t  # here, because importing it takes seconds
    n = len(values)
    return fmean(values), float(t.ppf(0.975, n - 1)) * stdev(values) / math.sqrt(n)


def plus_minus(interval: tuple[float, float], form: str = ".1%") -> str:
    """Mean ± half of the interval; a plus in `form` is for the mean."""
    mean, half = interval
    return f"{mean:{form}} ± {half:{form.lstrip('+')}}"


def interval_of(values: Iterable[float], form: str = ".1%") -> str:
    """Mean ± half of the 95 % interval of these values; one value alone; with none a dash."""
    values = list(values)
    return plus_minus(mean_interval(values), form) if len(values) > 1 else cell(values[0] if values else None, form)


def share_interval(share: float, n: int) -> tuple[float, float]:
    """95 % confidence interval of a share seen in n independent cases (Wilson, 1927): lowest and highest, from 0 to 1.

    Unlike a mean ± t standard errors it does not shrink to nothing when all cases are alike. (SciPy's needs a whole number of
    successes; a tie is half of one.)
    """
    z = 1.959964  # of the normal distribution
    centre, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


def p_value(differences: Sequence[float]) -> float:
    """How likely a mean this far from 0 would be, on either side, if the true one were 0: Student's t test, 0 to 1.

    Differences that are all the same give 0, or 1 if they are 0.
    """
    from scipy.stats import ttest_1samp  # here, because importing it takes seconds
    if stdev(differences) == 0:
        return float(fmean(differences) == 0)
    return float(ttest_1samp(differences, 0).pvalue)


def equivalence_p_value(differences: Sequence[float], margin: float) -> float:
    """How likely a mean this deep within ±margin would be if the true one were at the margin or beyond: two one-sided t tests
    (Schuirmann, 1987), of which the larger p counts. Below 0.05, no difference as large as the margin is left.

    Args:
        margin: the smallest difference that matters, named beforehand.
    """
    from scipy.stats import t  # here, because importing it takes seconds
    n, error = len(differences), stdev(differences) / math.sqrt(len(differences))
    within = margin - abs(fmean(differences))  # from the mean to the nearer margin
    return float(within <= 0) if error == 0 else float(t.sf(within / error, n - 1))


def repetitions_needed(spread: float, difference: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """How many repetitions it takes that a two-sided t test sees a true difference with this probability.

    Args:
        spread: the standard deviation of the difference from one repetition to the next.
        alpha: p below this counts as seen; with Holm's correction of m tests, alpha / m for the first.
    """
    from scipy.stats import nct, t  # here, because importing it takes seconds
    n = 2
    while nct.sf(t.ppf(1 - alpha / 2, n - 1), n - 1, difference / spread * math.sqrt(n)) < power:
        n += 1
    return n


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of a family of m tests, corrected for their number (Holm, 1979), in the order given.

    The smallest is multiplied by m, the next by m - 1, and so on; none may become smaller than the one before it. Calling those
    below 0.05 different from 0 is wrong about even one of them in at most 5 % of such families.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def paired(first: Mapping[Any, float], second: Mapping[Any, float]) -> dict[Any, float]:
    """One arm minus another, by repetition, on each that has both."""
    return {repetition: value - second[repetition] for repetition, value in first.items() if repetition in second}


def complete(family: Sequence[dict]) -> bool:
    """Whether all repetitions of these comparisons are measured, "of" so many each."""
    return all(len(row["differences"]) == row["of"] for row in family)


def difference_text(family: Sequence[dict], heading: str, form: str = "+.1%", untested: str = "") -> str:
    """Comparisons that were named beforehand, in Markdown. Where all are complete they are tested together: the mean difference
    with its interval, p before and after Holm's correction. Otherwise: the differences that are known.

    Args:
        family: each with its "name", its "differences", and "of" how many repetitions there will be.
        heading: the measure.
        untested: why nothing is tested, although all is measured.
    """
    if untested or not complete(family):
        return f"**{untested or 'Not finished: nothing is tested yet.'}** The differences:\n\n" + fenced(table(
            ["not tested", "measured", heading], [[row["name"], f"{len(row['differences'])} of {row['of']}",
                                                   interval_of(row["differences"], form)] for row in family]))
    p_values = [p_value(row["differences"]) for row in family]
    return fenced(table([heading, "difference", "p", "p after Holm"], [
        [row["name"], interval_of(row["differences"], form), p_of(p), p_of(corrected)]
        for row, p, corrected in zip(family, p_values, holm(p_values))]))


def p_of(p: float) -> str:
    """A p value as it is printed."""
    return f"{p:.3f}" if p >= 0.0005 else "<0.001"


def fenced(text: str) -> str:
    """As it is, in Markdown."""
    return f"```\n{text}\n```"


def finish_comparison(folder: Path, seeds: list[int], repeats: list[dict[str, dict]], pairs: list[tuple[str, str]]) -> None:
    """Write and print means over seeds with 95 % intervals, and the difference between two arms seed by seed.

    The report of each seed lies in a folder of its own, seed-0 and so on.

    Args:
        repeats: the arms of each seed's report.
        pairs: arms to subtract; both of a pair share each seed, so their difference is taken within each.
    """
    measures = {"test_loss": ".4f", "exact_match": ".1%", "rouge_l": ".1%", "stopped": ".1%", "seconds": ".1f"}
    columns = {arm: [repeat[arm] for repeat in repeats] for arm in repeats[0]}
    for first, second in pairs:
        columns[f"{first} - {second}"] = [
            {m: None if None in (r[first][m], r[second][m]) else r[first][m] - r[second][m] for m in measures} for r in repeats]
    summaries, rows = {}, []
    for name, results in columns.items():
        values = {m: [r[m] for r in results] for m in measures}
        intervals = {m: None if None in some else mean_interval(some) for m, some in values.items()}
        summaries[name] = {m: both and {"mean": both[0], "half_interval": both[1]} for m, both in intervals.items()}
        rows.append([name, *(plus_minus(both, measures[m]) if both else "-" for m, both in intervals.items())])
    arms = {arm: {m: mean_or_none([r[arm][m] for r in repeats]) for m in (*measures, "perplexity")}
            | {"families": first["families"] and {f: mean_or_none([r[arm]["families"][f] for r in repeats])
                                                  for f in first["families"]}}
            for arm, first in repeats[0].items()}
    one = files.read_json(folder / f"seed-{seeds[0]}" / "report.json", {"tests": dict})  # all seeds take the same tests
    files.write_json(folder / "report.json", {"seeds": seeds, "tests": one["tests"], "arms": arms, "summary": summaries})
    say(f"\n{len(seeds)} seeds, mean ± half of the 95 % interval")
    say(table(["", "test loss", "exact match", "ROUGE-L", "stopped", "seconds"], rows))


def mean_or_none(values: Sequence[float | None]) -> float | None:
    """The mean, or None where a measure does not apply."""
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None
