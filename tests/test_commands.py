"""The commands as a user meets them: help, bad input, run folders."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from common.pretrained import save_pretrained
from common.tokenizer import Tokenizer
from tests.conftest import ENVIRONMENT, ROOT, assert_refused
from tests.models import make_model

EVALUATION = "ch_instruct/evaluation/"
TRAINING = ["ch_pretrain/train.py", "ch_instruct/train.py", "ch_sftmix/train.py", "ch_delift/train.py"]
OTHERS = ["ch_pretrain/generate.py", "ch_pretrain/classroom.py", "ch_pretrain/xray.py", "ch_pretrain/lab/growing.py",
          "ch_instruct/respond.py", "ch_instruct/chat.py",
          *(EVALUATION + name for name in ("two_turn.py", "judge.py", "to_alpaca_eval.py", "arena.py", "benchmarks.py")),
          "ch_instruct/lab/bench.py", "ch_instruct/lab/gpu.py", "ch_sftmix/lab/where_it_pays.py", "ch_delift/lab/few_shot.py",
          "ch_delift/lab/where_it_pays.py", "ch_delift/lab/bench.py", "tests/first_run.py", "common/support/verify.py",
          "common/support/compare.py", "notebooks/execute.py", "notebooks/exercises/release.py", "notebooks/exercises/check.py"]
RECORD = {"instruction": "Say hello.", "input": "", "output": "Hello."}


COMMANDS = sorted(str(path.relative_to(ROOT))
                  for folder in ("common", "ch_*", "notebooks", "tests") for path in ROOT.glob(f"{folder}/**/*.py")
                  if path.read_text(encoding="utf-8").endswith("    options.run_command(main)\n"))
TAKE_SECONDS = {"torch", "matplotlib", "scipy", "huggingface_hub", "transformers", "nbformat", "nbclient"}
ONE_AFTER_THE_OTHER = """
import contextlib, io, runpy, sys
sys.path.pop(0)
_, heavy, option, *scripts = sys.argv
for script in scripts:
    sys.argv = [script, option]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            status = end.code
    print(script, status, *sorted(set(heavy.split()) & sys.modules.keys()))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("option", "status"), [("--help", 0), ("--no-such-option", 2)])
def test_help_and_a_wrong_option_wait_for_no_library(option, status, tmp_path):
    """All commands in one new process: what none has loaded at the end, none loads."""
    assert {*TRAINING, *OTHERS} <= {*COMMANDS}
    done = subprocess.run([sys.executable, "-c", ONE_AFTER_THE_OTHER, " ".join(TAKE_SECONDS), option,
                           *(str(ROOT / name) for name in COMMANDS)], cwd=tmp_path, env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{ROOT / name} {status}" for name in COMMANDS], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("script", [name for name in TRAINING if name != "ch_pretrain/train.py"])
def test_a_broken_file_is_told_before_anything_large_is_loaded(script, tmp_path):
    (tmp_path / "bad.json").write_text('[{"instruction": 3')
    program = ONE_AFTER_THE_OTHER.replace("[script, option]", "[script, '--data', option]").replace("sys.path.pop(0)", "")
    done = subprocess.run([sys.executable, "-c", program, " ".join(TAKE_SECONDS), "bad.json", str(ROOT / script)], cwd=tmp_path,
                          env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.stdout == f"{ROOT / script} 2\n", done.stderr


def test_every_command_that_reads_records_takes_fields_and_skips_bad_rows():
    """The sentences on a file propose both."""
    reading = [name for name in COMMANDS if "load_records(args.data" in (text := (ROOT / name).read_text(encoding="utf-8"))
               or "records import count_rows, load_questions" in text or "records import load_questions" in text]
    assert len(reading) >= 5
    assert [name for name in reading if "RecordOptions" not in (ROOT / name).read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("script", TRAINING + OTHERS)
def test_help_explains_every_option_with_its_default(script, in_process):
    done = in_process(script, "--help")
    text = done.stdout
    typed = "-m tests.first_run" if script == "tests/first_run.py" else script  # in tests/ a folder is called common, too
    assert done.returncode == 0 and f"python {typed}" in text  # at least one example to copy
    if script in TRAINING:
        for option in ("--data", "--out", "--epochs", "--batch-size", "--accumulate", "--lr", "--max-length", "--device",
                       "--precision", "--seed", "--dropout", "--resume", "--smoke"):
            assert option in text
        assert text.count("(default:") >= 9


BAD_OPTIONS = [  # for every training command
    (["--batch-size", "0"], "--batch-size: '0' is not allowed, it must be a whole number from 1 up"),
    (["--batch-size", "2.5"], "'2.5' is not allowed"),
    (["--lr", "-1"], "--lr: '-1' is not allowed, it must be a learning rate above 0"),
    (["--lr", "nan"], "--lr: 'nan' is not allowed"),
    (["--epochs", "none"], "--epochs: 'none' is not allowed"),
    (["--seed", "-3"], "--seed"),
    (["--device", "tpu"], "invalid choice: 'tpu'"),
    (["--learning-rate", "1"], "unrecognized arguments: --learning-rate 1"),
    (["--resume"], "--resume needs --out"),
]


REFUSED = [
    *((script, options, words) for script in TRAINING for options, words in BAD_OPTIONS),
    ("ch_sftmix/train.py", ["--batch-size", "3"], "--batch-size 3 is odd"),
    ("ch_sftmix/train.py", ["--alpha", "0"], "--alpha: '0' is not allowed"),
    ("ch_sftmix/train.py", ["--mu", "-0.1"], "--mu: '-0.1' is not allowed"),
    ("ch_sftmix/train.py", ["--split", "median"], "invalid choice: 'median'"),
    ("ch_sftmix/train.py", ["--checkpoints", "0"], "--checkpoints: '0' is not allowed"),
    ("ch_delift/train.py", ["--fraction", "0"], "--fraction: '0' is not allowed, it must be a share above 0 and at most 1"),
    ("ch_delift/train.py", ["--fraction", "1.1"], "--fraction: '1.1' is not allowed"),
    ("ch_delift/train.py", ["--fraction", "0.0001"], "--fraction 0.0001 of 1756 training records is less than one record"),
    ("ch_delift/train.py", ["--stage", "task"], "--stage task needs --target"),
    ("ch_delift/train.py", ["--flmi", "data"], "--stage instruction has no use for --flmi data"),
    ("ch_delift/train.py", ["--stage", "continual"], "--stage continual needs --known"),
    ("ch_delift/train.py", ["--target", "a.json"], "--stage instruction does not use --target"),
    ("ch_delift/train.py", ["--stage", "task", "--target", "a.json"], "--target a.json: there is no such file"),
    ("ch_delift/train.py", ["--stage", "continual", "--known", "a.txt"], "--known a.txt: use classroom"),
    ("ch_delift/train.py", ["--pairs", "some"], "must be all or neighbours:K"),
    ("ch_delift/train.py", ["--compare", "best"], "invalid choice: 'best'"),
    ("ch_delift/train.py", ["--curve", "--compare", "random"], "--curve needs full among --compare"),
    ("ch_delift/train.py", ["--utility", "none"], "--utility none holds no utilities"),
    ("ch_delift/train.py", ["--kernel-model", "gtp2"], "There is no model 'gtp2'"),
    ("ch_delift/lab/few_shot.py", ["--out", "a.json"], "one of the arguments --subset --same-family is required"),
    ("ch_delift/lab/few_shot.py", ["--out", "a.json", "--subset", "s.json", "--same-family", "1"],
     "argument --same-family: not allowed with argument --subset; --help lists all options."),
    ("ch_delift/lab/few_shot.py", ["--out", "a.json", "--subset", "none.json"], "--subset none.json: there is no such file"),
    ("ch_delift/lab/where_it_pays.py", ["--small", "--pilot"], "--small and --pilot are different maps"),
    ("ch_instruct/train.py", ["--subset", "none.json"], "--subset none.json: there is no such file"),
    ("ch_instruct/train.py", ["--subset", ROOT / "common/assets/classroom/config.json"], "is no subset file"),
    ("ch_pretrain/classroom.py", ["--records", "a.json", "--families", "sums"], "invalid choice: 'sums'"),
    ("ch_pretrain/train.py", ["--heads", "3"], "--heads 3 does not divide --width 256"),
    ("ch_pretrain/train.py", ["--vocab-size", "200"], "--vocab-size 200 is too small"),
    ("ch_pretrain/train.py", ["--data", "missing.txt"], "--data missing.txt: there is no such file"),
    ("ch_instruct/train.py", ["--max-length", "9999"], "--max-length 9999 is more than classroom can read"),
    ("ch_instruct/train.py", ["--fields", "question=q"], "'question=q' is not allowed, it must be OURS=THEIRS"),
    ("ch_instruct/train.py", ["--fields", "output=a"], "the keys of classroom are known"),
    ("ch_instruct/train.py", ["--save-data", "a.csv"], "--save-data a.csv: give a new file that ends in .json or .jsonl"),
    ("ch_instruct/train.py", ["--test-limit", "0"], "--test-limit: '0' is not allowed, it must be a whole number from 1 up"),
    ("ch_instruct/train.py", ["--lora", "0"], "--lora: '0' is not allowed, it must be a whole number from 1 up"),
    ("ch_instruct/train.py", ["--lora", "999"], "--lora 999 is more than the width of classroom"),
    ("ch_instruct/train.py", ["--max-length", "5"], "have more than 5 tokens"),
    ("ch_instruct/train.py", ["--over-length", "error", "--max-length", "40"], "choose --over-length drop or truncate"),
    ("ch_pretrain/generate.py", [], "the following arguments are required: --prompt"),
    ("ch_pretrain/generate.py", ["--prompt", ""], "--prompt has 0 tokens"),
    ("ch_pretrain/generate.py", ["--prompt", "a", "--greedy", "--num-samples", "2"], "the greedy choice (--greedy,"),
    ("ch_pretrain/generate.py", ["--prompt", "a", "--model", "gtp2"], "There is no model 'gtp2'"),
    ("ch_instruct/chat.py", ["--temperature", "-1"], "--temperature: '-1' is not allowed, it must be 0 or a number above 0"),
    ("ch_instruct/chat.py", ["--top-p", "0"], "--top-p: '0' is not allowed, it must be a share above 0 and at most 1"),
    ("ch_instruct/respond.py", ["--out", "a.json", "--repetition-penalty", "0"], "it must be a number from 0.1 to 10"),
    ("ch_instruct/chat.py", ["--format", "vicuna"], "invalid choice: 'vicuna'"),
    ("ch_instruct/chat.py", ["--model", "missing-model"], "There is no model 'missing-model'"),
    (EVALUATION + "two_turn.py", [], "the following arguments are required: --out"),
    (EVALUATION + "two_turn.py", ["--out", "a.jsonl", "--questions", "missing.jsonl"],
     "--questions missing.jsonl: there is no"),
    (EVALUATION + "two_turn.py", ["--out", "a.jsonl", "--max-new-tokens", "500"], "lower --max-new-tokens"),
    (EVALUATION + "benchmarks.py", [], "the following arguments are required: --tasks"),
    (EVALUATION + "benchmarks.py", ["--tasks", "mmlu", "--limit", "0"], "--limit: '0' is not allowed"),
    (EVALUATION + "benchmarks.py", ["--tasks", "mmlu", "--out", ROOT / "README.md"], "already exists"),
    (EVALUATION + "benchmarks.py", ["--tasks", "mmlu", "--tasks-folder", "none"], "there is no such folder"),
    (EVALUATION + "benchmarks.py", ["--tasks", "classroom", "--chat"], "have a prompt style already"),
    ("ch_pretrain/classroom.py", ["--records", "a.json", "--noise", "1.5"], "must be a share between 0 and 1"),
    (EVALUATION + "judge.py", ["--responses", "a.json", "--judge-model", "m"], "--responses a.json: there is no such file"),
    (EVALUATION + "judge.py", ["--responses", "a.json"], "the following arguments are required: --judge-model"),
    (EVALUATION + "judge.py", ["--responses", "a.jsonl", "--judge-model", "m"],
     "--questions goes with an MT-Bench answer file"),
    (EVALUATION + "judge.py", ["--responses", "a.json", "--questions", "q.jsonl", "--judge-model", "m"], "--questions goes"),
    (EVALUATION + "judge.py", ["--responses", "a.jsonl", "--questions", "q.jsonl", "--against", "b.jsonl",
                              "--judge-model", "m"], "not for MT-Bench answer files"),
    (EVALUATION + "judge.py", ["--responses", "a.json", "--judge-model", "m", "--timeout", "0"], "'0' is not allowed"),
    (EVALUATION + "to_alpaca_eval.py", ["--responses", "a.json", "--out", "b.json"], "a.json: there is no such file"),
    (EVALUATION + "arena.py", ["--models", "classroom"], "give two or more different models"),
    (EVALUATION + "arena.py", ["--models", "a", "a"], "give two or more different models"),
    (EVALUATION + "arena.py", ["--models", "classroom", "gtp2"], "There is no model 'gtp2'"),
    (EVALUATION + "arena.py", ["--models", "classroom", "b", "--questions", "q.json"], "q.json: there is no such file"),
    ("notebooks/execute.py", ["09"], "There is no notebook '09'; choose from 01"),
    ("notebooks/exercises/release.py", ["9"], "There is no exercise '9'; choose from 01"),
    ("notebooks/exercises/check.py", ["9"], "There is no exercise '9'; choose from 01"),
    ("notebooks/exercises/check.py", ["01", "mine.ipynb"], "mine.ipynb: there is no such file"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("script", "options", "words"), REFUSED)
def test_impossible_requests_are_refused_before_any_work(script, options, words, in_process):
    assert_refused(in_process(script, *options), words)
    assert not any(Path.cwd().iterdir())  # the folder in which it ran


@pytest.mark.slow
def test_without_the_harness_its_requirements_are_named(in_process, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    seen = in_process(EVALUATION + "benchmarks.py", "--tasks", "mmlu")
    assert_refused(seen, "needs lm-evaluation-harness: pip install -r requirements-eval.txt")


BAD_FILES = {
    "missing.json": (None, "there is no such file"),
    "notes.txt": ("hello", "ends in .json, .jsonl, .ndjson, .csv, .tsv, .parquet"),
    "broken.json": ('[{"instruction": "a"', "is no JSON in UTF-8"),
    "lines.jsonl": ('{"instruction": "a", "output": "b"}\nhello\n', "line 2 is no JSON"),
    "empty.json": ("[]", "holds no records"),
    "object.json": ("{}", "record 1 is of no known form"),
    "number.json": ("[1]", "record 1 is a int"),
    "odd.json": (json.dumps([{"q": "a", "a": "b"}]), "is of no known form (its keys: 'q', 'a')"),
    "cut.csv": ("question,answer\na\n", "record 1 has more or fewer cells"),
    "no_output.json": (json.dumps([RECORD, {"instruction": "a"}]), "record 2 has no 'output'"),
    "no_instruction.json": (json.dumps([{"output": "a"}]), "record 1 has no 'instruction'"),
    "not_text.json": (json.dumps([RECORD, RECORD | {"output": ["b"]}]), "record 2"),
    "two_users.json": (json.dumps([RECORD, {"messages": [{"role": "user", "content": "a"}] * 2}]),
                       "record 2, message 2 has the role 'user'; assistant belongs there"),
    "one.json": (json.dumps([RECORD]), "leave nothing for the"),
}


@pytest.mark.parametrize("script", ["ch_instruct/train.py", "ch_sftmix/train.py", "ch_delift/train.py"])
@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_data_files_are_refused(script, name, in_process, tmp_path):
    content, words = BAD_FILES[name]
    if content is not None:
        (tmp_path / name).write_text(content)
    assert_refused(in_process(script, "--data", tmp_path / name), words)
    assert not any(Path.cwd().iterdir())


@pytest.mark.parametrize("script", ["ch_sftmix/train.py", "ch_delift/train.py"])
def test_one_training_record_is_too_few_to_halve_or_to_choose_from(script, in_process, tmp_path):
    (tmp_path / "few.json").write_text(json.dumps([RECORD | {"split": split} for split in ("train", "validation", "test")]))
    more = ["--fraction", 1] if script == "ch_delift/train.py" else []
    save_pretrained(make_model(n_positions=512), Tokenizer.from_merges([]), tmp_path / "model")
    assert_refused(in_process(script, "--data", tmp_path / "few.json", "--model", tmp_path / "model", *more),
                   "needs at least 2")
    assert not any(Path.cwd().iterdir())


def break_model(folder, how: str) -> None:
    weights = folder / "model.safetensors"
    if how == "no tokenizer":
        for name in ("vocab.json", "merges.txt"):
            (folder / name).unlink()
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "another architecture":
        save_file({"model.embed_tokens.weight": torch.zeros(4, 4)}, weights)
    elif how == "another model type":
        (folder / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    elif how == "no weights":
        weights.unlink()


@pytest.mark.parametrize(("how", "words"), [
    ("no tokenizer", "has no tokenizer"), ("truncated", "may be cut off"), ("no weights", "has no model.safetensors"),
    ("another architecture", "does not hold this model: missing h.0.attn.c_attn.bias"),
    ("another model type", "model_type = 'mamba'")])
def test_broken_models_are_refused(how, words, in_process, tmp_path):
    save_pretrained(make_model(), Tokenizer.from_merges([]), tmp_path / "model")
    break_model(tmp_path / "model", how)
    assert_refused(in_process("ch_instruct/train.py", "--model", tmp_path / "model"), words)
    assert not any(Path.cwd().iterdir())


@pytest.mark.parametrize("script", TRAINING)
def test_a_folder_with_another_run_is_left_alone(script, in_process, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run.json").write_text("{}")
    assert_refused(in_process(script, "--out", tmp_path / "mine"), "already holds something")
    assert {p.name: p.read_text() for p in (tmp_path / "mine").iterdir()} == {"run.json": "{}"}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below this folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_another_run_or_other_options_leave_a_run_as_it_was(in_process, tmp_path):
    """Without --out each run gets a folder of its own; and --resume takes the options of the run alone."""
    (tmp_path / "rhyme.txt").write_text("one two three four five six seven eight nine ten\n" * 20)
    training = ["ch_pretrain/train.py", "--data", tmp_path / "rhyme.txt", "--smoke", "--vocab-size", 260]
    assert in_process(*training).returncode == 0
    runs = Path.cwd() / "runs" / "ch_pretrain"
    first = contents(runs / "001")
    assert {"run.json", "report.json", "metrics.csv", "model.safetensors"} <= first.keys()

    assert in_process(*training, "--seed", 1).returncode == 0
    assert sorted(path.name for path in runs.iterdir()) == ["001", "002"]
    assert contents(runs / "001") == first
    assert contents(runs / "002")["model.safetensors"] != first["model.safetensors"]

    seen = in_process(*training, "--out", runs / "001", "--resume", "--lr", 0.5)
    assert_refused(seen, "has --lr 0.001, not 0.5")
    assert contents(runs / "001") == first
