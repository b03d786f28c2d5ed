"""The command that answers a file."""

import json
from pathlib import Path

import pytest

from common.pretrained import save_pretrained
from common.support.files import Journal
from common.tokenizer import Tokenizer
from tests.conftest import assert_refused
from tests.models import make_model


@pytest.mark.slow
def test_questions_that_are_too_long_are_named_by_row_and_can_be_left_out(in_process, tmp_path):
    save_pretrained(make_model(n_positions=512), Tokenizer.from_merges([]), tmp_path / "model")
    (tmp_path / "cwd").mkdir(exist_ok=True)
    rows = [{"instruction": "x" * (600 if n in (1, 3) else 5), "output": "y"} for n in range(4)]
    rows.insert(0, {"instruction": " ", "output": "left out before"})
    (tmp_path / "cwd" / "q.json").write_text(json.dumps(rows))
    line = ["ch_instruct/respond.py", "--model", tmp_path / "model", "--data", "q.json", "--max-new-tokens", 2,
            "--out", "a.json"]
    assert_refused(in_process(*line), "2 (rows 3, 5) have more than 511 tokens", "by --over-length drop")
    done = in_process(*line, "--over-length", "drop")
    assert done.returncode == 0 and "left out, more than 511 tokens: 2 (rows 3, 5)" in done.stdout
    assert [len(answer["instruction"]) for answer in json.loads(Path("a.json").read_text())] == [5, 5]
    (tmp_path / "cwd" / "q.json").write_text(json.dumps([rows[2]]))
    assert_refused(in_process(*line[:-1], "b.json", "--over-length", "drop"), "1 (row 1) have more than 511 tokens")


@pytest.mark.slow
def test_answers_are_greedy_unless_asked_otherwise_and_sampled_ones_repeat_with_their_seed(in_process, tmp_path):
    save_pretrained(make_model(n_positions=512), Tokenizer.from_merges([]), tmp_path / "model")
    (tmp_path / "cwd").mkdir(exist_ok=True)
    (tmp_path / "cwd" / "q.json").write_text(json.dumps([{"instruction": f"q{n}"} for n in range(4)]))

    def answers(name: str, *more: object) -> list[str]:
        assert in_process("ch_instruct/respond.py", "--model", tmp_path / "model", "--data", "q.json", "--max-new-tokens", 12,
                          "--out", f"{name}.json", *more).returncode == 0
        return [one["answer"] for one in json.loads(Path(f"{name}.json").read_text())]

    assert answers("a") == answers("b", "--greedy") == answers("c", "--temperature", 0, "--seed", 5)
    assert answers("d") != answers("e", "--no-repeat-ngram", 1) == answers("f", "--no-repeat-ngram", 1)
    sampled = ["--temperature", 1.5, "--top-p", 0.9]
    assert answers("g", *sampled) == answers("h", *sampled) != answers("i", *sampled, "--seed", 1)


@pytest.mark.slow
def test_an_interrupted_command_goes_on_with_the_answers_that_are_there(in_process, tmp_path, monkeypatch):
    save_pretrained(make_model(n_positions=512), Tokenizer.from_merges([]), tmp_path / "model")
    (tmp_path / "cwd").mkdir(exist_ok=True)
    (tmp_path / "cwd" / "q.json").write_text(json.dumps([{"instruction": "q" * (n + 1)} for n in range(7)]))
    line = ["ch_instruct/respond.py", "--model", tmp_path / "model", "--data", "q.json", "--max-new-tokens", 6,
            "--temperature", 1, "--batch-size", 2, "--precision", "fp32"]
    assert in_process(*line, "--out", "whole.json").returncode == 0
    whole, append, made = json.loads(Path("whole.json").read_text()), Journal.append, []
    assert not list(Path.cwd().glob("*unfinished*"))

    def stop_at_the_fourth(journal, entry: dict) -> None:
        if len(journal.entries) == 3:
            raise KeyboardInterrupt
        append(journal, entry)

    monkeypatch.setattr(Journal, "append", stop_at_the_fourth)
    stopped = in_process(*line, "--out", "a.json")
    assert stopped.returncode == 130 and "3 of 7 answers are kept in a.json.unfinished.jsonl" in stopped.stdout
    assert not Path("a.json").exists()
    monkeypatch.setattr(Journal, "append", lambda journal, entry: append(journal, entry) or made.append(entry))
    assert_refused(in_process(*line, "--out", "a.json", "--seed", 1), "holds answers of another interrupted command")
    done = in_process(*line, "--out", "a.json")
    assert "3 of 7 answers are there" in done.stdout and len(made) == 4
    assert json.loads(Path("a.json").read_text()) == whole and not list(Path.cwd().glob("*unfinished*"))
