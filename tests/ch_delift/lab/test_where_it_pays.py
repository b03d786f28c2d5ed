import json

import numpy as np
import pytest

from ch_delift.lab import conditions, where_it_pays
from ch_delift.lab.conditions import DrawnData, Series, draw_data, oracle
from ch_delift.lab.map_tables import CHOSEN
from common.support.files import read_json
from tests.conftest import assert_refused, save_tiny

SERIES = Series("target", 0.05, "equal epochs", ("random", "oracle"), range(300, 302), 2)


ARMS = ("random", "oracle", "se", "delift", "gradient", "full", "known utility")


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Runs the command with a small plan and these options."""
    def run(*options: str, series: Series = SERIES, kind: str = "--pilot") -> None:
        monkeypatch.setattr(where_it_pays, "plan", lambda given: [series])
        monkeypatch.setattr("sys.argv", ["where_it_pays.py", kind, "--out", str(tmp_path / "out"), *options])
        where_it_pays.main()

    return run


@pytest.mark.slow
def test_what_is_done_is_not_repeated(start, monkeypatch, tmp_path, capsys):
    ran: list[where_it_pays.Trial] = []
    interruptions: list[where_it_pays.Trial] = []

    def run_trial(trial, work, data, folder):
        if len(ran) == 3 and not interruptions:
            interruptions.append(trial)
            raise KeyboardInterrupt
        assert data == draw_data("target", trial.seed) and len(work.examples["train"]) == len(data.training)
        ran.append(trial)
        return {"exact_match": 0.5 if trial.arm == "oracle" else 0.25, **dict.fromkeys(CHOSEN, 0.0), "places": [0]}

    monkeypatch.setattr(where_it_pays, "run_trial", run_trial)
    with pytest.raises(KeyboardInterrupt):
        start()
    assert len(ran) == 3 and not (tmp_path / "out" / "report.json").exists()
    start("--resume")
    assert ran == list(where_it_pays.trials(SERIES))  # every one, and each once
    start("--resume")
    assert len(ran) == len(set(ran))
    found = read_json(tmp_path / "out" / "report.json")["series"][SERIES.name]["scores"]
    assert found["oracle"]["minus_random"] == [0.25, 0] and found["oracle"]["data_sets"] == [0.5, 0.5]
    assert "target, 5%, equal epochs" in capsys.readouterr().out


@pytest.mark.slow
def test_the_primary_comparisons_are_told_before_the_rest_is_run(monkeypatch, tmp_path):
    done: list[object] = []
    other = SERIES._replace(schedule="equal steps")
    monkeypatch.setattr(where_it_pays, "plan", lambda given: [other, SERIES])
    monkeypatch.setattr(where_it_pays, "run_all", lambda todo, *_: done.append({trial.schedule for trial in todo}))
    monkeypatch.setattr(where_it_pays, "show", lambda folder, plan, entries: done.append(plan))
    monkeypatch.setattr("sys.argv", ["where_it_pays.py", "--out", str(tmp_path / "out")])
    where_it_pays.main()
    assert done == [{"equal epochs"}, [SERIES], {"equal epochs", "equal steps"}, [other, SERIES]]


@pytest.mark.slow
def test_the_small_map_has_fewer_records(start, monkeypatch):
    seen = []

    def run_trial(trial, work, data, folder):
        seen.append((data, len(work.examples["train"])))
        return {"exact_match": 0.0, **dict.fromkeys(CHOSEN, 0.0), "places": [0]}

    monkeypatch.setattr(where_it_pays, "run_trial", run_trial)
    start(kind="--small", series=SERIES._replace(trainings=1, arms=("random", "oracle")))
    whole = draw_data("target", 300)
    assert seen[0] == (whole._replace(training=whole.training[:where_it_pays.SMALL_RECORDS]), where_it_pays.SMALL_RECORDS)


@pytest.mark.slow
def test_every_arm_trains_on_what_it_chose_and_is_tested(start, monkeypatch, tmp_path):
    monkeypatch.setattr(conditions, "PER_FAMILY", 3)
    monkeypatch.setattr(conditions, "TARGETS", (4, 3))
    monkeypatch.setattr(where_it_pays, "EPOCHS", 2)
    save_tiny(tmp_path / "model")
    start("--model", str(tmp_path / "model"), series=SERIES._replace(fraction=0.15, arms=ARMS, trainings=1))
    entries = [json.loads(line) for line in (tmp_path / "out" / "trials.jsonl").read_text().splitlines()]
    assert [e["arm"] for e in entries] == [*ARMS] * 2
    for entry in entries:
        assert len(set(entry["places"])) == (54 if entry["arm"] == "full" else 8) and 0 <= entry["exact_match"] <= 1
        assert entry["steps"] == (14 if entry["arm"] == "full" else 2)
    assert entries[1]["places"] == oracle(draw_data("target", 300), 8) and entries[1]["large"] == 1
    assert entries[3]["pairs"]["same family"] != entries[3]["pairs"]["other families"] and entries[3]["choosing"] > 0
    report = read_json(tmp_path / "out" / "report.json")
    assert report["utilities"].keys() == {"target"}
    assert len(report["series"]["target, 15%, equal epochs"]["overlaps"]) == 3


def test_a_choice_is_made_once_and_cut_to_each_fraction(monkeypatch, tmp_path):
    asked = []

    def choose(trial, work, data, folder):
        asked.append(trial.arm)
        return {"places": list(range(50)), "choosing": 7.0}

    monkeypatch.setattr(where_it_pays, "choose", choose)
    data = DrawnData([{}] * 100, [], [])
    for fraction in (0.1, 0.3):
        trial = where_it_pays.Trial("skewed", fraction, "equal epochs", 300, "se", 0)
        chosen = where_it_pays.subset(trial, None, data, tmp_path)
        assert chosen == {"places": list(range(round(100 * fraction))), "choosing": 7.0}
    assert asked == ["se"]
    where_it_pays.subset(trial._replace(seed=301), None, data, tmp_path)
    assert asked == ["se", "se"]  # of another data set


def test_each_step_can_be_replaced_by_what_the_oracle_knows():
    data = DrawnData([{"family": family, "key": key} for family, key in ("a1", "a2", "b1")], [], [])
    found = {arm: where_it_pays.similarity_of_arm(arm, FakeComparison(), data)("data", "data")
             for arm in where_it_pays.REPLACED}
    assert found["even rows"].tolist() == [[0.5, 1, 1.5], [0.5, 1, 1.5], [1, 2, 3]]
    assert found["known utility"].tolist() == [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]
    assert found["known utility, even rows"].tolist() == [[0.5, 0.25, 0], [0.25, 0.5, 0], [0, 0, 1]]
    assert where_it_pays.similarity_of_arm("delift", FakeComparison(), data)("data", "data").tolist() == [[1, 2, 3]] * 3


class FakeComparison:
    """Utilities that are easy to tell."""

    by_hidden_states = None

    def by_utility(self, rows: str, columns: str) -> np.ndarray:
        return np.array([[1.0, 2.0, 3.0]] * 3)


def test_the_map_has_six_primary_comparisons_on_data_sets_of_its_own():
    plan, small, pilot = (where_it_pays.plan(where_it_pays.MapOptions(**given))
                          for given in ({}, {"small": True}, {"pilot": True}))
    first = [series for series in plan if series.primary]
    assert [(series.condition, series.seeds) for series in first] == [(name, range(8)) for name in conditions.PRIMARY]
    assert len({series.name for series in plan}) == len(plan)
    seeds = [{seed for series in some for seed in series.seeds} for some in (plan, small, pilot)]
    assert sum(map(len, seeds)) == len(set.union(*seeds))
    assert {arm for series in pilot for arm in series.arms} == {"random", "oracle"}


def test_a_folder_in_use_is_refused(in_process, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert_refused(in_process("ch_delift/lab/where_it_pays.py", "--out", tmp_path / "out"), "already holds something")
