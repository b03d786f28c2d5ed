"""When does choosing data pay? Ways to choose on three kinds of data, sixteen data sets of each, with an oracle beside them.

    python ch_delift/lab/where_it_pays.py --out runs/where              # the map, many hours: primary comparisons first
    python ch_delift/lab/where_it_pays.py --out runs/where --resume     # go on where it was interrupted
    python ch_delift/lab/where_it_pays.py --pilot --out runs/pilot      # learning rates and steps, on other data sets
    python ch_delift/lab/where_it_pays.py --small --out runs/small      # two data sets of each kind, minutes
    python ch_delift/lab/where_it_pays.py --model FOLDER --out runs/other   # with another base model

The kinds of data are told in `conditions.py`, the ways to choose in `arms.py`, and what is compared in `plan.py`. We fixed
`conditions.md` before any score on these data sets existed. Each data set is one repetition: intervals and tests are over data
sets. All pairs of utilities are measured.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from common.support import options
from common.support.console import say
from common.support.files import InputError, Journal
from common.support.options import FolderOptions, ModelOption, PrecisionOption, option

SMALL_RECORDS = 150  # so many of the training records are left with --small: pairs are their square


@dataclass(frozen=True)
class MapOptions(FolderOptions, ModelOption, PrecisionOption):
    """The options of this command."""

    small: bool = option(False, f"two data sets of each kind, with {SMALL_RECORDS} records, and the primary arms, in minutes; "
                         "they are not among those of the map")
    pilot: bool = option(False, "only the oracle and random subsets, at several learning rates and numbers of steps, on data "
                         "sets that the map does not use")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.small and self.pilot:
            raise InputError("--small and --pilot are different maps; give one of them.")


if __name__ == "__main__":
    options.run_command(options.parse, MapOptions, __doc__)  # --help and wrong options end here: imports take seconds

from ch_delift.lab.arms import ARMS, Setting
from ch_delift.lab.conditions import CONDITIONS, DrawnData, draw_data, measures, what_was_chosen
from ch_delift.lab.plan import BATCH, MAP, PILOT, SMALL, Series, Trial
from ch_delift.lab.tables import show
from ch_delift.selection import Similarities
from ch_instruct import pipeline
from ch_instruct.pipeline import FineTuning, Work
from common.losses import next_token_loss
from common.pretrained import load_weights
from common.support import runs


def trials(plan: Sequence[Series]) -> Iterator[Trial]:
    """All trainings of some series, one data set after the other."""
    for seed in sorted({seed for series in plan for seed in series.seeds}):
        for series in plan:
            for arm in series.arms if seed in series.seeds else ():
                yield Trial(series.condition, seed, arm, series.lr, series.steps)


def choose(trial: Trial, work: Work, data: DrawnData, folder: Path) -> tuple[list[int], float | None]:
    """The places of the records that this arm trains on, and how many processor seconds the choice took (None where utilities
    that were there already, perhaps in part, were used)."""
    load_weights(work.model, work.folder)  # the base model, not what was trained last
    matrices, began = folder / "utility" / f"{trial.condition}-{trial.seed}", time.process_time()
    known = ("DELIFT" in trial.arm or trial.arm == "wICI") and matrices.exists()
    groups = {"data": work.examples["train"]} | ({"target": work.examples["target"]} if data.target else {})
    similarities = Similarities(work.model, work.tokenizer, groups, matrices, work.precision)
    places = ARMS[trial.arm](Setting(CONDITIONS[trial.condition], data, work, similarities))
    return places, None if known else time.process_time() - began


def run_trial(trial: Trial, work: Work, data: DrawnData, folder: Path) -> dict[str, Any]:
    """Choose, train from the base model, and test. Returns what is kept of it."""
    places, seconds = choose(trial, work, data, folder)
    examples = pipeline.example_dataset([work.examples["train"][i] for i in places], work.tokenizer)
    run = pipeline.train(work, examples, next_token_loss, folder / "model", seed=0, lr=trial.lr, max_steps=trial.steps,
                         evaluate_every=trial.steps)
    result = pipeline.test(work, run).result
    families = {family: round(match, 4) for family, match in result["families"].items()}
    return {**measures(data, families), "families": families, "test_loss": round(result["test_loss"], 4),
            **what_was_chosen(data, places), "seconds": None if seconds is None else round(seconds, 2),
            "places": places if len(places) < len(data.training) else []}


def run_all(todo: list[Trial], work: Work, journal: Journal, folder: Path, records: int | None = None) -> None:
    """Run these trials, with so many training records (None: all); each is in the journal as soon as it is done."""
    done = 0
    for (condition, seed), trials_here in groupby(todo, key=lambda trial: (trial.condition, trial.seed)):
        data = draw_data(condition, seed)
        data = data._replace(training=data.training[:records])  # they are in random order
        here = pipeline.with_records(work, {"train": data.training, "validation": [], "test": data.test, "target": data.target})
        for trial in trials_here:
            done += 1
            say(f"{done} of {len(todo)}: {condition}, data set {seed}, {trial.arm}, {trial.steps} steps at {trial.lr:g}")
            journal.append(trial._asdict() | run_trial(trial, here, data, folder))


def main() -> None:
    given = options.parse(MapOptions, __doc__)
    runs.check_run(given)
    work = pipeline.prepare(FineTuning(model=given.model, precision=given.precision, batch_size=BATCH))
    folder = runs.open_run("where_it_pays", given, {name: work.facts[name] for name in ("model_sha256", "precision")})
    journal = Journal(folder / "trials.jsonl", Trial.__annotations__, "no trial of the map")
    phases = PILOT if given.pilot else SMALL if given.small else MAP
    for phase in phases:  # what was fixed beforehand is told before the rest is run
        known = {Trial(*(entry[name] for name in Trial._fields)) for entry in journal.entries}
        run_all([trial for trial in trials(phase) if trial not in known], work, journal, folder,
                SMALL_RECORDS if given.small else None)
        show(folder, phases, journal.entries)


if __name__ == "__main__":
    options.run_command(main)
