import json
from functools import cache
from types import SimpleNamespace

import pytest

from ch_delift.lab import conditions, where_it_pays
from ch_delift.lab.conditions import DrawnData, draw_data, oracle
from ch_delift.lab.plan import Series, Trial
from ch_pretrain import classroom
from common.support.files import read_json
from tests.conftest import assert_refused
from tests.models import save_tiny

SERIES = Series("target", ("random", "oracle"), range(300, 302), steps=3)
FOUND = {"macro": 0.5, "pool": 0.5, "small": None, "seconds": 0.0, "different": 1, "kinds": 1, "wrong": 0.0, "small_share": 0.0}


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Runs the command with a small plan and these options."""
    def run(*options: str, plan: list[list[Series]] | None = None, kind: str = "PILOT") -> None:
        monkeypatch.setattr(where_it_pays, kind, plan or [[SERIES]])
        flags = [] if kind == "MAP" else [f"--{kind.lower()}"]
        monkeypatch.setattr("sys.argv", ["where_it_pays.py", *flags, "--out", str(tmp_path / "out"), *options])
        where_it_pays.main()

    return run


@pytest.mark.slow
def test_what_is_done_is_not_repeated(start, monkeypatch, tmp_path, capsys):
    ran: list[Trial] = []
    interruptions: list[Trial] = []

    def run_trial(trial, work, data, folder):
        if len(ran) == 3 and not interruptions:
            interruptions.append(trial)
            raise KeyboardInterrupt
        assert data == draw_data("target", trial.seed) and len(work.examples["train"]) == len(data.training)
        ran.append(trial)
        return FOUND

    monkeypatch.setattr(where_it_pays, "run_trial", run_trial)
    with pytest.raises(KeyboardInterrupt):
        start()
    assert len(ran) == 3 and not (tmp_path / "out" / "RESULTS.md").exists()
    start("--resume")
    assert ran == list(where_it_pays.trials([SERIES]))  # every one, and each once
    start("--resume")
    assert len(ran) == len(set(ran)) == 4
    assert "50.0% ± 0.0%" in capsys.readouterr().out and (tmp_path / "out" / "RESULTS.md").exists()


@pytest.mark.slow
def test_data_sets_come_one_after_the_other_and_a_phase_is_told_before_the_next(start, monkeypatch):
    done: list[object] = []
    other = SERIES._replace(condition="skewed", arms=("SE",))
    later = other._replace(arms=("k-means",))
    monkeypatch.setattr(where_it_pays, "run_all", lambda todo, *_: done.append([(t.seed, t.arm) for t in todo]))
    monkeypatch.setattr(where_it_pays, "show", lambda folder, plan, entries: done.append(plan))
    plan = [[SERIES, other], [later]]
    start(plan=plan, kind="MAP")
    first, _, second, _ = done
    assert first == [(seed, arm) for seed in (300, 301) for arm in ("random", "oracle", "SE")]
    assert second == [(300, "k-means"), (301, "k-means")] and done[1] == done[3] == plan


@pytest.mark.slow
def test_the_small_map_has_fewer_records(start, monkeypatch):
    seen = []

    def run_trial(trial, work, data, folder):
        seen.append((data, len(work.examples["train"])))
        return FOUND

    monkeypatch.setattr(where_it_pays, "run_trial", run_trial)
    start(kind="SMALL")
    whole = draw_data("target", 300)
    assert seen[0] == (whole._replace(training=whole.training[:where_it_pays.SMALL_RECORDS]), where_it_pays.SMALL_RECORDS)


@pytest.mark.slow
def test_every_arm_trains_on_what_it_chose_and_is_tested(start, monkeypatch, tmp_path):
    everything = cache(classroom.records)
    monkeypatch.setattr(classroom, "records", lambda *seed, **dials: everything(*seed, **dials)[::4])
    monkeypatch.setattr(conditions, "PER_FAMILY", 3)
    monkeypatch.setattr(conditions, "TARGETS", (4, 3))
    monkeypatch.setitem(where_it_pays.CONDITIONS, "target", where_it_pays.CONDITIONS["target"]._replace(chosen=8))
    save_tiny(tmp_path / "model")
    arms = ("random", "oracle", "SE", "DELIFT", "RDS+", "LESS", "full")
    start("--model", str(tmp_path / "model"), plan=[[SERIES._replace(arms=arms, seeds=range(300, 301))]])
    entries = [json.loads(line) for line in (tmp_path / "out" / "trials.jsonl").read_text().splitlines()]
    assert [entry["arm"] for entry in entries] == [*arms]
    for entry in entries:
        assert len(set(entry["places"])) == (0 if entry["arm"] == "full" else 8) and 0 <= entry["macro"] == entry["pool"] <= 1
        assert entry["seconds"] >= 0
        assert entry["families"].keys() == draw_data("target", entry["seed"]).weights.keys()
    assert entries[1]["places"] == oracle(draw_data("target", 300), 8)
    assert read_json(tmp_path / "out" / "model" / "config.json")["n_layer"] == 2


def test_seconds_are_told_where_no_utilities_were_there_already(monkeypatch, tmp_path):
    monkeypatch.setattr(where_it_pays, "load_weights", lambda model, folder: None)
    for arm in ("DELIFT", "DELIFT-ρ", "SE"):
        monkeypatch.setitem(where_it_pays.ARMS, arm, lambda s: s.similarities.folder.mkdir(parents=True, exist_ok=True) or [0])
    work = SimpleNamespace(model=None, tokenizer=None, folder=None, precision="fp32", examples={"train": []})
    seconds = {arm: where_it_pays.choose(Trial("skewed", 300, arm, 1e-4, 5), work, DrawnData([], [], []), tmp_path)[1]
               for arm in ("DELIFT", "DELIFT-ρ", "SE")}
    assert {arm for arm, found in seconds.items() if found is None} == {"DELIFT-ρ"}


def test_a_folder_in_use_is_refused(in_process, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert_refused(in_process("ch_delift/lab/where_it_pays.py", "--out", tmp_path / "out"), "already holds something")
