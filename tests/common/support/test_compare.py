"""Runs side by side, of made-up run folders."""

import json
from pathlib import Path

import pytest

from common.support import compare, plots
from common.support.checkpoints import history_csv, read_history
from common.support.console import short_names
from common.support.reports import arm_result
from tests.common.support.test_plots import history
from tests.conftest import assert_refused


def make_run(folder: Path, loss: float, **options: object) -> Path:
    folder.mkdir(parents=True)
    given = {"model": "classroom", "lr": None, "epochs": 3, "out": str(folder), "data": "d" * 60}
    facts = {"precision": "fp32", "learning_rate": 3e-4, "records": {"train": 90, "test": 10}}
    (folder / "run.json").write_text(json.dumps({"options": given | options, "facts": facts, "git_commit": "abc"}))
    arms = {"base": arm_result(3.0, None, None), "ntp": arm_result(loss, None, 12.0)}
    (folder / "report.json").write_text(json.dumps({"arms": arms}))
    (folder / "metrics.csv").write_text(history_csv([row | {"targets": 1, "lr": 1.0} for row in history([2.0, loss])]))
    return folder


@pytest.mark.slow
def test_what_differs_and_the_scores_are_told_and_the_curves_drawn(in_process, tmp_path):
    runs = [make_run(tmp_path / "a" / "001", 1.25), make_run(tmp_path / "b" / "001", 1.5, epochs=5, lora=8)]
    told = in_process("common/support/compare.py", *runs).stdout
    lines = told.splitlines()
    assert lines[0].split() == ["a/001", "b/001"]
    assert [line.split() for line in lines[2:4]] == [["epochs", "3", "5"], ["lora", "-", "8"]] and lines[4] == ""
    assert next(line for line in lines if line.startswith("b/001: ntp")).split()[2:4] == ["1.5000", "4.48"]
    assert Path("comparison.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_an_option_without_a_value_is_shown_as_one_that_is_not_there(in_process, tmp_path):
    runs = [make_run(tmp_path / "a", 1.25), make_run(tmp_path / "b", 1.25, lr=0.1, lora=None)]
    lines = in_process("common/support/compare.py", *runs).stdout.splitlines()
    assert [line.split() for line in lines[2:4]] == [["lr", "-", "0.1"], []]


@pytest.mark.slow
def test_a_folder_given_twice_is_one_and_every_curve_keeps_its_name(in_process, tmp_path, monkeypatch):
    curves: dict[str, list] = {}
    monkeypatch.setattr("common.support.plots.draw_losses", lambda ax, runs: curves.update(runs))
    one, two = (make_run(tmp_path / name, loss) for name, loss in (("a", 1.25), ("b", 1.5)))
    told = in_process("common/support/compare.py", one, one, two, "--out", tmp_path / "new" / "x.png").stdout
    assert [curves[name][-1]["validation_loss"] for name in ("a", "b")] == [
        read_history(folder / "metrics.csv")[-1]["validation_loss"] for folder in (one, two)]
    assert told.splitlines()[-1] == f"Loss curves of a, b: {tmp_path}/new/x.png" and (tmp_path / "new" / "x.png").exists()


@pytest.mark.slow
def test_equal_runs_are_told_so(in_process, tmp_path):
    runs = [make_run(tmp_path / name, 1.25) for name in "ab"]
    told = in_process("common/support/compare.py", *runs, "--out", "x.png").stdout
    assert told.startswith("The runs have the same options and facts.") and Path("x.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["report.json", "run.json"])
def test_what_is_no_finished_run_is_left_out_with_a_line(in_process, tmp_path, missing):
    (make_run(tmp_path / "a", 1.0) / missing).unlink()
    whole = make_run(tmp_path / "b", 1.5)
    (tmp_path / "notes.txt").write_text("mine")
    told = in_process("common/support/compare.py", tmp_path / "a", whole, tmp_path / "notes.txt").stdout
    assert told.startswith(f"{tmp_path / 'a'} holds no finished run (run.json and report.json); it is left out.\n")
    assert "notes.txt holds no finished run" in told and "b: ntp" in told and "a: ntp" not in told
    assert_refused(in_process("common/support/compare.py", tmp_path / "a", "--out", "x/y.png"), "There is no finished run")
    assert_refused(in_process("common/support/compare.py", tmp_path / "a", "--out", "a.pdf"),
                   "--out a.pdf: the picture is a .png")
    assert not (Path.cwd() / "x").exists()


@pytest.mark.slow
def test_a_mean_over_seeds_is_called_one_and_has_no_interval(in_process, tmp_path):
    told = {}
    for seeds in (1, 2):
        run = make_run(tmp_path / f"run{seeds}", 1.25)
        report, options = (json.loads((run / name).read_text()) for name in ("report.json", "run.json"))
        report["tests"] = {arm: {"questions": 30, "sha256": "s"} for arm in ("base", "ntp")}
        report["arms"]["ntp"]["exact_match"] = 0.9
        (run / "report.json").write_text(json.dumps(report))
        (run / "run.json").write_text(json.dumps(options | {"options": options["options"] | {"seeds": seeds}}))
        [told[seeds]] = [line for line in in_process("common/support/compare.py", run).stdout.splitlines() if "ntp" in line][:1]
    assert " to " in told[1] and "seeds" not in told[1]
    assert " to " not in told[2] and "run2: ntp, mean of 2 seeds" in told[2]


@pytest.mark.slow
def test_rows_of_different_tests_are_marked(in_process, tmp_path):
    for name, tests in (("a", ("s", "s")), ("b", ("s", "t"))):
        run = make_run(tmp_path / name, 1.25)
        report = json.loads((run / "report.json").read_text())
        report["tests"] = {arm: {"questions": 30, "sha256": test} for arm, test in zip(("base", "ntp"), tests)}
        (run / "report.json").write_text(json.dumps(report))
    told = in_process("common/support/compare.py", tmp_path / "a", tmp_path / "b").stdout
    assert "a: ntp [A]" in told and "b: base [A]" in told and "b: ntp [B]" in told
    assert "[A], [B]: different tests; compare only rows with the same letter." in told
    assert "[A]" not in in_process("common/support/compare.py", tmp_path / "a").stdout


@pytest.mark.slow
def test_it_is_told_what_else_may_differ(in_process, tmp_path):
    for name, facts, arm in (("a", {"max_new_tokens": 4}, "ntp"), ("b", {"max_new_tokens": 64}, "pretrained")):
        run = make_run(tmp_path / name, 1.25, over_length="truncate", max_length=len(arm))
        whole, report = (json.loads((run / file).read_text()) for file in ("run.json", "report.json"))
        (run / "run.json").write_text(json.dumps(whole | {"facts": facts}))
        (run / "report.json").write_text(json.dumps({"arms": {arm: report["arms"]["ntp"]}}))
    told = in_process("common/support/compare.py", tmp_path / "a", tmp_path / "b").stdout
    assert "Answers were cut after 4 or 64 tokens" in told and "different tokens (max_length)" in told
    assert "b: pretrained (validation loss)" in told and "a: ntp (" not in told


@pytest.mark.slow
def test_many_runs_fit_a_hundred_columns_and_their_legend_stands_below(in_process, tmp_path, monkeypatch):
    drawn = []
    draw = plots.draw_losses
    monkeypatch.setattr("common.support.plots.draw_losses", lambda ax, runs: draw(ax, runs) or drawn.append(ax))
    runs = [make_run(tmp_path / f"a_run_with_a_rather_long_name_{n}", 1.0 + n, epochs=n, model="m" * 38) for n in range(8)]
    told = in_process("common/support/compare.py", *runs).stdout
    assert max(map(len, told.splitlines()[:-1])) <= 100  # the last line names the curves
    assert all(f"name_{n}: ntp" in told for n in range(8)) and told.count("epochs") >= 3
    [ax] = drawn
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert len(labels) == 16 and max(len(line) for label in labels for line in label.splitlines()) <= 48
    ax.figure.draw_without_rendering()
    assert ax.get_legend().get_window_extent().y1 < ax.get_window_extent().y0  # no curve is hidden


@pytest.mark.parametrize(("paths", "names"), [
    (["runs/x/001", "runs/y/001"], ["x/001", "y/001"]), (["runs/x/001", "runs/x/002", "gpt2"], ["x/001", "x/002", "gpt2"]),
    (["openai-community/gpt2", "/deep/down/mine/"], ["gpt2", "mine"]), (["a/b", "c/a/b"], ["a/b", "c/a/b"]),
    (["1"], ["1"]), (["/"], ["/"]), (["a", "a"], ["a", "a"])])
def test_short_names_tell_paths_apart(paths, names):
    assert short_names(paths) == names


@pytest.mark.parametrize(("name", "content", "words"), [
    ("report.json", "[1]", "no report of a training run"), ("report.json", '{"arms": {"ntp": {}}}', "'test_loss'"),
    ("metrics.csv", "step,epoch,tokens\n0,zero,0\n", "no metrics.csv of a run"),
    ("metrics.csv", "step,epoch,tokens\n", "it has no rows"), ("metrics.csv", "step,epoch\n1,0.5\n", "has no 'tokens'")])
def test_a_damaged_file_is_named(in_process, tmp_path, name, content, words):
    run = make_run(tmp_path / "a", 1.25)
    (run / name).write_text(content)
    assert_refused(in_process("common/support/compare.py", run), f"{run / name} is no", words)


ONE_ARM = {"ntp": arm_result(1.0, None, 1.0)}


def test_each_of_many_tests_has_letters_of_its_own_and_an_unknown_one_is_marked():
    found = {f"r{n}": ({}, ONE_ARM, {"ntp": {"questions": 60, "sha256": f"{n}"}}) for n in range(54)}
    told = compare.score_rows(found | {"old": ({}, ONE_ARM, {})})
    rows = {line.split(":")[0]: line.split("[")[1].split("]")[0] for line in told.splitlines() if ": ntp [" in line}
    assert rows.pop("old") == "?" and len(set(rows.values())) == 54
    assert [rows[f"r{n}"] for n in (0, 25, 26, 27, 52)] == ["A", "Z", "AA", "BB", "AAA"]


@pytest.mark.parametrize(("options", "warned"), [
    ({"loss_on": "all"}, "loss_on"), ({"format": "phi3"}, "format"), ({"model": "gpt2"}, "model"), ({"epochs": 2}, "")])
def test_losses_of_other_tokens_are_not_to_be_compared(options, warned):
    usual = {"loss_on": "response", "format": "alpaca", "model": "classroom", "epochs": 3}
    told = compare.score_rows({"a": (usual, ONE_ARM, {}), "b": (usual | options, ONE_ARM, {})})
    assert (f"may be those of different tokens ({warned})" in told) == bool(warned)


def test_long_values_that_begin_alike_are_different():
    paths = [f"runs/ch_delift/a_rather_long_name_of_a_folder/seed-{n}/subset.json" for n in (0, 1)]
    told = compare.differences({"a": {"subset": paths[0], "x": None}, "b": {"subset": paths[1]}})
    assert told.splitlines()[-1].startswith("subset") and len(told.splitlines()) == 3  # and "not given" is "not there"
