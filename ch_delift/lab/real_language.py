"""DELIFT on real language: choose a tenth or three tenths of 200 Alpaca records, train a public model on them, and test it.

    python ch_delift/lab/real_language.py --data alpaca.json --out runs/real              # the map, hours
    python ch_delift/lab/real_language.py --out runs/real --resume                        # go on where it was interrupted
    python ch_delift/lab/real_language.py --data alpaca.json --out runs/pilot --pilot     # learning rates, on other draws
    python ch_delift/lab/real_language.py --data alpaca.json --out runs/real --model smollm2-folder

What is compared, and what we fixed beforehand, stands in ch_instruct/lab/real_language.md. SFTMix takes the same draws with
ch_sftmix/lab/real_language.py.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ch_instruct.lab import real_plan as plan
from ch_instruct.lab.real_plan import RealOptions, Trial
from common.support import options
from common.support.console import say, table
from common.support.options import option


@dataclass(frozen=True)
class MapOptions(RealOptions):
    """The options of this command."""

    pilot: bool = option(False, "only random subsets, at several learning rates, on draws that the map does not use")


if __name__ == "__main__":
    options.run_command(options.parse, MapOptions, __doc__)  # --help and wrong options end here: imports take seconds

from ch_delift.lab.arms import ARMS, Setting
from ch_delift.lab.conditions import Condition, DrawnData
from ch_delift.selection import Similarities
from ch_delift.support.delift_options import Pairs
from ch_instruct.lab import real_draws as real
from ch_instruct.pipeline import Work
from common.pretrained import load_weights
from common.support.files import is_there, read_json, write_json, write_text
from common.support.reports import cell, fenced

NEAREST = Pairs("neighbours", 8)  # whose utilities are measured
CHOSEN = (20, 60)  # records: a tenth and three tenths
RULES = ("random", "SE", "SE-ρ", "DELIFT", "DELIFT-ρ")
UNTRAINED = "DELIFT-ρ"  # its choice is looked at alone
PRIMARY = [(first, second, records) for records in reversed(CHOSEN)
           for first, second in (("DELIFT", "random"), ("DELIFT", "SE"), ("SE-ρ", "random"))]
LOOK = {"seconds": ("seconds", ".0f"), "copies": ("near-copies", ".1f"), "kinds": ("first words", ".1f"),
        "question": ("words asked", ".1f"), "answer": ("words answered", ".1f"), "covered": ("pairs covered", ".1%"),
        "as_delift": ("as DELIFT", ".1f")}


def trials(pilot: bool) -> Iterator[Trial]:
    """All trainings, draw by draw, and the untouched model. In the pilot: random subsets, a second one of the smaller size."""
    for number in plan.PILOT_DRAWS if pilot else plan.DRAWS:
        if pilot:
            yield from (Trial(number, "random", records, lr, turn) for turn in (0, 1) for records in CHOSEN[:2 - turn]
                        for lr in plan.RATES)
        else:
            yield from (Trial(number, arm, records, plan.LR[records]) for records in CHOSEN for arm in RULES)
            yield Trial(number, "base", 0, 0.0)


def choose(work: Work, rules: Sequence[str], turn: int, folder: Path) -> dict[str, dict[str, Any]]:
    """What each rule chooses: as many places as the largest choice has, of which a smaller one takes the first; and the seconds
    of one core that it took, None where utilities were there in part."""
    load_weights(work.model, work.folder)  # the untouched model
    known, groups = folder.exists(), {"data": work.examples["train"]}
    near = Similarities(work.model, work.tokenizer, groups, folder, work.precision, NEAREST)
    everywhere = Similarities(work.model, work.tokenizer, groups, folder, work.precision)
    everywhere.vectors = near.vectors  # the same hidden states
    seconds: dict[str, float | None] = {"random": 0.0}
    began = time.process_time()
    if {*rules} != {"random"}:
        near.hidden("data")
        seconds["SE"] = seconds["SE-ρ"] = time.process_time() - began
        near.utility("data", "data")
        seconds["DELIFT"] = seconds["DELIFT-ρ"] = None if known else time.process_time() - began
    data, most = DrawnData(work.records["train"], work.records["test"], []), Condition(max(CHOSEN))
    found = {}
    for rule in rules:
        setting = Setting(most, data, work, near if rule.startswith("DELIFT") else everywhere, turn)
        found[rule] = {"places": ARMS[rule](setting), "seconds": seconds[rule]}
    return found


def choices(work: Work, number: int, folder: Path) -> dict[str, dict[str, Any]]:
    """The choices of all rules on this draw, made once and kept."""
    file = folder / "choices" / f"{number}.json"
    if not is_there(file):
        write_json(file, choose(work, RULES, 0, folder / "utility" / str(number)))
    return read_json(file, {str: {"places": [int], "seconds": (float, None)}})


def run_trial(trial: Trial, work: Work, folder: Path, pilot: bool) -> dict[str, Any]:
    """Choose, train from the untouched model, and test. Returns what is kept of it."""
    if trial.arm == "base":
        load_weights(work.model, work.folder)
        return real.measure(work)
    found = choose(work, ["random"], trial.turn, folder) if pilot else choices(work, trial.draw, folder)
    places = found[trial.arm]["places"][:trial.records]
    measured = {}
    if trial.arm != UNTRAINED:
        real.train(work, places, folder / "model", trial)
        measured = real.measure(work, answers=not pilot)
    if not pilot:
        measured["as_delift"] = len({*places} & {*found["DELIFT"]["places"][:trial.records]})
    return measured | {"seconds": found[trial.arm]["seconds"], "places": places, **real.look_of(work.records["train"], places)}


def pilot_text(entries: Sequence[dict]) -> str:
    """What random subsets reach at each rate, the best rate, and how much two subsets of one draw differ."""
    losses = {Trial(*(e[name] for name in Trial._fields)): e["test_loss"] for e in entries}
    by_rate = {lr: [[loss for trial, loss in losses.items() if (trial.lr, trial.records) == (lr, records)]
                    for records in CHOSEN] for lr in plan.RATES}
    rows = [[f"{lr:g}", *(f"{cell(fmean(some) if some else None, '.4f')} ({len(some)})" for some in found)]
            for lr, found in by_rate.items()]
    best = "not decided, as not all is measured"
    if {*trials(pilot=True)} <= {*losses}:
        best = ", ".join(f"{min(plan.RATES, key=lambda lr: fmean(by_rate[lr][i])):g} with {records} records"
                         for i, records in enumerate(CHOSEN))
    gaps = [f"{losses[trial] - losses[first]:+.4f} at {trial.lr:g}" for trial in losses
            if trial.turn and (first := trial._replace(turn=0)) in losses]
    return (f"{fenced(table(['rate', *(f'test loss, {n} records' for n in CHOSEN)], rows))}\n\nBest for random subsets: "
            f"{best}. Second minus first subset, {CHOSEN[0]} records: {', '.join(gaps) or '-'}.")


def page(entries: Sequence[dict]) -> str:
    """The results of the map."""
    arms = [("base", 0), *((rule, records) for records in CHOSEN for rule in RULES)]
    looks = []
    for rule, records in arms[1:]:
        values = [[v for v in real.by_draw(entries, rule, records, name).values() if v is not None] for name in LOOK]
        looks.append([rule, str(records), *(cell(fmean(found) if found else None, form)
                                            for found, (_, form) in zip(values, LOOK.values()))])
    return "\n\n".join([
        "# DELIFT on real language", real.HEAD, real.primary_text(entries, PRIMARY), "Described, not tested:",
        real.arm_table(entries, arms, "random"),
        fenced(table(["what was chosen", "records", *(heading for heading, _ in LOOK.values())], looks))]) + "\n"


def main() -> None:
    given = options.parse(MapOptions, __doc__)
    work, folder, journal = real.start(given)
    done = {Trial(*(entry[name] for name in Trial._fields)) for entry in journal.entries}
    todo = [trial for trial in trials(given.pilot) if trial not in done]
    for number, trial in enumerate(todo, 1):
        say(f"{number} of {len(todo)}: draw {trial.draw}, {trial.arm}, {trial.records} records at {trial.lr:g}")
        journal.append(trial._asdict() | run_trial(trial, real.draw(work, trial.draw), folder, given.pilot))
    text = pilot_text(journal.entries) if given.pilot else page(journal.entries)
    say("\n" + text)
    write_text(folder / "RESULTS.md", text.rstrip() + "\n")


if __name__ == "__main__":
    options.run_command(main)
