"""The command: what it writes, the three stages, killed and resumed, several processes, and what it refuses."""

import json

import numpy as np
import pytest

from ch_delift import experiment, selection
from ch_delift.baselines import random_subset
from ch_delift.greedy import maximize
from ch_delift.lab import bench
from ch_delift.submodular import FacilityLocation
from ch_instruct.encoding import encode_record
from ch_pretrain import classroom
from common.embedding import cosine, mean_hidden_states
from common.pretrained import load_pretrained, save_pretrained
from common.tokenizer import Tokenizer
from tests.conftest import assert_refused, kill_and_resume, run_here
from tests.models import assert_same_weights, make_model, save_tiny

pytestmark = pytest.mark.slow

TRAINING, CHOSEN = 32, 9  # records, and floor(0.3 * 32) of them


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A tiny random model and three data files with splits; `known` and `target` are other questions."""
    folder = tmp_path_factory.mktemp("small")
    save_tiny(folder / "model")
    by_split = {split: [r for r in classroom.records() if r["split"] == split and not r["input"]]
                for split in ("train", "validation", "test")}
    for i, name in enumerate(("data", "target", "known")):
        sizes = {"train": TRAINING if name == "data" else 10, "validation": 4, "test": 6}
        records = [r for split, n in sizes.items() for r in by_split[split][i * TRAINING:i * TRAINING + n]]
        (folder / f"{name}.json").write_text(json.dumps(records))
    return folder


def options(small, *more: object) -> list:
    return ["--model", small / "model", "--data", small / "data.json", "--epochs", 2, "--batch-size", 8, "--device", "cpu",
            "--precision", "fp32", "--lr", "0.003", "--dropout", "0.1", "--format", "phi3", *more]


@pytest.fixture(scope="module")
def run(small):
    arms = ["random", "se", "gradient", "high-loss", "low-loss", "full"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "FRACTIONS", (0.1, 0.5))
        done = run_here("ch_delift/train.py", *options(small, "--out", "straight", "--pairs", "all", "--curve", "--compare",
                                                       *arms), folder=small)
    return small / "straight", done.stdout


def test_it_writes_the_whole_run_folder(run):
    folder, _ = run
    assert {p.name for p in folder.iterdir()} == {
        "README.md",
        "answers.html", "config.json", "curve", "curve.json", "equal-epochs", "fractions.png", "full", "gains.png", "gradient",
        "high-loss", "losses.png", "low-loss", "map.png", "merges.txt", "metrics.csv", "model.safetensors", "random",
        "report.json", "responses.json", "run.json", "se", "subset.json", "tokenizer_config.json", "training_state.pt",
        "utility", "utility.png", "vocab.json"}
    assert {p.name for p in (folder / "utility").iterdir()} == {"data-data.npy", "facts.json"}
    load_pretrained(folder)


def test_the_report_has_all_arms_at_equal_steps_and_at_equal_epochs(run):
    folder, told = run
    report = json.loads((folder / "report.json").read_text())
    subsets = ["random", "se", "gradient", "high-loss", "low-loss", "delift"]
    assert set(report["arms"]) == {"base", "full", *subsets, *(f"{arm}, equal epochs" for arm in subsets)}
    assert report["chosen"] == CHOSEN and report["of"] == TRAINING
    for name, arm in report["arms"].items():
        assert 0 <= arm["exact_match"] <= 1 and any(line.startswith(name) for line in told.splitlines())
        assert name == "base" or arm["test_loss"] < report["arms"]["base"]["test_loss"]


def steps(folder) -> int:
    return int((folder / "metrics.csv").read_text().splitlines()[-1].split(",")[0])


def test_equal_steps_are_equal_and_equal_epochs_take_fewer(run):
    folder, _ = run
    assert steps(folder) == steps(folder / "random") == steps(folder / "full") == 2 * 4
    assert steps(folder / "equal-epochs" / "delift") == steps(folder / "equal-epochs" / "se") == 2 * 2


def test_the_subset_names_training_records_in_the_order_of_choice(run, small):
    folder, _ = run
    subset = json.loads((folder / "subset.json").read_text())
    records = json.loads((small / "data.json").read_text())
    assert len(subset["ids"]) == len(set(subset["ids"])) == CHOSEN
    assert all(records[i]["split"] == "train" for i in subset["ids"])
    assert subset["gains"] == sorted(subset["gains"], reverse=True)
    s = np.maximum(np.load(folder / "utility" / "data-data.npy"), 0)
    assert subset["ids"][0] == s.sum(axis=0).argmax()  # the first choice helps most in all
    assert sum(subset["gains"]) == pytest.approx(s[:, subset["ids"]].max(axis=1).sum(), rel=1e-5)


def test_the_curve_has_every_fraction(run):
    folder, _ = run
    curve = json.loads((folder / "curve.json").read_text())
    assert curve["measure"] == "exact_match" and set(curve["scores"]) == {"0.1", "0.5", "1.0"}
    assert all(len(curve["scores"][f]["random"]) == 3 for f in ("0.1", "0.5"))


def test_other_chapters_train_on_the_subset(run, small, in_process, tmp_path):
    folder, _ = run
    told = in_process("ch_sftmix/train.py", *options(small, "--epochs", 1, "--out", tmp_path / "mix", "--subset",
                                                     folder / "subset.json")).stdout
    assert f"{CHOSEN} of {TRAINING} training records" in told
    rows = (tmp_path / "mix" / "dynamics.csv").read_text().splitlines()
    assert len(rows) == 1 + CHOSEN
    other = in_process("ch_instruct/train.py", "--data", small / "known.json", "--subset", folder / "subset.json")
    assert_refused(other, "was chosen from other data")


def test_utilities_of_an_earlier_run_are_taken_or_refused(run, small, in_process, tmp_path):
    folder, _ = run
    again = in_process("ch_delift/train.py", *options(small, "--out", tmp_path / "again", "--pairs", "all", "--compare",
                                                      "--utility", folder))
    assert again.returncode == 0 and "Utility of" not in again.stdout
    assert json.loads((tmp_path / "again" / "subset.json").read_text())["ids"] == json.loads(
        (folder / "subset.json").read_text())["ids"]
    save_tiny(tmp_path / "other", n_layer=1)
    for more, words in ((["--pairs", "neighbours:20"], "was measured with pairs all, and this run has neighbours:20"),
                        (["--pairs", "all", "--format", "alpaca"], "was measured with format phi3"),
                        (["--pairs", "all", "--model", tmp_path / "other"], "was measured with model_sha256"),
                        (["--pairs", "all", "--data", small / "known.json"], "was measured with data_sha256")):
        assert_refused(in_process("ch_delift/train.py", *options(small, "--utility", folder, "--out", tmp_path / "no", *more)),
                       words)
        assert not (tmp_path / "no").exists()


def test_what_is_measured_is_what_is_trained_on(small, in_process, tmp_path):
    """Cut examples are measured as cut; and a matrix of other cuts is refused."""
    records = json.loads((small / "data.json").read_text())
    long = [record | {"output": "long " * 400} if i == 3 else record for i, record in enumerate(records)]
    (tmp_path / "long.json").write_text(json.dumps(long))
    given = options(small, "--data", tmp_path / "long.json", "--epochs", 1, "--compare", "--pairs", "all")
    in_process("ch_delift/train.py", *given, "--over-length", "truncate", "--out", tmp_path / "cut")
    assert len(json.loads((tmp_path / "cut" / "subset.json").read_text())["ids"]) == CHOSEN
    assert np.load(tmp_path / "cut" / "utility" / "data-data.npy").shape == (TRAINING, TRAINING)
    other = in_process("ch_delift/train.py", *given, "--over-length", "truncate", "--max-length", 200, "--utility",
                       tmp_path / "cut", "--out", tmp_path / "no")
    assert_refused(other, "was measured with data_sha256")
    assert not (tmp_path / "no").exists()


def test_a_kernel_model_that_reads_other_tokens_is_refused(small, in_process, tmp_path):
    save_tiny(tmp_path / "narrow", n_positions=30)
    save_pretrained(make_model(n_positions=256), Tokenizer.from_merges([]), tmp_path / "other")
    for name in ("narrow", "other"):
        given = options(small, "--kernel-model", tmp_path / name, "--out", tmp_path / "no")
        assert_refused(in_process("ch_delift/train.py", *given), "must have the same vocabulary")
        assert not (tmp_path / "no").exists()


def test_a_curve_of_less_than_a_record_is_refused_before_anything_is_trained(small, in_process, tmp_path):
    records = json.loads((small / "data.json").read_text())[:4]
    few = [record | {"split": "train" if i else "test"} for i, record in enumerate(records)]
    (tmp_path / "few.json").write_text(json.dumps(few))
    assert_refused(in_process("ch_delift/train.py", "--data", tmp_path / "few.json", "--model", small / "model", "--curve",
                              "--fraction", 0.5, "--out", tmp_path / "no"), "--curve trains on 10% of the data too")
    assert not (tmp_path / "no").exists()


def test_the_task_stage_chooses_by_the_target_and_is_tested_on_it(small, in_process, tmp_path, monkeypatch):
    counted: list[int] = []
    monkeypatch.setattr(selection, "check_pairs", counted.append)
    told = in_process("ch_delift/train.py", *options(small, "--stage", "task", "--target", small / "target.json", "--out",
                                                     tmp_path / "task", "--compare", "random", "--pairs", "all")).stdout
    folder = tmp_path / "task"
    assert counted == [TRAINING * 10]  # only the pairs that this stage needs have to fit into memory
    assert f"Utility of {TRAINING} candidates for 10 targets" in told
    responses = json.loads((folder / "responses.json").read_text())
    tested = {r["instruction"] for r in json.loads((small / "target.json").read_text()) if r["split"] == "test"}
    assert {r["instruction"] for r in responses} == tested
    assert set(json.loads((folder / "report.json").read_text())["arms"]) == {
        "base", "random", "delift", "random, equal epochs", "delift, equal epochs"}


def test_the_continual_stage_measures_what_is_forgotten(small, in_process, tmp_path):
    in_process("ch_delift/train.py", *options(small, "--stage", "continual", "--known", small / "known.json", "--out",
                                              tmp_path / "more", "--compare", "--pairs", "neighbours:9"))
    report = json.loads((tmp_path / "more" / "report.json").read_text())
    assert set(report["arms"]) == {f"{arm}{test}" for arm in ("base", "delift", "delift, equal epochs")
                                   for test in ("", " on known")}
    assert report["arms"]["base"]["test_loss"] != report["arms"]["base on known"]["test_loss"]
    assert {p.name for p in (tmp_path / "more" / "utility").glob("*.npy")} == {"data-data.npy", "data-known.npy"}
    assert np.load(tmp_path / "more" / "utility" / "data-data.npy").shape == (TRAINING, 9)


def test_hidden_states_are_a_method_of_their_own(small, in_process, tmp_path):
    """No utilities are measured, and the choice is that of facility location on cosines, each row divided by its likes."""
    folder = tmp_path / "hidden"
    told = in_process("ch_delift/train.py", *options(
        small, "--similarity", "hidden", "--rows", "even", "--pairs", "all", "--epochs", 1, "--compare", "random", "se",
        "--out", folder)).stdout
    assert "Utility of" not in told and not (folder / "utility").exists() and not (folder / "utility.png").exists()
    assert set(json.loads((folder / "report.json").read_text())["arms"]) == {
        "base", "random", "se", "random, equal epochs", "se, equal epochs"}
    model, tokenizer = load_pretrained(small / "model")
    records = [r for r in json.loads((small / "data.json").read_text()) if r["split"] == "train"]
    vectors = mean_hidden_states(model, [encode_record(record, tokenizer, "phi3").ids for record in records])
    s = np.maximum(cosine(vectors, vectors), 0)
    places, _ = maximize(FacilityLocation(s / (s >= s.max(axis=1, keepdims=True) / 2).sum(axis=1, keepdims=True)), CHOSEN)
    assert json.loads((folder / "subset.json").read_text())["ids"] == places


def test_several_seeds_give_means_and_differences(small, in_process, tmp_path):
    told = in_process("ch_delift/train.py", *options(small, "--epochs", 1, "--out", tmp_path / "many", "--seeds", 2,
                                                     "--compare", "random", "--pairs", "neighbours:20")).stdout
    report = json.loads((tmp_path / "many" / "report.json").read_text())
    each = [json.loads((tmp_path / "many" / f"seed-{seed}" / "report.json").read_text())["arms"] for seed in (0, 1)]
    assert report["arms"]["delift"]["test_loss"] == pytest.approx(np.mean([arms["delift"]["test_loss"] for arms in each]))
    assert "delift - random" in told and "delift, equal epochs - random, equal epochs" in told
    assert random_subset(TRAINING, CHOSEN, 0) != random_subset(TRAINING, CHOSEN, 1)


def test_killed_and_resumed_equals_never_interrupted(run, small, tmp_path):
    straight, _ = run
    kill_and_resume("ch_delift/train.py", *options(small, "--compare", "random", "--pairs", "all"), folder=tmp_path / "broken",
                    when=["utility/data-data.npy.partial", "random/training_state.pt"])
    for part in ("", "random", "equal-epochs/delift"):
        assert_same_weights(straight / part, tmp_path / "broken" / part)
    one, two = (json.loads((folder / "subset.json").read_text()) for folder in (straight, tmp_path / "broken"))
    assert (one["ids"], one["gains"]) == (two["ids"], two["gains"])


def test_few_shot_puts_chosen_examples_into_the_prompt(run, small, in_process, tmp_path):
    folder, _ = run
    arguments = ["--model", small / "model", "--data", small / "data.json", "--subset", folder / "subset.json",
                 "--format", "phi3", "--shots", 2, "--max-new-tokens", 8, "--out", tmp_path / "answers.json"]
    told = in_process("ch_delift/lab/few_shot.py", *arguments).stdout
    responses = json.loads((tmp_path / "answers.json").read_text())
    assert list(responses) == ["no examples", "chosen", "random"]
    assert all(len(answers) == 6 for answers in responses.values())
    assert f"chosen: {CHOSEN} examples" in told and "in a prompt (mean" in told
    assert_refused(in_process("ch_delift/lab/few_shot.py", *arguments), "already exists")
    subset = json.loads((folder / "subset.json").read_text())  # a subset of fewer records than are wanted in a prompt
    (tmp_path / "one.json").write_text(json.dumps(subset | {"ids": subset["ids"][:1], "gains": subset["gains"][:1]}))
    arguments[5], arguments[-1] = tmp_path / "one.json", tmp_path / "b.json"
    assert "chosen: 1 examples, 1 to 1 in a prompt" in in_process("ch_delift/lab/few_shot.py", *arguments).stdout


def test_the_bench_runs(monkeypatch, capsys):
    pytest.importorskip("submodlib", reason="submodlib-py is not installed (requirements-dev.txt)")
    monkeypatch.setattr(bench, "peak_megabytes", lambda work, *args: work(*args) or 1.0)  # for want of time, not measured
    monkeypatch.setattr(bench, "NEIGHBOURS", (2, 8))
    monkeypatch.setattr(bench, "DENSE", 8)
    monkeypatch.setattr(bench, "PRECISIONS", ["fp32", "bf16"])
    monkeypatch.setattr("sys.argv", ["bench.py", "--smoke", "--targets", "4", "--candidates", "1", "--rounds", "1"])
    bench.main()
    told = capsys.readouterr().out
    lines = told.splitlines()
    for start in ("concatenated fp32", "ours bf16", "ours, 200 candidates, 60 chosen", "neighbours:8", "none"):
        assert any(line.startswith(start) for line in lines), told
    fp32 = next(line for line in lines if line.startswith("ours fp32")).split()
    assert float(fp32[-2]) < 1e-5  # the largest difference of two utilities
    values = [line.split()[-2] for line in lines if "200 candidates, 60 chosen" in line]
    assert float(values[0]) == pytest.approx(float(values[1]), rel=1e-5)
