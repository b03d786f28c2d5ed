"""The first run on a machine: all parts, the file, and what it makes of a part that is wrong or fails."""

import sys
from itertools import count
from pathlib import Path

import pytest

from common.fast.answering import Continuation
from common.pretrained import save_pretrained
from common.tokenizer import Tokenizer
from tests import first_run
from tests.conftest import assert_refused
from tests.models import make_model

PARTS = ["machine", "weights", "parity", "training", "answers", "utilities"]


@pytest.fixture
def fast_machine(monkeypatch):
    """A machine whose rates need not be measured: that takes a minute where bf16 has no instructions."""
    monkeypatch.setattr(first_run, "rates_of", lambda device: {"fp32": 1e9, "bf16": 1e9, "memory": 1e9})


@pytest.fixture
def tiny(tmp_path, fast_machine):
    """A folder with a tiny random model, and such a machine."""
    save_pretrained(make_model(n_positions=400), Tokenizer.from_merges([]), tmp_path / "model")
    return tmp_path


def look(folder, monkeypatch) -> tuple[int, str]:
    """Exit status and report of a run on the tiny model, in fp32."""
    monkeypatch.setattr(sys, "argv", ["first_run.py", "--model", str(folder / "model"), "--device", "cpu",
                                      "--precision", "fp32", "--out", str(folder / "report.txt")])
    status = 0
    try:
        first_run.main()
    except SystemExit as end:
        status = end.code
    return status, (folder / "report.txt").read_text()


def parts_of(report: str) -> dict[str, str]:
    """part -> what the report says of it."""
    return dict(line.removeprefix("== ").split(": ", 1) for line in report.splitlines() if line.startswith("== "))


@pytest.mark.slow
def test_on_the_classroom_model_everything_is_as_it_should_be(fast_machine, in_process, monkeypatch, capsys):
    for name, less in (("BATCH", 2), ("STEPS", 4), ("MAX_NEW_TOKENS", 12), ("UTILITIES", 2)):
        monkeypatch.setattr(first_run, name, less)
    monkeypatch.setattr(sys, "argv", ["first_run.py", "--device", "cpu", "--precision", "bf16"])
    first_run.main()
    told, report = capsys.readouterr().out, Path("first_run.txt").read_text()
    assert parts_of(report) == dict.fromkeys(PARTS, "as it should be")
    assert report.endswith("Everything is as it should be.\n") and "Everything is as it should be." in told
    assert report.count("cpu bf16") == report.count("cpu fp32") == 3 and "20 of 20" in report
    assert_refused(in_process("tests/first_run.py"), "first_run.txt already exists")


@pytest.mark.slow
def test_a_part_that_is_wrong_or_fails_is_named_and_the_others_go_on(tiny, monkeypatch):
    def broken(*_):
        raise RuntimeError("CUDA error: no kernel image is available")

    right = first_run.utility_matrix
    monkeypatch.setattr(first_run, "training_side", broken)
    monkeypatch.setattr(first_run, "utility_matrix", lambda *given: right(*given) + 0.01)
    status, report = look(tiny, monkeypatch)
    assert status == 1
    assert [part for part, said in parts_of(report).items() if said != "as it should be"] == ["training", "utilities"]
    assert "no kernel image is available" in report and report.endswith("Not as it should be: training, utilities.\n")


@pytest.mark.slow
def test_answers_and_losses_are_compared_between_the_sides(tiny, monkeypatch):
    """With two sides of the same kind: right as they are, and wrong where the second computes something else."""
    given = first_run.read_setting(str(tiny / "model"), "cpu", "fp32")
    monkeypatch.setattr(first_run.Setting, "sides", property(lambda given: [(given.device, "fp32")] * 2))
    assert first_run.answers(given)[1] and first_run.training(given)[1]
    number = count()
    monkeypatch.setattr(first_run, "continue_all",
                        lambda model, prompts, *_: [Continuation([next(number)], True) for _ in prompts])
    text, right = first_run.answers(given)
    assert not right and "0 of 20" in text
    losses = iter([1.0] * 9 + [0.5] + [1.0] * 8 + [1.1] + [0.5])  # the ninth differs
    monkeypatch.setattr(first_run, "training_side", lambda *_: lambda batch: next(losses))
    assert not first_run.training(given)[1]
    monkeypatch.setattr(first_run, "training_side", lambda *_: lambda batch: 1.0)  # equal, and it does not fall
    assert not first_run.training(given)[1]


def test_a_model_that_reads_too_little_is_refused(tmp_path, in_process):
    save_pretrained(make_model(n_positions=64), Tokenizer.from_merges([]), tmp_path / "model")
    done = in_process("tests/first_run.py", "--model", tmp_path / "model", "--device", "cpu", "--out", tmp_path / "r.txt")
    assert_refused(done, "reads 64 tokens", "use another model")
    assert not (tmp_path / "r.txt").exists()
