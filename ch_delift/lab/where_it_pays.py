"""When does choosing data pay? One comparison on three kinds of data, eight data sets of each, with an oracle beside it.

    python ch_delift/lab/where_it_pays.py --out runs/where              # the map, hours: primary comparisons, then the rest
    python ch_delift/lab/where_it_pays.py --out runs/where --resume     # go on where it was interrupted
    python ch_delift/lab/where_it_pays.py --small --out runs/small      # two data sets of each kind, minutes
    python ch_delift/lab/where_it_pays.py --pilot --out runs/pilot          # the oracle and chance alone, on other data sets
    python ch_delift/lab/where_it_pays.py --model FOLDER --out runs/other   # with another base model

`conditions.py` describes the kinds of data, and `conditions.md` says what was fixed before any method was tried. Each data
set is one repetition: intervals and tests are over data sets. All pairs of utilities are measured.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from common.support import options
from common.support.console import say
from common.support.files import InputError, Journal, read_json, write_json
from common.support.options import FolderOptions, ModelOption, PrecisionOption, option

SMALL_RECORDS = 150  # so many of the training records are left with --small: pairs are their square


@dataclass(frozen=True)
class MapOptions(FolderOptions, ModelOption, PrecisionOption):
    """The options of this command."""

    small: bool = option(False, f"two data sets of each kind, with {SMALL_RECORDS} records, and fewer arms, in minutes; "
                         "they are not among those of the map")
    pilot: bool = option(False, "only the oracle and random subsets, on data sets that the map does not use")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.small and self.pilot:
            raise InputError("--small and --pilot are different maps; give one of them.")


def parse() -> MapOptions:
    return options.parse(MapOptions, __doc__)


if __name__ == "__main__":
    options.run_command(parse)  # --help and wrong options end here: the imports below take seconds

from ch_delift.baselines import highest, random_subset
from ch_delift.experiment import score_choice
from ch_delift.greedy import maximize
from ch_delift.lab.conditions import (
    CONDITIONS,
    PRIMARY,
    SETS,
    DrawnData,
    Series,
    draw_data,
    family_sizes,
    known_similarity,
    oracle,
    utilities_of_pairs,
    what_was_chosen,
)
from ch_delift.lab.map_tables import show
from ch_delift.selection import Similarities, SimilarityOf, budget_of, objective
from ch_delift.submodular import Matrix
from ch_instruct import pipeline
from ch_instruct.encoding import encode_record
from ch_instruct.pipeline import FineTuning, Work
from common.losses import next_token_loss
from common.pretrained import load_weights
from common.support import runs

EPOCHS, BATCH, LR = 5, 8, 3e-4
PILOT_SETS, SMALL_SETS = range(100, 103), range(200, 202)  # data seeds, none of them in two maps
FEWER_SETS = range(3)  # of what is only described
FRACTIONS = (0.05, 0.1, 0.15, 0.3)
METHODS = ("random", "oracle", "se", "delift")
# DELIFT with a step replaced by what the oracle knows: where one of these is far ahead, that step loses the information.
REPLACED = ("known utility", "even rows", "known utility, even rows")


def plan(given: MapOptions) -> list[Series]:
    """What is compared."""
    if given.pilot:
        return [Series(c.name, c.fraction, "equal epochs", ("random", "oracle"), PILOT_SETS) for c in CONDITIONS.values()]
    if given.small:
        return [Series(name, CONDITIONS[name].fraction, "equal epochs", METHODS, SMALL_SETS) for name in PRIMARY]
    everything = (*METHODS, "gradient", "full")
    series = [Series(name, CONDITIONS[name].fraction, "equal epochs", everything + REPLACED, SETS, 2) for name in PRIMARY]
    series.append(Series("noisy", CONDITIONS["noisy"].fraction, "equal epochs", everything, FEWER_SETS))
    series += [Series(name, CONDITIONS[name].fraction, "equal steps", METHODS, FEWER_SETS) for name in PRIMARY]
    return series + [Series(name, fraction, "equal epochs", METHODS, FEWER_SETS) for name in PRIMARY
                     for fraction in FRACTIONS if fraction != CONDITIONS[name].fraction]


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
            for turn in range(1 if arm == "full" else series.trainings):  # all data are no choice that could be another
                yield Trial(series.condition, series.fraction, series.schedule, seed, arm, turn)


def encoded(work: Work, data: DrawnData) -> Work:
    """The same work with the records of this data set."""
    records = {"train": data.training, "validation": [], "test": data.test, "target": data.target}
    return replace(work, records=records, examples={part: [encode_record(record, work.tokenizer, work.options.style)
                                                           for record in found] for part, found in records.items()})


def similarity_of_arm(arm: str, similarities: Similarities, data: DrawnData) -> SimilarityOf:
    """What an arm's objective is given: cosines of hidden states, utilities, or one of `REPLACED`."""
    def changed(rows: str, columns: str) -> Matrix:
        known = arm.startswith("known utility")
        found = known_similarity(data) if known else similarities.by_utility(rows, columns)
        return found / family_sizes(data)[:, None] if arm.endswith("even rows") else found

    return similarities.by_hidden_states if arm == "se" else changed


def choose(trial: Trial, work: Work, data: DrawnData, folder: Path) -> dict[str, Any]:
    """What a method would choose, as much of it as any fraction asks for, and how many seconds that took. DELIFT also tells
    the mean utility of each kind of pair."""
    load_weights(work.model, work.folder)  # the base model, not what was trained last
    most, target = budget_of(max(FRACTIONS), len(data.training)), work.examples["target"]
    began = time.perf_counter()
    if trial.arm == "gradient":
        places = highest(score_choice("gradient", work, replace(work, examples={"train": target}) if target else None), most)
        return {"places": places, "choosing": time.perf_counter() - began}
    matrices = folder / "utility" / f"{trial.condition}-{trial.seed}"
    if trial.arm == "delift":  # if interrupted, measured anew: the seconds are those of all pairs
        shutil.rmtree(matrices, ignore_errors=True)
    groups = {"data": work.examples["train"]} | ({"target": target} if target else {})
    similarities = Similarities(work.model, work.tokenizer, groups, matrices, work.precision)
    similarity_of = similarity_of_arm(trial.arm, similarities, data)
    places, _ = maximize(objective(CONDITIONS[trial.condition].stage, similarity_of), most)
    found: dict[str, Any] = {"places": places, "choosing": time.perf_counter() - began}
    if trial.arm == "delift":
        found["pairs"] = utilities_of_pairs(similarities.utility("target" if target else "data", "data"), data)
    return found


def subset(trial: Trial, work: Work, data: DrawnData, folder: Path) -> dict[str, Any]:
    """The places of the records that this arm trains on, and what `choose` tells. What a method chose is kept in a file."""
    n = len(data.training)
    budget = budget_of(trial.fraction, n)
    if trial.arm == "random":
        return {"places": random_subset(n, budget, trial.turn), "choosing": 0.0}
    if trial.arm in ("oracle", "full"):
        return {"places": list(range(n)) if trial.arm == "full" else oracle(data, budget), "choosing": 0.0}
    file = folder / "choices" / f"{trial.condition}-{trial.seed}-{trial.arm}.json"
    if not file.exists():
        write_json(file, choose(trial, work, data, folder))
    found = read_json(file)
    return found | {"places": found["places"][:budget]}  # greedy choices of all sizes begin alike


def run_trial(trial: Trial, work: Work, data: DrawnData, folder: Path) -> dict[str, Any]:
    """Choose, train from the base model, and test. Returns what is kept of it."""
    chosen = subset(trial, work, data, folder)
    n, places = len(data.training), chosen["places"]
    given = work.train_options()
    steps = given.total_steps(n if trial.schedule == "equal steps" else len(places))
    examples = pipeline.example_dataset([work.examples["train"][i] for i in places], work.tokenizer, seed=trial.turn)
    run = pipeline.train(work, examples, next_token_loss, folder / "model", trial.turn, max_steps=steps, evaluate_every=steps)
    result = pipeline.test(work, run).result
    others = [score for family, score in result["families"].items() if family not in data.large_families()]
    return {"exact_match": result["exact_match"], "other_families": fmean(others) if others else None, "steps": steps,
            **chosen, **what_was_chosen(data, places)}


def run_all(todo: list[Trial], work: Work, journal: Journal, folder: Path, records: int | None = None) -> None:
    """Run these trials, with so many training records (None: all); each is in the journal as soon as it is done."""
    done = 0
    for (condition, seed), trials_here in groupby(todo, key=lambda trial: (trial.condition, trial.seed)):
        data = draw_data(condition, seed)
        data = data._replace(training=data.training[:records])  # they are in random order
        here = encoded(work, data)
        for trial in trials_here:
            done += 1
            say(f"{done} of {len(todo)}: {condition}, data set {seed}, {trial.fraction:.0%}, {trial.schedule}, {trial.arm}")
            journal.append(trial._asdict() | run_trial(trial, here, data, folder))


def main() -> None:
    given = parse()
    runs.check_run(given)
    work = pipeline.prepare(FineTuning(model=given.model, precision=given.precision, epochs=EPOCHS, batch_size=BATCH, lr=LR))
    folder = runs.open_run("where_it_pays", given, {name: work.facts[name] for name in ("model_sha256", "precision")})
    journal = Journal(folder / "trials.jsonl", Trial.__annotations__, "no trial of the map")
    series = plan(given)
    primary = [one for one in series if one.primary]
    first = [primary] if 0 < len(primary) < len(series) else []  # what was fixed beforehand is told before the rest is run
    for wanted in [*first, series]:
        known = {Trial(*(entry[name] for name in Trial._fields)) for entry in journal.entries}
        todo = [trial for one in wanted for trial in trials(one) if trial not in known]
        run_all(todo, work, journal, folder, SMALL_RECORDS if given.small else None)
        show(folder, wanted, journal.entries)


if __name__ == "__main__":
    options.run_command(main)
