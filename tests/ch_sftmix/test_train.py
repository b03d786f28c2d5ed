import csv
import json

import pytest
import torch

from ch_instruct.pipeline import FineTuning, prepare
from ch_pretrain import classroom
from common.pretrained import load_pretrained
from tests.conftest import assert_refused, kill_and_resume, run_here
from tests.models import assert_same_weights, save_tiny

pytestmark = pytest.mark.slow

CHECKPOINT = ["config.json", "merges.txt", "metrics.csv", "model.safetensors", "tokenizer_config.json", "training_state.pt",
              "vocab.json"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A tiny random model and a small data file."""
    folder = tmp_path_factory.mktemp("small")
    save_tiny(folder / "model")
    records = [{key: r[key] for key in ("instruction", "output", "family")} for r in classroom.records() if not r["input"]]
    (folder / "data.json").write_text(json.dumps([{"instruction": "left out", "output": "", "family": "x"}, *records[:60]]))
    return folder


def options(small, *more: object) -> list:
    return ["--model", small / "model", "--data", small / "data.json", "--epochs", 3, "--batch-size", 8, "--device", "cpu",
            "--precision", "fp32", "--lr", "0.003", "--dropout", "0.05", *more]


@pytest.fixture(scope="module")
def run(small):
    done = run_here("ch_sftmix/train.py", *options(small, "--out", "straight"), folder=small)
    return small / "straight", done.stdout


def test_it_writes_the_whole_run_folder(run):
    folder, _ = run
    assert sorted(p.name for p in folder.iterdir()) == sorted([
        *CHECKPOINT, "README.md", "answers.html", "confidence.png", "data_map.png", "dynamics.csv", "losses.png", "ntp",
        "report.json", "responses.json", "run.json"])
    assert sorted(p.name for p in (folder / "ntp").iterdir()) == sorted(
        [*CHECKPOINT, *(f"perplexities-{c}.json" for c in (1, 2, 3))])


def test_the_table_has_three_arms(run):
    folder, told = run
    arms = json.loads((folder / "report.json").read_text())["arms"]
    assert list(arms) == ["base", "ntp", "sftmix"]
    assert arms["ntp"]["test_loss"] < arms["base"]["test_loss"] > arms["sftmix"]["test_loss"]
    assert arms["ntp"]["test_loss"] != arms["sftmix"]["test_loss"]
    for arm in arms:
        assert any(line.startswith(arm) for line in told.splitlines())


def test_the_dynamics_say_which_half_each_example_is_in(small, run):
    folder, _ = run
    rows = list(csv.DictReader(open(folder / "dynamics.csv")))
    facts = json.loads((folder / "run.json").read_text())["facts"]
    assert len(rows) == facts["records"]["train"]
    records = json.loads((small / "data.json").read_text())  # a row is a place in the file, counted from 1
    assert all(records[int(row["row"]) - 1] | {"input": ""} == {key: row[key] for key in ("instruction", "input", "output")} | {
        "family": records[int(row["row"]) - 1]["family"]} for row in rows)
    sure = [float(row["confidence"]) for row in rows if row["half"] == "confident"]
    unsure = [float(row["confidence"]) for row in rows if row["half"] == "unconfident"]
    assert min(sure) >= max(unsure) and len(sure) - len(unsure) in (0, 1)
    for row in rows:
        mean = sum(float(row[f"perplexity_{c}"]) for c in (1, 2, 3)) / 3
        assert float(row["confidence"]) == pytest.approx(-mean)


def test_both_checkpoints_load_and_differ(run):
    folder, _ = run
    mixed, plain = load_pretrained(folder)[0], load_pretrained(folder / "ntp")[0]
    assert not torch.equal(mixed.wte.weight, plain.wte.weight)


def test_killed_in_either_run_and_resumed_equals_never_interrupted(run, small, tmp_path):
    straight, _ = run
    kill_and_resume("ch_sftmix/train.py", *options(small), folder=tmp_path / "broken",
                    when=["ntp/perplexities-2.json", "training_state.pt"])
    for part in ("", "ntp"):
        assert_same_weights(straight / part, tmp_path / "broken" / part)
    assert (tmp_path / "broken" / "dynamics.csv").read_text() == (straight / "dynamics.csv").read_text()


def test_several_seeds_give_means_and_intervals(small, in_process, tmp_path):
    told = in_process("ch_sftmix/train.py", *options(small, "--epochs", 1, "--out", tmp_path / "many", "--seeds", 2, "--split",
                                                     "random", "--checkpoints", 1)).stdout
    report = json.loads((tmp_path / "many" / "report.json").read_text())
    each = [json.loads((tmp_path / "many" / f"seed-{seed}" / "report.json").read_text())["arms"] for seed in (0, 1)]
    losses = [arms["sftmix"]["test_loss"] for arms in each]
    assert losses[0] != losses[1]
    assert report["arms"]["sftmix"]["test_loss"] == pytest.approx(sum(losses) / 2)
    assert report["summary"]["sftmix"]["test_loss"]["half_interval"] == pytest.approx(12.7062 * abs(losses[0] - losses[1]) / 2)
    assert "sftmix - ntp" in told


def test_leaving_out_the_least_sure_lists_them_by_row_and_makes_a_subset_of_the_others(small, in_process, tmp_path):
    done = in_process("ch_sftmix/train.py", *options(small, "--epochs", 1, "--leave-out", 0.1, "--out", tmp_path / "run"))
    assert done.returncode == 0 and "5 of 51 records are left out" in done.stdout
    run = tmp_path / "run"
    assert list(json.loads((run / "report.json").read_text())["arms"]) == ["base", "ntp", "sftmix", "left out"]
    everything, left = (list(csv.DictReader(open(run / name))) for name in ("dynamics.csv", "left_out.csv"))
    least = sorted(everything, key=lambda row: float(row["relative_confidence"]))[:5]
    assert [row["row"] for row in left] == [row["row"] for row in least]
    records = json.loads((small / "data.json").read_text())
    assert [records[int(row["row"]) - 1]["instruction"] for row in left] == [row["instruction"] for row in left]

    subset = json.loads((run / "subset.json").read_text())
    # The file's first row has no answer and is no record, so record 0 is row 2.
    assert {i + 2 for i in subset["ids"]} == {int(row["row"]) for row in everything} - {int(row["row"]) for row in left}
    assert subset["made"] == "all training records but the 5 of 51 of which the reference run was least sure, " \
        "compared with similar records"
    assert subset["command"].startswith("python ") and "--leave-out 0.1" in subset["command"]
    assert subset["seed"] == 0 and subset["options"]["leave_out"] == 0.1  # --seed divides the data
    work = prepare(FineTuning(model=str(small / "model"), data=str(small / "data.json"), subset=run / "subset.json",
                              device="cpu"))
    assert sorted(work.train_ids) == sorted(subset["ids"])


@pytest.mark.parametrize("share", [0.001, 1.0])
def test_a_share_that_leaves_out_nothing_or_all_is_refused(share, small, in_process):
    assert_refused(in_process("ch_sftmix/train.py", *options(small, "--leave-out", share)), f"--leave-out {share} of 51")
