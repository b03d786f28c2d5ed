"""When does SFTMix pay? Plain training and its rivals, with none, a fifth and two fifths of the training answers wrong.

    python ch_sftmix/lab/where_it_pays.py --out runs/sftmix_map             # the map, about three hours on two cores
    python ch_sftmix/lab/where_it_pays.py --out runs/small --small          # a sketch of it, minutes
    python ch_sftmix/lab/where_it_pays.py --out runs/long --epochs 8 --seeds 0 1 2 3 --arms sftmix "tenth left out"

Each repetition is a data set: another seed gives other training records, other validation and test questions, and another order
of training. All arms (arms.py) take as many steps and keep the checkpoint with the best validation loss. No answer of a
validation or test question is wrong. Confidence comes from a run of plain training (NTP), so an arm that uses it costs that run
too. The arm "ntp, twice as long" spends this time on plain training. conditions.md says which comparisons were fixed before any
was made, and under which conditions. --resume does not repeat arms that are done.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from common.support import options
from common.support.console import say, table
from common.support.files import InputError, Journal, write_json
from common.support.options import DeviceOption, FolderOptions, ModelOption, PrecisionOption, natural, option, share, whole

# The arms besides "ntp", which every map has: what they do stands in arms.py.
ARM_NAMES = ("sftmix", "tenth left out", "oracle", "random halves", "mu = 0", "confident half", "mixup in confident half",
             "unconfident half", "mixup in unconfident half", "label smoothing", "dropout", "ntp, twice as long")


@dataclass(frozen=True)
class MapOptions(FolderOptions, PrecisionOption, DeviceOption, ModelOption):
    """The options of this command. With the defaults, the comparisons are the primary ones of conditions.md."""

    records: int = option(500, "training records of a data set (default: %(default)s)", whole, metavar="N")
    epochs: int = option(4, "passes of NTP over them (default: %(default)s)", whole, metavar="N")
    noise: tuple[float, ...] = option((0.0, 0.2, 0.4), "shares of wrong training answers (default: 0 0.2 0.4)", share,
                                      nargs="+", metavar="X")
    seeds: tuple[int, ...] = option(tuple(range(8)), "one data set each, at least two (default: 0 to 7)", natural, nargs="+",
                                    metavar="N")
    arms: tuple[str, ...] = option(ARM_NAMES, f"besides ntp: {', '.join(ARM_NAMES)} (default: all)", nargs="*",
                                   choices=["ntp", *ARM_NAMES], metavar="ARM")
    small: bool = option(False, "a sketch: 250 records, seeds 200 to 202, the arms of the primary comparisons")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, values, least in (("seeds", self.seeds, 2), ("noise", self.noise, 1)):
            if len(set(values)) < max(least, len(values)):
                raise InputError(f"--{name} {' '.join(map(str, values))}: give {least} or more, and each only once.")


def parse() -> MapOptions:
    return options.parse(MapOptions, __doc__)


if __name__ == "__main__":
    options.run_command(parse)  # --help and wrong options end here: the imports below take seconds

import torch

from ch_instruct import pipeline
from ch_pretrain import classroom
from ch_sftmix.lab.arms import ARMS, Cell, everything, without_least_confident, without_wrong
from ch_sftmix.lab.calibration import calibration_error, reliability, token_predictions
from ch_sftmix.lab.plots import draw_reliability
from ch_sftmix.train import SFTMix, reference_run
from common.losses import evaluate, next_token_loss
from common.pretrained import load_pretrained
from common.support import runs
from common.support.checkpoints import Run
from common.support.device import pick_device, pick_precision
from common.support.plots import save_picture
from common.support.reports import difference_table, mean_interval, plus_minus, tested

PRIMARY = (("sftmix", "ntp"), ("tenth left out", "ntp"))  # at each level of noise
DESCRIPTIVE = (("sftmix", "random halves"), ("sftmix", "mu = 0"), ("mixup in confident half", "confident half"),
               ("mixup in unconfident half", "unconfident half"), ("ntp, twice as long", "sftmix"),
               *((arm, "ntp") for arm in ARMS if (arm, "ntp") not in PRIMARY))


SMALL: dict[str, Any] = {"records": 250, "seeds": (200, 201, 202), "arms": tuple(first for first, _ in PRIMARY)}


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
    """Where the wrong answers are: their share of the confident half, the unconfident half, and the tenth left out."""
    right = set(without_wrong(cell))
    groups = zip(("confident half", "unconfident half", "tenth left out"),
                 (*cell.halves, sorted({*everything(cell)} - {*without_least_confident(cell)})))
    return {name: 1 - len(right & set(ids)) / max(len(ids), 1) for name, ids in groups}


ENTRY = {"noise": float, "seed": int, "arm": str}  # of the journal, with what `measure` found


def run_cell(given: MapOptions, folder: Path, journal: Journal, seed: int, noise: float, precision: str) -> dict[str, dict]:
    """Train and test all arms on one data set. Each is in the journal as soon as it is done, and is not repeated."""
    arms = [arm for arm in ("ntp", *ARMS)
            if arm in ("ntp", *given.arms) and (noise or arm != "oracle")]  # without wrong answers, the oracle is NTP
    done = {entry["arm"]: entry for entry in journal.entries if (entry["noise"], entry["seed"]) == (noise, seed)}

    def note(arm: str, found: dict[str, Any]) -> None:
        done[arm] = {"noise": float(noise), "seed": seed, "arm": arm} | found
        journal.append(done[arm])

    if not set(arms) <= done.keys():
        write_json(folder / "records.json", draw_data(seed, noise, given.records))
        work = pipeline.prepare(SFTMix(data=str(folder / "records.json"), model=given.model, device=given.device, seed=seed,
                                       precision=precision, epochs=given.epochs))
        checkpoint = folder / "checkpoint"
        if "ntp" not in done:
            say(f"\nntp, noise {noise:g}, data seed {seed}")
            run, perplexities = reference_run(work, checkpoint, seed)
            cell = Cell(work, checkpoint, seed, perplexities)
            note("ntp", measure(cell, run) | {"perplexities": perplexities.tolist(), "wrong": wrong_shares(cell)})
        cell = Cell(work, checkpoint, seed, torch.tensor(done["ntp"]["perplexities"], dtype=torch.float64))
        for arm in [arm for arm in arms if arm not in done]:
            say(f"\n{arm}, noise {noise:g}, data seed {seed}")
            note(arm, measure(cell, ARMS[arm](cell)))
    return {arm: done[arm] for arm in arms}


Results = dict[float, dict[str, list[dict]]]  # noise -> arm -> what `measure` found, a data set each

MEASURES: dict[str, tuple[Callable[[dict], float], str]] = {
    "Exact match": (lambda found: found["exact_match"], ".1%"),
    "Test loss": (lambda found: found["test_loss"], ".3f"),
    "Expected calibration error": (lambda found: calibration_error(torch.tensor(found["bins"])), ".1%"),
    "Gap in the confident half: test loss minus training loss": (
        lambda found: found["test_loss"] - found["training_loss"][0], ".3f"),
    "Gap in the unconfident half": (lambda found: found["test_loss"] - found["training_loss"][1], ".3f")}


def differences(results: Results, first: str, second: str, value: Callable[[dict], float]) -> dict[float, list[float]]:
    """One arm minus another, data set by data set, at each noise that has both."""
    return {noise: [value(one) - value(other) for one, other in zip(arms[first], arms[second])]
            for noise, arms in results.items() if first in arms and second in arms}


def primary_comparisons(results: Results) -> list[dict[str, Any]]:
    """Each primary comparison of exact match at each noise; see `tested`."""
    return tested([{"name": f"{first} - {second}, noise {noise:g}", "differences": values} for first, second in PRIMARY
                   for noise, values in differences(results, first, second, MEASURES["Exact match"][0]).items()])


def arm_table(results: Results, title: str) -> str:
    """One measure of every arm, a column for each noise."""
    value, form = MEASURES[title]
    arms = [arm for arm in ("ntp", *ARMS) if any(arm in found for found in results.values())]
    return table([title, *(f"noise {noise:g}" for noise in results)], [
        [arm, *(plus_minus(mean_interval([value(one) for one in found[arm]]), form) if arm in found else "-"
                for found in results.values())] for arm in arms])


def tell(results: Results, title: str) -> None:
    """Print all tables; `title` stands above the primary comparisons."""
    say(f"\n{title}\n\n" + difference_table(primary_comparisons(results), "exact match"))
    say("\nAll that follows is descriptive. Means ± half of the 95 % interval, not corrected for their number.")
    for measure, pairs in (("Exact match", DESCRIPTIVE), ("Test loss", PRIMARY + DESCRIPTIVE)):
        value, form = MEASURES[measure]
        rows = [[f"{first} - {second}", *(plus_minus(mean_interval(found[noise]), f"+{form}") if noise in found else "-"
                                          for noise in results)]
                for first, second in pairs if (found := differences(results, first, second, value))]
        if rows:
            say("\n" + table([f"{measure}, difference", *(f"noise {noise:g}" for noise in results)], rows))
    for measure in MEASURES:
        say("\n" + arm_table(results, measure))
    wrong = {noise: [found["wrong"] for found in arms["ntp"]] for noise, arms in results.items()}
    say("\n" + table(["Wrong answers among", *(f"noise {noise:g}" for noise in results)], [
        [group, *(plus_minus(mean_interval([found[group] for found in all_found])) for all_found in wrong.values())]
        for group in next(iter(wrong.values()))[0]]))


def main() -> None:
    given = parse()
    if given.small and not options.is_resuming(given):
        if any(getattr(given, name) != getattr(MapOptions, name) for name in SMALL):
            raise InputError(f"--small chooses {', '.join(map(options.flag, SMALL))} itself; leave these out.")
        given = replace(given, **SMALL)
    draw_data(given.seeds[0], 0.0, given.records)  # refuses before anything is written
    runs.check_run(given)
    device = pick_device(given.device)
    precision = runs.recorded_precision(given, pick_precision(given.precision, device)[0])
    facts: dict[str, object] = {"model_sha256": runs.model_hash(load_pretrained(given.model)[0]), "precision": precision}
    out = runs.open_run("ch_sftmix", given, facts)

    cells: dict[float, list[dict[str, dict]]] = {noise: [] for noise in given.noise}
    journal = Journal(out / "trials.jsonl", ENTRY, "no trial of the map")
    for seed in given.seeds:
        for noise in given.noise:
            cells[noise].append(run_cell(given, out, journal, seed, noise, precision))
    results = {noise: {arm: [cell[arm] for cell in found] for arm in found[0]} for noise, found in cells.items()}
    write_json(out / "map.json", {"seeds": given.seeds, "primary": primary_comparisons(results), "results": results})
    for noise, arms in results.items():
        binned: dict[str, torch.Tensor] = {arm: torch.tensor([found["bins"] for found in arms[arm]]).sum(dim=0)
                                           for arm in ("ntp", "sftmix", "label smoothing") if arm in arms}
        save_picture(out / f"reliability-{noise:g}.png", partial(draw_reliability, binned=binned))
    ours, fixed = runs.plain_options(given), runs.plain_options(MapOptions())
    as_fixed = {first for first, _ in PRIMARY} <= {*given.arms} and all(
        ours[name] == fixed[name] for name in ("model", "records", "epochs", "noise", "seeds"))
    title = "The primary comparisons" if as_fixed else "The same comparisons under other than the primary conditions"
    tell(results, f"{title}: {given.records} training records, {given.epochs} epochs, {len(given.seeds)} data sets")


if __name__ == "__main__":
    options.run_command(main)
