"""When does choosing data pay? One comparison on three kinds of data, eight data sets of each, with an oracle beside it.

    python ch_delift/where_it_pays.py --out runs/where                  # the whole map, hours
    python ch_delift/where_it_pays.py --out runs/where --resume         # go on where it was interrupted
    python ch_delift/where_it_pays.py --small --out runs/small          # two data sets of each kind, minutes
    python ch_delift/where_it_pays.py --pilot --out runs/pilot          # the oracle and chance alone, on other data sets
    python ch_delift/where_it_pays.py --model FOLDER --out runs/other   # with another base model

The kinds of data are told in `conditions.py`, and what was fixed before any method was tried in `conditions.md`. Each data
set is one repetition: intervals and tests are over data sets. All pairs of utilities are measured.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from ch_delift.baselines import random_subset
from ch_delift.conditions import CONDITIONS, DataSet, Series, data_set, oracle, what_was_chosen
from ch_delift.map_tables import show
from ch_delift.selection import budget_of
from ch_instruct import pipeline
from ch_instruct.encoding import encode_record
from ch_instruct.pipeline import FineTuning, Work
from common import options, runs
from common.console import say
from common.files import InputError, Journal
from common.losses import next_token_loss
from common.options import FolderOptions, ModelOption, PrecisionOption, option

EPOCHS, BATCH = 10, 8
PILOT_SETS = range(100, 103)  # data seeds


@dataclass(frozen=True)
class Map(FolderOptions, ModelOption, PrecisionOption):
    """The options of this command."""

    small: bool = option(False, "two data sets of each kind and fewer arms, in minutes; these data sets are its own")
    pilot: bool = option(False, "only the oracle and random subsets, on data sets that the map does not use")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.small and self.pilot:
            raise InputError("--small and --pilot are different maps; give one of them.")


def plan(given: Map) -> list[Series]:
    """What is compared."""
    return [Series(c.name, c.fraction, "equal epochs", ("random", "oracle"), PILOT_SETS) for c in CONDITIONS.values()]


class Trial(NamedTuple):
    """One training and its test."""

    condition: str
    fraction: float
    schedule: str
    seed: int  # of the data set
    arm: str
    turn: int  # 0, 1, ... of the trainings that count as one


def trials(series: Series) -> Iterator[Trial]:
    """All trainings of a series, one data set after the other."""
    for seed in series.seeds:
        for arm in series.arms:
            for turn in range(series.trainings):
                yield Trial(series.condition, series.fraction, series.schedule, seed, arm, turn)


def encoded(work: Work, data: DataSet) -> Work:
    """The same work with the records of this data set."""
    records = {"train": data.training, "validation": [], "test": data.test, "target": data.target}
    return replace(work, records=records, examples={part: [encode_record(record, work.tokenizer, work.options.format)
                                                           for record in found] for part, found in records.items()})


def subset(trial: Trial, data: DataSet, budget: int) -> Sequence[int]:
    """The places of the records that this arm trains on."""
    if trial.arm == "random":
        return random_subset(len(data.training), budget, trial.turn)
    return oracle(data, budget)


def run_trial(trial: Trial, work: Work, data: DataSet, folder: Path) -> dict[str, Any]:
    """Choose, train from the base model, and test. Returns what is kept of it."""
    n, began = len(data.training), time.perf_counter()
    places = subset(trial, data, budget_of(trial.fraction, n))
    seconds = time.perf_counter() - began
    given = work.train_options()
    steps = given.total_steps(n if trial.schedule == "equal steps" else len(places))
    examples = pipeline.example_dataset([work.examples["train"][i] for i in places], work.tokenizer, seed=trial.turn)
    run = pipeline.train(work, examples, next_token_loss, folder, trial.turn, steps=steps, evaluate_every=steps)
    result = pipeline.test(work, run).result
    others = [score for family, score in result["families"].items() if family not in data.large_families()]
    return {"exact_match": result["exact_match"], "other_families": fmean(others) if others else None, "steps": steps,
            "choosing": seconds, "places": list(places), **what_was_chosen(data, places)}


def run_all(todo: list[Trial], work: Work, journal: Journal, folder: Path) -> None:
    """Run these trials; each is in the journal as soon as it is done."""
    done = 0
    for (condition, seed), trials_here in groupby(todo, key=lambda trial: (trial.condition, trial.seed)):
        data = data_set(condition, seed)
        here = encoded(work, data)
        for trial in trials_here:
            done += 1
            say(f"{done} of {len(todo)}: {condition}, data set {seed}, {trial.fraction:.0%}, {trial.schedule}, {trial.arm}")
            journal.append(trial._asdict() | run_trial(trial, here, data, folder / "model"))


def main() -> None:
    given = options.parse(Map, __doc__)
    runs.check_run(given)
    work = pipeline.prepare(FineTuning(model=given.model, precision=given.precision, epochs=EPOCHS, batch_size=BATCH))
    folder = runs.open_run("where_it_pays", given, {name: work.facts[name] for name in ("model_sha256", "precision")})
    journal = Journal(folder / "trials.jsonl")
    known = {Trial(*(entry[name] for name in Trial._fields)) for entry in journal.entries}
    series = plan(given)
    run_all([trial for one in series for trial in trials(one) if trial not in known], work, journal, folder)
    show(folder, series, journal.entries)


if __name__ == "__main__":
    options.run_command(main)
