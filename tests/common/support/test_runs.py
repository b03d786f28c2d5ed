import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from ch_instruct.evaluation.judge import JudgeOptions
from ch_instruct.pipeline import FineTuning
from ch_sftmix.train import SFTMix
from common.support import files, options, runs
from common.support.files import InputError
from common.support.runs import check_run, data_hash, model_hash, open_run
from tests.conftest import ROOT
from tests.models import make_model

# Every option of fine-tuning with a value that is not its default. A new option must be added here, and so be decided on.
OTHER = {"model": "gpt2", "data": "alpaca", "format": "phi3", "subset": Path("subset.json"), "loss_on": "all", "lr": 1e-3,
         "epochs": 7, "batch_size": 2, "accumulate": 3, "dropout": 0.1, "recompute": True, "max_length": 99,
         "over_length": "truncate", "seed": 5, "smoke": True, "precision": "fp32", "device": "cpu",
         "out": Path("elsewhere"), "resume": True, "fields": ("instruction=q",), "save_data": Path("a.json"), "lora": 4,
         "test_limit": 9, "validation_limit": 8, "bad_rows": "skip"}


def test_hashes_see_every_change():
    model = make_model()
    before = model_hash(model)
    model.h[1].mlp.c_fc.bias.data[3] += 1e-3
    assert model_hash(model) != before == model_hash(make_model())
    assert data_hash([{"a": 1, "b": 2}]) == data_hash([{"b": 2, "a": 1}]) != data_hash([{"a": 1, "b": 3}])


@pytest.fixture
def begun(tmp_path) -> FineTuning:
    """The options of a run that has begun."""
    options = FineTuning(out=tmp_path / "run")
    open_run("some", options, {"precision": "bf16", "records": {"train": 5}})
    return options


def test_no_process_goes_on_before_the_folder_is_this_runs(tmp_path, monkeypatch):
    """Or one that is faster puts a first file into it, which the main process takes for another run's."""
    seen = []
    monkeypatch.setattr(runs.distributed, "barrier", lambda: seen.append((tmp_path / "run" / "run.json").exists()))
    open_run("some", FineTuning(out=tmp_path / "run"), {})
    assert seen == [True]


def test_every_option_is_decided_on():
    assert OTHER.keys() == {part.name for part in fields(FineTuning)}
    assert runs.MAY_DIFFER == {"resume", "out", "device", "recompute", "timeout"}


@pytest.mark.parametrize("name", sorted(OTHER.keys() - {"resume", "out", "device", "recompute"}))
def test_what_decides_the_result_may_not_differ_when_resuming(name, begun):
    check_run(replace(begun, resume=True))
    with pytest.raises(InputError, match=f"has --{name.replace('_', '-')} .*, not .*; leave --.* out, or start a new run"):
        check_run(replace(begun, resume=True, **{name: OTHER[name]}))


def parse(monkeypatch, *line: object, some: type = FineTuning) -> object:
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, line)])
    return options.parse(some, "")


def test_resume_and_out_alone_are_enough(tmp_path, monkeypatch):
    """Every option of the run comes back, as the value that its command line gave."""
    given = FineTuning(**OTHER | {"out": tmp_path / "run", "resume": False})
    open_run("some", given, {})
    assert parse(monkeypatch, "--resume", "--out", given.out) == replace(given, resume=True)
    assert parse(monkeypatch, "--out", given.out) == FineTuning(out=given.out)  # only for --resume


def test_what_is_given_beside_resume_counts_and_must_agree(begun, monkeypatch):
    agreeing = parse(monkeypatch, "--resume", "--out", begun.out, "--epochs", 3, "--device", "cpu")
    assert agreeing.device == "cpu" and check_run(agreeing) is None
    with pytest.raises(InputError, match="has --epochs 3, not 5; leave --epochs out, or start a new run"):
        check_run(parse(monkeypatch, "--resume", "--out", begun.out, "--epochs", 5))


def test_a_run_of_another_command_is_not_gone_on_with(begun, monkeypatch):
    with pytest.raises(InputError, match=r"was made by 'python .*', whose options are not those of this command"):
        parse(monkeypatch, "--resume", "--out", begun.out, some=SFTMix)


def test_resuming_where_no_run_has_begun_takes_the_line_as_it_is(tmp_path, monkeypatch):
    assert parse(monkeypatch, "--resume", "--out", tmp_path, "--epochs", 5).epochs == 5


@pytest.mark.parametrize("change", [{"epochs": "many"}, {"epochs": [3]}, {"fields": 3}])
def test_damaged_options_are_told(change, begun, monkeypatch):
    run = json.loads((begun.out / "run.json").read_text())
    (begun.out / "run.json").write_text(json.dumps(run | {"options": run["options"] | change}))
    with pytest.raises(InputError, match=r"run\.json is no run\.json of a run .*or start a new run"):
        parse(monkeypatch, "--resume", "--out", begun.out)


def test_where_it_is_and_runs_may_differ(begun, tmp_path):
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = replace(begun, resume=True, out=tmp_path / "moved", device="cpu", recompute=True)
    check_run(moved)
    assert open_run("some", moved, {"precision": "bf16"}) == tmp_path / "moved"
    judging = JudgeOptions(out=tmp_path / "judged", responses=tmp_path / "a.json", timeout=1.0, judge_model="m")
    open_run("judge", judging, {})
    check_run(replace(judging, resume=True, timeout=99.0))
    with pytest.raises(InputError, match="has --judge-model m, not n"):
        check_run(replace(judging, resume=True, judge_model="n"))


def test_facts_may_not_differ_when_resuming(begun):
    before = (begun.out / "run.json").read_text()
    with pytest.raises(InputError, match=r"records has changed since this run began \({'train': 5} then, {'train': 6} now\)"):
        open_run("some", replace(begun, resume=True), {"precision": "bf16", "records": {"train": 6}})
    assert (begun.out / "run.json").read_text() == before


def test_other_code_is_told_of_when_resuming(begun, capsys):
    run = json.loads((begun.out / "run.json").read_text())
    open_run("some", replace(begun, resume=True), run["facts"])
    assert "other code" not in capsys.readouterr().out
    (begun.out / "run.json").write_text(json.dumps(run | {"git_commit": "abc"}))
    open_run("some", replace(begun, resume=True), run["facts"])
    assert "this run began with other code (git_commit abc then" in capsys.readouterr().out


def test_a_resumed_run_keeps_its_precision(begun):
    assert runs.recorded_precision(begun, "fp32") == "fp32"
    assert runs.recorded_precision(replace(begun, resume=True), "fp32") == "bf16"


def test_a_folder_in_use_and_one_without_a_run_are_refused(begun, tmp_path):
    with pytest.raises(InputError, match="already holds something"):
        check_run(begun)
    (tmp_path / "other").mkdir()
    assert check_run(replace(begun, out=tmp_path / "other")) is None
    (tmp_path / "other" / "letter.txt").write_text("Dear Anna")
    for out in (tmp_path / "other", tmp_path / "missing", tmp_path / "other" / "letter.txt"):
        with pytest.raises(InputError, match=r"holds no run \(no run\.json\)"):
            check_run(replace(begun, resume=True, out=out))


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_killed_before_it_wrote_run_json_can_be_begun_again_by_either_command(resume, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".run.json.28691.unfinished").write_text('{"comm')
    options = FineTuning(out=tmp_path / "run", resume=resume)
    check_run(options)
    assert runs.recorded_precision(options, "bf16") == "bf16"
    open_run("some", options, {"precision": "bf16"})
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


def test_temporary_files_of_a_killed_run_go_when_it_goes_on_and_no_others(begun):
    (begun.out / "utility").mkdir()
    for name in (".metrics.csv.28691.unfinished", "utility/.data-data.npy.partial.7.unfinished", ".notes.7.tmp", "n.tmp"):
        (begun.out / name).write_text("x")
    open_run("some", replace(begun, resume=True), {})
    assert {path.name for path in begun.out.rglob("*tmp")} == {".notes.7.tmp", "n.tmp"}


# Waits for a line of its input after it has claimed a folder.
HOLD = "import sys; from pathlib import Path; from common.support import files; " \
       "files.claim(Path(sys.argv[1])); print('held'); input()"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="folders are not locked there")
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_in_which_another_process_is_at_work_is_refused(resume, begun, tmp_path):
    files.release()
    out = begun.out if resume else tmp_path / "new"
    out.mkdir(exist_ok=True)
    with subprocess.Popen([sys.executable, "-c", HOLD, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match=f"Another process is at work in {out}; wait for its end, or choose another"):
            check_run(replace(begun, resume=resume, out=out))
        other.kill()
    assert check_run(replace(begun, resume=resume, out=out)) is None  # a killed process holds nothing


def test_a_run_that_began_meanwhile_is_seen(tmp_path):
    """Both looked at the folder before either made it."""
    options = FineTuning(out=tmp_path / "run")
    check_run(options)
    check_run(options)
    open_run("some", options, {"first": 1})
    with pytest.raises(InputError, match="already holds something"):
        open_run("some", options, {"second": 2})
    assert json.loads((tmp_path / "run" / "run.json").read_text())["facts"] == {"first": 1}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"options": {}}', '{"options": [], "facts": {}}'])
def test_a_damaged_run_json_is_told(content, begun):
    (begun.out / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json is no run\.json of a run .*or start a new run"):
        check_run(replace(begun, resume=True))


@pytest.mark.parametrize("precision", [None, "fp16", 32, ["fp32"]])
def test_a_precision_that_there_is_not_is_told(precision, tmp_path):
    options = FineTuning(out=tmp_path / "run", resume=True)
    open_run("some", replace(options, resume=False), {"precision": precision})
    with pytest.raises(InputError, match="it must be fp32 or bf16"):
        runs.recorded_precision(options, "fp32")


def test_a_run_records_what_it_was(begun, monkeypatch, tmp_path):
    run = json.loads((begun.out / "run.json").read_text())
    assert run["options"] == {name: str(value) if isinstance(value, Path) else value for name, value in vars(begun).items()}
    assert run["facts"] == {"precision": "bf16", "records": {"train": 5}} and {"python", "torch"} <= run["versions"].keys()
    monkeypatch.chdir(tmp_path)
    assert [open_run("ch_x", FineTuning(), {}) for _ in range(2)] == [Path("runs/ch_x/001"), Path("runs/ch_x/002")]
