import json
from types import SimpleNamespace

import pytest
import torch

from ch_pretrain import classroom
from ch_sftmix.lab import where_it_pays
from ch_sftmix.lab.arms import ARMS
from ch_sftmix.lab.where_it_pays import ARM_NAMES, PRIMARY, MapOptions, differences, draw_data, primary_comparisons, run_cell
from common.support.files import InputError, Journal
from tests.conftest import assert_refused, save_tiny


def test_a_data_set_depends_on_its_seed_and_holds_as_many_wrong_answers_as_asked_for():
    one, other = draw_data(100, 0.4, 500), draw_data(101, 0.4, 500)
    training = [r for r in one if r["split"] == "train"]
    assert training == one[:500] and sum("wrong" in r for r in training) / 500 == pytest.approx(0.4, abs=0.05)
    assert not any("wrong" in r for r in one[500:])
    questions = [{(r["instruction"], r["input"]) for r in records if r["split"] == "test"} for records in (one, other)]
    assert len(questions[0] & questions[1]) < 0.5 * len(questions[0])


def test_the_options_name_every_arm():
    assert list(ARM_NAMES) == list(ARMS)


def test_more_records_than_there_are_are_refused():
    with pytest.raises(InputError, match="--records 5000: a data set of the classroom has"):
        draw_data(100, 0.0, 5000)


def results(**values: list[float]) -> where_it_pays.Results:
    """Made-up results at one noise, only exact match."""
    return {0.2: {arm.replace("_", " "): [{"exact_match": value} for value in found] for arm, found in values.items()}}


def test_differences_are_taken_within_each_data_set():
    found = differences(results(ntp=[0.5, 0.1], sftmix=[0.6, 0.4]), "sftmix", "ntp", lambda one: one["exact_match"])
    assert found == {0.2: pytest.approx([0.1, 0.3])}
    assert differences(results(ntp=[0.5]), "sftmix", "ntp", len) == {}


def test_primary_comparisons_are_corrected_for_their_number():
    """Differences .1, .2, .3: mean .2, t = 2 √3 with 2 degrees of freedom, p = .0742, doubled by Holm. The other p is 1."""
    rows = primary_comparisons(results(ntp=[0.5, 0.5, 0.5], sftmix=[0.6, 0.7, 0.8], tenth_left_out=[0.4, 0.5, 0.6]))
    first, second = rows
    assert (first["name"], second["name"]) == ("sftmix - ntp, noise 0.2", "tenth left out - ntp, noise 0.2")
    assert first["interval"] == (pytest.approx(0.2), pytest.approx(4.30265 * 0.1 / 3 ** 0.5, rel=1e-4))
    assert (first["p"], first["p_holm"]) == (pytest.approx(0.0742, abs=1e-4), pytest.approx(0.1484, abs=2e-4))
    assert second["p"] == second["p_holm"] == pytest.approx(1)


def test_the_primary_comparisons_are_six():
    assert len(PRIMARY) * len(MapOptions().noise) == 6 and MapOptions().seeds == tuple(range(8))
    assert all(arm in ("ntp", *ARMS) for pair in (*PRIMARY, *where_it_pays.DESCRIPTIVE) for arm in pair)


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
        return None, torch.ones(1, 4, dtype=torch.float64)

    work = SimpleNamespace(records={"train": [{}] * 4})
    arms = {"sftmix": arm("sftmix", [False, False]), "oracle": arm("oracle", [False, True])}
    monkeypatch.setattr(where_it_pays, "ARMS", arms)
    monkeypatch.setattr(where_it_pays, "reference_run", reference)
    monkeypatch.setattr(where_it_pays, "draw_data", lambda seed, noise, count: [])
    monkeypatch.setattr(where_it_pays, "measure", lambda cell, run: {"seen": run})
    monkeypatch.setattr(where_it_pays.pipeline, "prepare", lambda options: work)
    given = MapOptions(arms=("sftmix", "oracle"), records=4)

    def cell(noise: float = 0.2) -> dict[str, dict]:  # each time as a new start of the command would
        journal = Journal(tmp_path / "trials.jsonl", where_it_pays.ENTRY, "no trial of the map")
        return run_cell(given, tmp_path, journal, 5, noise, "fp32")

    with pytest.raises(AssertionError):
        cell()
    assert trained == ["ntp", "sftmix", "oracle"]
    found = cell()
    assert trained == ["ntp", "sftmix", "oracle", "oracle"] and found["oracle"]["seen"] == [[1.0] * 4]
    assert cell() == found and len(trained) == 4
    assert list(cell(0.0)) == ["ntp", "sftmix"]  # no oracle there


def test_what_is_given_twice_and_small_with_other_sizes_are_refused(in_process):
    run = "ch_sftmix/lab/where_it_pays.py"
    assert_refused(in_process(run, "--seeds", 3, 3), "--seeds 3 3: give 2 or more, and each only once")
    assert_refused(in_process(run, "--noise", 0.2, 0.2), "--noise 0.2 0.2: give 1 or more, and each only once")
    assert_refused(in_process(run, "--small", "--records", 40), "--small chooses --records, --seeds, --arms itself")
    assert_refused(in_process(run, "--records", 5000), "--records 5000")


ARMS_HERE = ["sftmix", "tenth left out", "oracle", "confident half", "mixup in confident half", "dropout"]


@pytest.mark.slow
def test_the_command_writes_and_tells_the_map_and_goes_on_with_it(in_process, tmp_path, monkeypatch):
    everything, few = classroom.records, {"train": 12, "validation": 2, "test": 3}
    monkeypatch.setattr(classroom, "records", lambda seed, noise: [
        r for split, n in few.items() for r in [r for r in everything(seed, noise) if r["split"] == split][:n]])
    save_tiny(tmp_path / "model")
    out = tmp_path / "out"
    options = ["--model", tmp_path / "model", "--records", 12, "--epochs", 1, "--noise", 0.0, 0.4, "--seeds", 100, 101,
               "--precision", "fp32", "--arms", *ARMS_HERE, "--out", out]
    text = in_process("ch_sftmix/lab/where_it_pays.py", *options).stdout
    for words in ("other than the primary conditions", "p after Holm", "Expected calibration error",
                  "Gap in the unconfident half", "mixup in confident half - confident half", "Wrong answers among"):
        assert words in text
    found = json.loads((out / "map.json").read_text())
    assert len(found["primary"]) == 4 and [*found["results"]["0.4"]] == ["ntp", *ARMS_HERE]
    assert sorted(path.name for path in out.glob("*.png")) == ["reliability-0.4.png", "reliability-0.png"]
    one = found["results"]["0.4"]["sftmix"][0]
    assert sum(row[0] for row in one["bins"]) > 3 and len(one["training_loss"]) == 2 and one["steps"] == 1

    before = (out / "trials.jsonl").read_bytes()
    again = in_process("ch_sftmix/lab/where_it_pays.py", *options, "--resume").stdout
    assert again.splitlines()[-30:] == text.splitlines()[-30:]
    assert (out / "trials.jsonl").read_bytes() == before
    assert_refused(in_process("ch_sftmix/lab/where_it_pays.py", *options, "--resume", "--epochs", 2), "--epochs 1, not 2")
