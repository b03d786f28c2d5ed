import json

import pytest

from ch_delift import where_it_pays
from ch_delift.conditions import Series, data_set, oracle
from ch_delift.map_tables import CHOSEN
from common.files import read_json
from tests.conftest import assert_refused

SERIES = Series("target", 0.05, "equal epochs", ("random", "oracle"), range(300, 302), 2)


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Runs the command with a small plan and these options."""
    def run(*options: str, series: Series = SERIES) -> None:
        monkeypatch.setattr(where_it_pays, "plan", lambda given: [series])
        monkeypatch.setattr("sys.argv", ["where_it_pays.py", "--pilot", "--out", str(tmp_path / "out"), *options])
        where_it_pays.main()

    return run


def test_what_is_done_is_not_repeated(start, monkeypatch, tmp_path, capsys):
    ran: list[where_it_pays.Trial] = []
    interruptions: list[where_it_pays.Trial] = []

    def run_trial(trial, work, data, folder):
        if len(ran) == 3 and not interruptions:
            interruptions.append(trial)
            raise KeyboardInterrupt
        assert data == data_set("target", trial.seed) and len(work.examples["train"]) == len(data.training)
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
def test_a_trial_trains_on_what_its_arm_chose_and_is_tested(start, monkeypatch, tmp_path):
    monkeypatch.setattr(where_it_pays, "EPOCHS", 2)
    start(series=SERIES._replace(trainings=1))
    entries = [json.loads(line) for line in (tmp_path / "out" / "trials.jsonl").read_text().splitlines()]
    assert [(e["seed"], e["arm"]) for e in entries] == [(300, "random"), (300, "oracle"), (301, "random"), (301, "oracle")]
    for entry in entries:
        assert len(set(entry["places"])) == 18 and entry["steps"] == 6 and 0 <= entry["exact_match"] <= 1
    assert entries[1]["places"] == oracle(data_set("target", 300), 18) and entries[1]["large"] == 1


def test_a_folder_in_use_is_refused(in_process, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert_refused(in_process("ch_delift/where_it_pays.py", "--out", tmp_path / "out"), "already holds something")
