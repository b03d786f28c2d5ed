"""When does SFTMix pay? Plain training and its rivals, with none, a fifth and two fifths of the training answers wrong.

    python ch_sftmix/lab/where_it_pays.py --out runs/sftmix_map             # the map, some hours on two cores
    python ch_sftmix/lab/where_it_pays.py --out runs/sftmix_map --resume    # go on where it was interrupted
    python ch_sftmix/lab/where_it_pays.py --out runs/small --small          # a sketch of it, minutes
    python ch_sftmix/lab/where_it_pays.py --out runs/parts --seeds 8 9 10 11 --noise 0.2 --arms "mu = 0" "random halves"

Each repetition is a data set: another seed gives other training records, other validation and test questions, and another order
of training. All arms (arms.py) take as many steps and keep the checkpoint with the best validation loss. No answer of a
validation or test question is wrong. Confidence comes from a run of plain training (NTP), so an arm that uses it costs that run
too. The arm "ntp, twice as long" spends this time on plain training. conditions.md says which comparisons were fixed before any
was made, and under which conditions. --resume does not repeat arms that are done.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from common.support import options
from common.support.console import say
from common.support.files import FROM_0, InputError, Journal, read_json, write_json
from common.support.options import DeviceOption, FolderOptions, ModelOption, PrecisionOption, natural, option, share, whole

# The arms besides "ntp", which every map has: what they do stands in arms.py. The first ones are those of the map.
MAP_ARMS = ("sftmix", "tenth left out", "relative tenth left out", "random tenth left out", "highest loss left out", "neftune",
            "mu = 0", "oracle")
ARM_NAMES = (*MAP_ARMS, "random halves", "confident half", "mixup in confident half", "unconfident half",
             "mixup in unconfident half", "label smoothing", "dropout", "ntp, twice as long")


@dataclass(frozen=True)
class MapOptions(FolderOptions, PrecisionOption, DeviceOption, ModelOption):
    """The options of this command. With the defaults, the comparisons are the primary ones of conditions.md."""

    records: int = option(500, "training records of a data set (default: %(default)s)", whole, metavar="N")
    epochs: int = option(4, "passes of NTP over them (default: %(default)s)", whole, metavar="N")
    noise: tuple[float, ...] = option((0.0, 0.2, 0.4), "shares of wrong training answers (default: 0 0.2 0.4)", share,
                                      nargs="+", metavar="X")
    seeds: tuple[int, ...] = option(tuple(range(8, 16)), "one data set each, at least two (default: 8 to 15)", natural,
                                    nargs="+", metavar="N")
    arms: tuple[str, ...] = option(MAP_ARMS, f"besides ntp: {', '.join(ARM_NAMES)} (default: the first {len(MAP_ARMS)})",
                                   nargs="*", choices=["ntp", *ARM_NAMES], metavar="ARM")
    small: bool = option(False, "a sketch: 250 records, seeds 200 to 202, the arms of the primary comparisons")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, values, least in (("seeds", self.seeds, 2), ("noise", self.noise, 1)):
            if len(set(values)) < max(least, len(values)):
                raise InputError(f"--{name} {' '.join(map(str, values))}: give {least} or more, and each only once.")


if __name__ == "__main__":
    options.run_command(options.parse, MapOptions, __doc__)  # --help and wrong options end here: imports take seconds

import torch

from ch_instruct import pipeline
from ch_pretrain import classroom
from ch_sftmix.lab.arms import ARMS, LEFT_OUT, Cell, everything, without_wrong
from ch_sftmix.lab.calibration import reliability, token_predictions
from ch_sftmix.lab.tables import ENTRY, PRIMARY, finish
from ch_sftmix.train import SFTMix, reference_run
from common.losses import evaluate, next_token_loss
from common.pretrained import load_pretrained
from common.support import runs
from common.support.checkpoints import Run
from common.support.device import pick_device, pick_precision

PRIMARY_ARMS = tuple(dict.fromkeys(arm for pair in PRIMARY for arm in pair if arm != "ntp"))
SMALL: dict[str, Any] = {"records": 250, "seeds": (200, 201, 202), "arms": PRIMARY_ARMS}


def draw_data(seed: int, noise: float, count: int) -> list[dict]:
    """So many training records of the classroom's set of this seed, with its validation and test records.

    Raises:
        InputError: if it has fewer.
    """
    records = classroom.records(seed, noise)
    training = [record for record in records if record["split"] == "train"]
    if count > len(training):
        raise InputError(f"--records {count}: a data set of the classroom has {len(training)} for training; choose no more.")
    return training[:count] + [record for record in records if record["split"] != "train"]


def measure(cell: Cell, run: Run) -> dict[str, Any]:
    """All that is told of an arm: test scores, calibration, and the loss on the training examples of either half."""
    work, batch_size = cell.work, cell.work.options.batch_size
    bins = reliability(*token_predictions(work.model, work.dataset("test"), batch_size, work.precision))
    parts = (pipeline.example_dataset([work.examples["train"][i] for i in half], work.tokenizer) for half in cell.halves)
    training_loss = [evaluate(work.model, part, next_token_loss, batch_size, work.precision) for part in parts]
    return pipeline.test(work, run).result | {"bins": bins.tolist(), "training_loss": training_loss, "steps": run.step,
                                              "best_step": run.best_step}


def wrong_shares(cell: Cell) -> dict[str, float]:
    """Where the wrong answers are: their share of the confident half, the unconfident half, and each tenth that is left out."""
    right = set(without_wrong(cell))
    groups = dict(zip(("confident half", "unconfident half"), cell.halves))
    groups |= {arm: sorted({*everything(cell)} - {*kept(cell)}) for arm, kept in LEFT_OUT.items()}
    return {name: 1 - len(right & set(ids)) / max(len(ids), 1) for name, ids in groups.items()}


def run_cell(given: MapOptions, arms: Sequence[str], folder: Path, journal: Journal, seed: int, noise: float,
             precision: str) -> None:
    """Train and test NTP and these arms on one data set. Each is in the journal as soon as it is done, and is not repeated."""
    arms = [arm for arm in arms if noise or arm != "oracle"]  # without wrong answers, that is NTP
    done = {entry["arm"] for entry in journal.entries if (entry["noise"], entry["seed"]) == (noise, seed)}
    known = folder / "perplexities" / f"{seed}-{noise:g}.json"

    def note(arm: str, found: dict[str, Any]) -> None:
        journal.append({"noise": float(noise), "seed": seed, "arm": arm} | found)

    if {"ntp", *arms} <= done:
        return
    write_json(folder / "records.json", draw_data(seed, noise, given.records))
    work = pipeline.prepare(SFTMix(data=str(folder / "records.json"), model=given.model, device=given.device, seed=seed,
                                   precision=precision, epochs=given.epochs))
    checkpoint = folder / "checkpoint"
    if "ntp" not in done:
        say(f"\nntp, noise {noise:g}, data seed {seed}")
        run, perplexities = reference_run(work, checkpoint, seed)
        write_json(known, perplexities.tolist())
        cell = Cell(work, checkpoint, seed, perplexities)
        note("ntp", measure(cell, run) | {"wrong": wrong_shares(cell)})
    cell = Cell(work, checkpoint, seed, torch.tensor(read_json(known, [[FROM_0]]), dtype=torch.float64))
    for arm in [arm for arm in arms if arm not in done]:
        say(f"\n{arm}, noise {noise:g}, data seed {seed}")
        note(arm, measure(cell, ARMS[arm](cell)))


def as_fixed(given: MapOptions) -> bool:
    """Whether these are the conditions under which the primary comparisons were fixed."""
    ours, fixed = runs.plain_options(given), runs.plain_options(MapOptions())
    return all(ours[name] == fixed[name] for name in ("model", "records", "epochs", "noise", "seeds"))


def main() -> None:
    given = options.parse(MapOptions, __doc__)
    if given.small and not options.is_resuming(given):
        if any(getattr(given, name) != getattr(MapOptions, name) for name in SMALL):
            raise InputError(f"--small chooses {', '.join(map(options.flag, SMALL))} itself; leave these out.")
        given = replace(given, **SMALL)
    for seed in given.seeds:
        draw_data(seed, 0.0, given.records)  # refuses before anything is written; data sets differ a little in size
    runs.check_run(given)
    device = pick_device(given.device)
    precision = runs.recorded_precision(given, pick_precision(given.precision, device)[0])
    facts: dict[str, object] = {"model_sha256": runs.model_hash(load_pretrained(given.model)[0]), "precision": precision}
    out = runs.open_run("ch_sftmix", given, facts)

    journal = Journal(out / "trials.jsonl", ENTRY, "no trial of the map")
    for some in (PRIMARY_ARMS, ARM_NAMES):  # what was fixed beforehand comes first
        arms = [arm for arm in some if arm in given.arms]
        for seed, noise in product(given.seeds, given.noise):
            run_cell(given, arms, out, journal, seed, noise, precision)
        finish(out, journal.entries, as_fixed(given))


if __name__ == "__main__":
    options.run_command(main)
