import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import pytest
import torch

from ch_instruct.pipeline import FineTuning
from common.pretrained import save_pretrained
from common.support.files import InputError, out_of_memory, write_json
from common.support.options import (
    REQUIRED,
    SamplingOptions,
    beta_shape,
    default_lr,
    natural,
    new_file,
    not_negative,
    option,
    parse,
    recorded_options,
    seconds,
    share,
    whole,
)
from common.support.runs import plain_options
from common.tokenizer import Tokenizer
from tests.conftest import ENVIRONMENT, ROOT, assert_refused, command
from tests.models import make_model


def test_lora_takes_larger_steps():
    assert default_lr(lora=True) == pytest.approx(10 * default_lr())


@pytest.mark.parametrize(("kind", "allowed", "refused"), [
    (whole, {"1": 1, "20": 20, "2147483647": 2**31 - 1}, ["0", "-1", "1.5", "one", "", "2147483648", "9" * 5000]),
    (natural, {"0": 0, "7": 7, str(2**63 - 1): 2**63 - 1}, ["-1", "0.5", "nan", str(2**63), str(2**64)]),
    (beta_shape, {"0.01": 0.01, "3": 3.0}, ["0", "-1", "inf", "nan", "x", "1e300", "0.009"]),
    (not_negative, {"0": 0.0, "2.5": 2.5}, ["-0.1", "inf", "nan", "1e300"]),
    (seconds, {"0.5": 0.5, "86400": 86400.0}, ["0", "86401", "nan"]),
    (share, {"0": 0.0, "0.5": 0.5, "1": 1.0}, ["-0.1", "1.1", "nan"])])
def test_numbers_have_their_limits(kind, allowed, refused):
    for text, value in allowed.items():
        assert kind(text) == value
    for text in refused:
        with pytest.raises(argparse.ArgumentTypeError, match=r"is not allowed, it must be a(t most)?"):
            kind(text)


@pytest.mark.parametrize(("name", "value", "words"), [
    ("epochs", 0, "--epochs: '0' is not allowed, it must be a whole number from 1 up"),
    ("dropout", 1.5, "--dropout: '1.5' is not allowed, it must be a share between 0 and 1"),
    ("batch_size", 2.5, "--batch-size: '2.5' is not allowed"),
    ("device", "tpu", "--device: 'tpu' is not allowed, choose from auto")])
def test_values_from_a_notebook_are_checked_like_those_of_the_command_line(name, value, words):
    with pytest.raises(InputError, match=words):
        FineTuning(**{name: value})


@pytest.mark.parametrize("given, words", [
    ({"temperature": 0.0, "top_k": 3}, r"nothing is drawn; add --temperature 0\.8"),
    ({"greedy": True, "top_p": 0.9}, "nothing is drawn; leave out --greedy"),
    ({"greedy": True, "temperature": 0.5}, r"--temperature 0\.5 draws one; give only one of the two")])
def test_ways_to_draw_are_refused_where_nothing_is_drawn(given, words):
    with pytest.raises(InputError, match=words):
        SamplingOptions(**given)


def test_defaults_need_no_check():
    assert all(getattr(FineTuning(), part.name) == part.default for part in fields(FineTuning))


@dataclass(frozen=True)
class Copying(SamplingOptions):
    """Of a command that is none."""

    text: int = option(REQUIRED, "what is copied", whole, positional=True, metavar="TEXT")
    more: tuple[int, ...] | None = option(None, "what else", whole, nargs="+")
    last: int | None = option(None, "what is copied last", whole, positional=True)
    times: int = option(REQUIRED, "how often", whole, metavar="N")
    temperature: float = 0.0


def test_options_that_must_be_given_and_those_given_by_their_place(monkeypatch, capsys):
    for line, given in (([], {}), (["4"], {"last": 4}), (["--more", "5", "6"], {"more": [5, 6]})):
        monkeypatch.setattr(sys, "argv", ["copy.py", "3", *line, "--times", "2"])
        assert parse(Copying, "") == Copying(text=3, times=2, **given)
    for line, words in ((["3"], "the following arguments are required: --times"), (["--times", "2"], "required: TEXT"),
                        (["--times", "2", "0"], "argument TEXT: '0' is not allowed"),
                        (["--times", "2", "1", "0"], "argument last: '0' is not allowed"),
                        (["3", "--times", "x"], "argument --times: 'x' is not allowed")):
        monkeypatch.setattr(sys, "argv", ["copy.py", *line])
        with pytest.raises(SystemExit):
            parse(Copying, "")
        assert words in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["copy.py", "--help"])
    with pytest.raises(SystemExit):
        parse(Copying, "")
    assert re.match(r"usage: copy\.py \[-h\] --times N \[--max-new-tokens", capsys.readouterr().out)


def test_an_inherited_option_with_another_default_is_the_same_otherwise(monkeypatch, capsys):
    texts = {}
    for some in (SamplingOptions, Copying):
        monkeypatch.setattr(sys, "argv", ["copy.py", "--help"])
        with pytest.raises(SystemExit):
            parse(some, "")
        texts[some] = re.search(r"(?s)\n  --temperature X .*?\n  --top-k", capsys.readouterr().out)[0]
    assert texts[Copying] == texts[SamplingOptions].replace("default: 0.8", "default: 0.0")
    with pytest.raises(InputError, match="--temperature: '-1' is not allowed"):
        Copying(text=1, times=1, temperature=-1)
    assert SamplingOptions().temperature == 0.8


@pytest.mark.parametrize(("value", "words"), [
    ("", "'' is not allowed, it must be the name of a file or folder"), ("  ", "must be the name"),
    ("a\0b", r"'a\x00b' is not allowed, it holds what is no character"), ("\udcff", "no character")])
def test_a_path_that_no_file_can_have_is_refused(value, words, in_process):
    for script in ("ch_instruct/train.py", "ch_instruct/respond.py", "ch_instruct/evaluation/judge.py"):
        assert_refused(in_process(script, "--out", value), words)
    assert not any(Path.cwd().iterdir())


@pytest.mark.parametrize("value", [".", "/", ".."])
def test_a_place_that_holds_something_is_refused(value, in_process, tmp_path):
    (tmp_path / "cwd" / "mine.txt").write_text("mine")
    for script in ("ch_instruct/train.py", "ch_instruct/respond.py", "ch_pretrain/train.py"):
        assert_refused(in_process(script, "--out", value), "already")
    assert [path.name for path in Path.cwd().iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_stopped_by_hand_a_command_advises_what_it_can_do(in_process, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    handled = []
    monkeypatch.setattr("signal.signal", lambda *given: handled.append(given))
    monkeypatch.setattr("common.fast.answering.continue_all", stop)
    monkeypatch.setattr("common.training.fit", stop)
    done = in_process("ch_pretrain/generate.py", "--prompt", "a")
    assert (done.returncode, done.stderr) == (130, "\nStopped.\n")
    done = in_process("ch_pretrain/train.py", "--smoke")
    assert done.returncode == 130
    [advice] = re.findall(r"\nStopped\. Go on with: (.*)\n$", done.stderr)
    launcher, script, *rest = shlex.split(advice)  # whatever the folder is called
    assert launcher == "python" and script.endswith("ch_pretrain/train.py")
    assert rest == ["--resume", "--out", "runs/ch_pretrain/001"]
    # Pressed once more, it does not disturb the end.
    assert [how for how in handled if how[1] is signal.SIG_IGN] == 2 * [(signal.SIGINT, signal.SIG_IGN)]
    monkeypatch.setattr("ch_instruct.pipeline.load_records", stop)
    assert in_process("ch_instruct/train.py", "--smoke").stderr == "\nStopped.\n"  # nothing had begun


@pytest.mark.slow
def test_what_a_terminal_cannot_spell_is_no_reason_to_end(tmp_path):
    done = subprocess.run(command("ch_sftmix/train.py", "--help"), cwd=tmp_path, capture_output=True,
                          env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"") and b"? ~ Beta(?, ?)" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB."),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")])
def test_short_memory_ends_in_one_sentence_that_names_what_to_lower(error, in_process, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("common.training.fit", fail)
    monkeypatch.setattr("common.fast.answering.continue_all", fail)
    monkeypatch.setattr("ch_pretrain.train.fit", fail, raising=False)
    assert_refused(in_process("ch_pretrain/generate.py", "--prompt", "a"),
                   "there is not enough memory; lower --num-samples or --max-new-tokens or the size of the model.")
    assert_refused(in_process("ch_pretrain/train.py", "--smoke"), "lower --batch-size or --max-length or --width or the size")


def test_memory_that_is_not_there_is_told_from_other_errors(in_process, monkeypatch):
    monkeypatch.setattr("common.fast.answering.continue_all", lambda *_, **__: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        in_process("ch_pretrain/generate.py", "--prompt", "a")


def test_a_real_allocation_that_fails_is_seen():
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(real.value)


@pytest.mark.parametrize(("script", "line", "words"), [
    ("ch_pretrain/train.py", ["--width", 99_996], "this machine has .* lower --width, --layers or --max-length"),
    ("ch_pretrain/train.py", ["--width", 2**31 - 4], "--width 2147483644 is more than 100000; choose a smaller one"),
    ("ch_pretrain/train.py", ["--layers", 100_000], "--layers 100000 is more than 1000"),
    ("ch_pretrain/train.py", ["--max-length", 2**31 - 1], "--max-length 2147483647 is more than"),
    ("ch_pretrain/generate.py", ["--prompt", "a", "--num-samples", 2**31 - 1], "--num-samples 2147483647 needs .* lower it")])
def test_sizes_that_no_memory_holds_are_refused(script, line, words, in_process):
    done = in_process(script, *line)
    assert_refused(done)
    assert re.search(words, done.stderr)
    assert not any(Path.cwd().iterdir())


def test_a_new_file_is_one_that_is_not_there_yet(tmp_path):
    assert new_file(str(tmp_path / "a.json")) == tmp_path / "a.json"
    for taken in (str(tmp_path), " "):
        with pytest.raises(argparse.ArgumentTypeError, match=r"already exists|must be the name of a file"):
            new_file(taken)
    (tmp_path / "a").touch()
    with pytest.raises(argparse.ArgumentTypeError, match=r"cannot be written in .*a, choose another place"):
        new_file(str(tmp_path / "a" / "b" / "c.json"))  # in a file, not a folder


def test_a_script_runs_with_the_code_of_its_own_copy(tmp_path):
    (tmp_path / "copy" / "common" / "support").mkdir(parents=True)
    script = tmp_path / "copy" / "ch_any" / "train.py"
    script.parent.mkdir()
    script.write_text("from common.support import options\noptions.run_command(lambda: print('ran'))\n")
    run = partial(subprocess.run, [sys.executable, script], capture_output=True, text=True, cwd=tmp_path)
    assert run().stdout == "ran\n"  # a script of the user's own, which only uses our code
    (tmp_path / "copy" / "common" / "support" / "options.py").touch()
    done = run()
    assert_refused(done, "another copy; run pip install")
    assert f"pip install -e . in {tmp_path / 'copy'}." in done.stderr and "ran" not in done.stdout


def test_a_long_value_is_not_repeated_whole(in_process, tmp_path):
    for line in (("--epochs", "9" * 5000), ("--data", "x" * 100_000 + ".json"), ("--model", "\x1b[2J" + "m" * 5000)):
        done = in_process("ch_instruct/train.py", *line)
        assert_refused(done)
        assert len(done.stderr) < 1200 and "\x1b" not in done.stderr


@pytest.mark.parametrize(("name", "value"), [
    ("data", None), ("smoke", "yes"), ("recompute", 1), ("epochs", None), ("fields", "a=b"), ("seed", True), ("format", {}),
    ("batch_size", "many"), ("lr", [1])])
def test_an_option_of_a_run_that_could_not_have_been_given_is_refused(name, value, tmp_path):
    options = plain_options(FineTuning(out=tmp_path, epochs=2, fields=("output=b",)))
    write_json(tmp_path / "run.json", {"options": options, "facts": {}})
    found = recorded_options(FineTuning, tmp_path)
    assert (found.epochs, found.fields, found.smoke, found.lr) == (2, ("output=b",), False, None)
    write_json(tmp_path / "run.json", {"options": options | {name: value}, "facts": {}})
    with pytest.raises(InputError, match=r"run\.json is no run\.json of a run .*; put it back"):
        recorded_options(FineTuning, tmp_path)


def no_reader() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.slow
@pytest.mark.parametrize(("where", "line"), [
    *((where, ("ch_sftmix/train.py", "--help")) for where in ("closed", "no reader", "full")),
    *((where, ("ch_instruct/chat.py", "--model", "model")) for where in ("closed", "no reader"))], ids=str)
def test_output_that_nobody_takes_ends_quietly_or_in_one_sentence(where, line, tmp_path):
    save_pretrained(make_model(n_positions=256), Tokenizer.from_merges([]), tmp_path / "model")
    place = {"closed": lambda: None, "no reader": no_reader, "full": lambda: os.open("/dev/full", os.O_WRONLY)}[where]()
    done = subprocess.run(command(*line), cwd=tmp_path, env=ENVIRONMENT, input="hello\n", text=True, stdout=place,
                          stderr=subprocess.PIPE, preexec_fn=partial(os.close, 1) if place is None else None)
    assert done.returncode in (0, 2) and len(done.stderr.splitlines()) == bool(done.returncode), done.stderr
    if place is not None:
        os.close(place)


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.7, 1.4, 2.5])
def test_ctrl_c_while_a_command_starts_is_no_traceback(after, tmp_path):
    process = subprocess.Popen(command("ch_sftmix/train.py", "--out", tmp_path / "run"), env=ENVIRONMENT, text=True,
                               stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)
    assert str(ROOT / "common") not in told  # a traceback of Python's own start is not ours
