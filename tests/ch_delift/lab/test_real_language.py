import json
import sys

import pytest

from ch_delift.lab import real_language
from ch_delift.lab.real_language import CHOSEN, PRIMARY, RULES
from ch_instruct.lab import real_draws, real_plan
from ch_pretrain import classroom
from tests.conftest import assert_refused
from tests.models import save_tiny

pytestmark = pytest.mark.slow


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Runs the command on two small draws with a tiny model and these options; gives the entries of its journal."""
    sizes = {"TRAIN": 12, "TEST": 4, "ASKED": 2, "NEW_TOKENS": 4, "PILOT_DRAWS": range(0, 2), "DRAWS": range(2, 4),
             "LR": {4: 1e-3, 8: 3e-4, 12: 3e-4}}
    for name, value in sizes.items():
        monkeypatch.setattr(real_plan, name, value)
    monkeypatch.setattr(real_language, "CHOSEN", (4, 8))
    monkeypatch.setattr(real_language, "PRIMARY", [("DELIFT", "random", 8), ("SE-ρ", "random", 4)])
    records = [{name: record[name] for name in ("instruction", "input", "output")} for record in classroom.records()[::9]]
    (tmp_path / "data.json").write_text(json.dumps(records))
    save_tiny(tmp_path / "model")

    def run(name: str, *flags: str) -> list[dict]:
        monkeypatch.setattr(sys, "argv", ["real_language.py", "--data", str(tmp_path / "data.json"), "--model",
                                          str(tmp_path / "model"), "--out", str(tmp_path / name), *flags])
        real_language.main()
        return [json.loads(line) for line in (tmp_path / name / "trials.jsonl").read_text().splitlines()]

    return run


def test_the_pilot_trains_random_subsets_on_draws_of_its_own_and_names_a_rate(start, capsys):
    found = start("pilot", "--pilot")
    assert len(found) == 2 * 3 * 3 and {entry["draw"] for entry in found} == {0, 1}  # draws, rates, subsets
    assert {entry["arm"] for entry in found} == {"random"} and "rouge_l" not in found[0]
    told = capsys.readouterr().out
    for records in (4, 8):
        means = {lr: sum(e["test_loss"] for e in found if (e["lr"], e["records"]) == (lr, records)) for lr in real_plan.RATES}
        assert f"{min(means, key=means.get):g} with {records} records" in told


def test_a_run_that_was_interrupted_goes_on_and_ends_as_one_that_was_not(start, monkeypatch, tmp_path):
    whole = start("whole")
    measure, count = real_draws.measure, []

    def interrupted(*args, **how):
        count.append(1)
        if len(count) in (4, 12):
            raise KeyboardInterrupt
        return measure(*args, **how)

    monkeypatch.setattr(real_draws, "measure", interrupted)
    for flags in ([], ["--resume"]):
        with pytest.raises(KeyboardInterrupt):
            start("parts", *flags)
    assert not (tmp_path / "parts" / "RESULTS.md").exists()
    again = start("parts", "--resume")
    assert len(count) == 2 * 9 + 2 and len(again) == len(whole) == 22  # two trainings were lost, and no other was repeated
    untimed = [[{name: value for name, value in e.items() if name != "seconds"} for e in found] for found in (whole, again)]
    assert untimed[0] == untimed[1]

    by_arm = {(e["draw"], e["arm"], e["records"]): e for e in whole}
    for draw in (2, 3):
        for rule in RULES:
            few, many = (by_arm[draw, rule, records]["places"] for records in (4, 8))
            assert few == many[:4] and len(set(many)) == 8
        seconds = {rule: by_arm[draw, rule, 8]["seconds"] for rule in RULES}
        assert 0 == seconds["random"] < seconds["SE"] == seconds["SE-ρ"] < seconds["DELIFT"] == seconds["DELIFT-ρ"]
        alike = {rule: by_arm[draw, rule, 8]["as_delift"] for rule in RULES}
        assert alike["DELIFT"] == 8 and alike["random"] == len(
            {*by_arm[draw, "random", 8]["places"]} & {*by_arm[draw, "DELIFT", 8]["places"]})
        assert "test_loss" not in by_arm[draw, "DELIFT-ρ", 8]  # its choice is looked at alone
        assert by_arm[draw, "base", 0]["test_loss"] != by_arm[draw, "random", 8]["test_loss"]
    page = (tmp_path / "parts" / "RESULTS.md").read_text()
    assert "p after Holm" in page and "Not finished" not in page and page == (tmp_path / "whole" / "RESULTS.md").read_text()


def test_the_plan_is_the_one_that_was_fixed():
    todo = list(real_language.trials(pilot=False))
    assert len(todo) == len(set(todo)) == len(real_plan.DRAWS) * 11 and len(real_plan.DRAWS) >= 5
    assert not {*real_plan.DRAWS} & {*real_plan.PILOT_DRAWS} and {*real_plan.LR.values()} < {*real_plan.RATES}
    assert CHOSEN == (20, 60) and len(PRIMARY) == 6
    planned = {(trial.arm, trial.records) for trial in todo}
    assert {(arm, records) for first, second, records in PRIMARY for arm in (first, second)} < planned


def test_a_pilot_that_is_not_finished_names_no_rate():
    some = [trial._asdict() | {"test_loss": 2 + trial.lr - 0.01 * trial.turn - trial.records / 1000}
            for trial in real_language.trials(pilot=True)]
    told = real_language.pilot_text(some)
    assert "random subsets: 0.0001 with 20 records, 0.0001 with 60 records." in told and told.count("-0.0100 at ") == 2 * 3
    row = next(line for line in told.splitlines() if line.startswith("0.001"))
    assert row.split() == ["0.001", "1.9760", "(4)", "1.9410", "(2)"]
    told = real_language.pilot_text(some[:-1])
    assert "not decided" in told and told.count("-0.0100 at ") == 2 * 3 - 1


def test_without_data_and_in_a_folder_in_use_it_is_refused(in_process, tmp_path):
    command = "ch_delift/lab/real_language.py"
    assert_refused(in_process(command), "the following arguments are required: --data")
    (tmp_path / "notes.txt").write_text("mine")
    assert_refused(in_process(command, "--data", "a.json", "--out", tmp_path), "already holds something")
