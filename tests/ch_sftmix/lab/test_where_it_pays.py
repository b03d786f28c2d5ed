import json
from collections import Counter
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ch_pretrain import classroom
from ch_sftmix.lab import where_it_pays
from ch_sftmix.lab.arms import ARMS
from ch_sftmix.lab.tables import ENTRY, NOISE, OTHERS, PRIMARY, SECONDARY, SEEDS
from ch_sftmix.lab.where_it_pays import ARM_NAMES, MAP_ARMS, MapOptions, draw_data, run_cell
from common.support.files import InputError, Journal
from tests.conftest import assert_refused
from tests.models import save_tiny


def test_a_data_set_depends_on_its_seed_and_holds_as_many_wrong_answers_as_asked_for():
    one, other = draw_data(100, 0.4, 500), draw_data(101, 0.4, 500)
    training = [r for r in one if r["split"] == "train"]
    assert training == one[:500] and sum("wrong" in r for r in training) / 500 == pytest.approx(0.4, abs=0.05)
    assert not any("wrong" in r for r in one[500:])
    questions = [{(r["instruction"], r["input"]) for r in records if r["split"] == "test"} for records in (one, other)]
    assert len(questions[0] & questions[1]) < 0.5 * len(questions[0])


def test_the_options_name_every_arm():
    assert set(ARM_NAMES) == set(ARMS) and len(ARM_NAMES) == len(ARMS)


def test_more_records_than_there_are_are_refused():
    with pytest.raises(InputError, match="--records 5000: a data set of the classroom has"):
        draw_data(100, 0.0, 5000)


def test_the_map_has_the_arms_that_were_fixed_and_fresh_data_sets():
    given = MapOptions()
    assert given.seeds == SEEDS == tuple(range(8, 16)) and given.noise == NOISE and given.arms == MAP_ARMS
    assert {arm for pair in PRIMARY + SECONDARY for arm in pair} <= {"ntp", *MAP_ARMS} and len(PRIMARY) * len(NOISE) == 6
    assert {arm for pair in OTHERS for arm in pair} <= {"ntp", *ARM_NAMES}
    assert where_it_pays.as_fixed(given) and not where_it_pays.as_fixed(MapOptions(seeds=(8, 9)))
    assert where_it_pays.as_fixed(MapOptions(arms=("sftmix",)))  # fewer arms are no other conditions


def test_what_is_done_is_not_repeated(tmp_path, monkeypatch):
    """The reference run is done, one arm fails; the second attempt runs what is missing, and the third nothing."""
    trained: list[str] = []

    def arm(name: str, fails: list[bool]):
        def train(cell):
            trained.append(name)
            assert not fails.pop()
            return cell.perplexities.tolist()
        return train

    def reference(work, folder, seed):
        trained.append("ntp")
        return None, torch.full((1, 4), 1.5, dtype=torch.float64)

    work = SimpleNamespace(records={"train": [{}] * 4})
    arms = {"sftmix": arm("sftmix", [False, False]), "oracle": arm("oracle", [False, True])}
    monkeypatch.setattr(where_it_pays, "ARMS", arms)
    monkeypatch.setattr(where_it_pays, "LEFT_OUT", {})
    monkeypatch.setattr(where_it_pays, "reference_run", reference)
    monkeypatch.setattr(where_it_pays, "draw_data", lambda seed, noise, count: [])
    monkeypatch.setattr(where_it_pays, "measure", lambda cell, run: {"seen": run})
    monkeypatch.setattr(where_it_pays.pipeline, "prepare", lambda options: work)
    given = MapOptions(records=4)

    def cell(noise: float = 0.2) -> dict[str, dict]:  # each time as a new start of the command would
        journal = Journal(tmp_path / "trials.jsonl", ENTRY, "no trial of the map")
        run_cell(given, ("sftmix", "oracle"), tmp_path, journal, 5, noise, "fp32")
        return {entry["arm"]: entry for entry in journal.entries if entry["noise"] == noise}

    with pytest.raises(AssertionError):
        cell()
    assert trained == ["ntp", "sftmix", "oracle"]
    found = cell()
    assert trained == ["ntp", "sftmix", "oracle", "oracle"] and found["oracle"]["seen"] == [[1.5] * 4]
    assert cell() == found and len(trained) == 4
    assert list(cell(0.0)) == ["ntp", "sftmix"]  # no oracle there


@pytest.mark.slow
def test_what_is_given_twice_and_small_with_other_sizes_are_refused(in_process):
    run = "ch_sftmix/lab/where_it_pays.py"
    assert_refused(in_process(run, "--seeds", 3, 3), "--seeds 3 3: give 2 or more, and each only once")
    assert_refused(in_process(run, "--noise", 0.2, 0.2), "--noise 0.2 0.2: give 1 or more, and each only once")
    assert_refused(in_process(run, "--small", "--records", 40), "--small chooses --records, --seeds, --arms itself")
    assert_refused(in_process(run, "--records", 5000), "--records 5000")
    assert_refused(in_process(run, "--records", 1760, "--seeds", 1, 0), "1756 for training")  # that of the second seed
    assert not any(Path.cwd().iterdir())


ARMS_HERE = ["sftmix", "relative tenth left out", "mu = 0", "oracle"]


@pytest.mark.slow
def test_the_command_writes_and_tells_the_map_and_goes_on_with_it(in_process, tmp_path, monkeypatch):
    everything, few = cache(classroom.records), {"train": 12, "validation": 2, "test": 3}
    monkeypatch.setattr(classroom, "records", lambda seed, noise: [
        r for split, n in few.items() for r in [r for r in everything(seed, noise) if r["split"] == split][:n]])
    save_tiny(tmp_path / "model")
    out = tmp_path / "out"
    options = ["--model", tmp_path / "model", "--records", 12, "--epochs", 1, "--noise", 0.0, 0.4, "--seeds", 100, 101,
               "--precision", "fp32", "--arms", *ARMS_HERE, "--out", out]
    text = in_process("ch_sftmix/lab/where_it_pays.py", *options).stdout
    for words in ("Not the conditions of the map", "Expected calibration error", "Gap in the unconfident half",
                  "sftmix - mu = 0", "Wrong answers among"):
        assert words in text
    found = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    counts = Counter((entry["noise"], entry["arm"]) for entry in found)
    assert counts == {(noise, arm): 2 for noise in (0.0, 0.4) for arm in ("ntp", *ARMS_HERE) if noise or arm != "oracle"}
    assert [entry["arm"] for entry in found[:3]] == ["ntp", "sftmix", "relative tenth left out"] and found[3]["arm"] == "ntp"
    assert sorted(path.name for path in out.glob("*.png")) == ["reliability-0.4.png", "reliability-0.png"]
    one = next(entry for entry in found if entry["arm"] == "sftmix")
    assert sum(row[0] for row in one["bins"]) > 3 and len(one["training_loss"]) == 2 and one["steps"] == 1
    page = (out / "RESULTS.md").read_text()
    assert page.strip() in text

    before = (out / "trials.jsonl").read_bytes()
    in_process("ch_sftmix/lab/where_it_pays.py", *options, "--resume")
    assert (out / "RESULTS.md").read_text() == page and (out / "trials.jsonl").read_bytes() == before
    assert_refused(in_process("ch_sftmix/lab/where_it_pays.py", *options, "--resume", "--epochs", 2), "--epochs 1, not 2")
