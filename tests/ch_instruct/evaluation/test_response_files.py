import json

import pytest

from ch_instruct.evaluation.judge import asked
from ch_instruct.evaluation.response_files import read_mt_bench, read_responses
from ch_instruct.evaluation.to_alpaca_eval import to_alpaca_eval
from ch_instruct.pipeline import merge_responses
from ch_instruct.records import last_turn
from common.support.files import InputError, write_json
from tests.conftest import assert_refused

RECORDS = [{"instruction": "Add.", "input": "1 2", "output": "3", "family": "sums"}, {"instruction": "Say hi.", "output": "Hi"}]


def answered(*texts: str) -> list[dict]:
    return [record | {"answer": text, "stopped": True} for record, text in zip(RECORDS, texts)]


def read(path, arm=None) -> list[dict]:
    return read_responses(path, "--responses", arm, "--arm")


def test_both_kinds_of_files_read_alike(tmp_path):
    write_json(tmp_path / "flat.json", answered("4", "Hello"))
    write_json(tmp_path / "run.json", merge_responses({"base": answered("", "?"), "ntp": answered("4", "Hello")}))
    found = read(tmp_path / "flat.json")
    assert found == [{"instruction": "Add.", "input": "1 2", "output": "3", "answer": "4"},
                     {"instruction": "Say hi.", "output": "Hi", "answer": "Hello"}]
    assert read(tmp_path / "run.json", "ntp") == found
    assert [r["answer"] for r in read(tmp_path / "run.json", "base")] == ["", "?"]


def test_what_was_said_before_stands_before_the_request(tmp_path):
    """A judge reads a conversation in its order."""
    talk = [{"role": role, "content": text} for role, text in (("system", "Be brief."), ("user", "Where is Kenya?"),
                                                                ("assistant", "In Africa."), ("user", "And its capital?"))]
    write_json(tmp_path / "talk.json", [last_turn({"messages": talk}) | {"answer": "Nairobi."}])
    [record] = read(tmp_path / "talk.json")
    before = "System: Be brief.\nUser: Where is Kenya?\nAssistant: In Africa."
    assert asked(record) == f"[Earlier in the conversation]\n{before}\n\n[Request]\nAnd its capital?"


ARMS = {"instruction": "a", "answers": {"base": {"answer": "x"}, "ntp": {"answer": "y"}}}


@pytest.mark.parametrize(("rows", "arm", "words"), [
    ([], None, "holds no records"), ({}, None, "record 1 .*it has no 'instruction'"),
    ([3], None, "record 1 .*it is 3, not an object"),
    ([{"instruction": "a", "output": "b"}], None, "record 1 is no record with an answer .*it has no 'answer'.*; give"),
    ([{"instruction": "a", "answer": "b"}, {"answer": "b"}], None, "record 2 .*it has no 'instruction'"),
    ([{"instruction": "a", "answer": 3}], None, "record 1 .*'answer' is 3, not a text"),
    ([{"instruction": "a", "answer": "\ud83d"}], None, "record 1 holds half of a surrogate pair"),
    ([ARMS], None, "record 1 has the answers of base, ntp; choose one of them with --arm"),
    ([ARMS], "sftmix", "has the answers of base, ntp, none of 'sftmix'; choose one of them with --arm"),
    ([{"instruction": "a", "answer": "b"}], "ntp", "--arm ntp: .* holds one model's answers; leave out --arm")])
def test_bad_answer_files(rows, arm, words, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(rows))
    with pytest.raises(InputError, match=words):
        read(tmp_path / "a.json", arm)


QUESTION = {"question_id": 1, "turns": ["Hello?", "And?"]}
ANSWER = {"question_id": 1, "choices": [{"turns": ["Hi", "So"]}]}


def read_mt(tmp_path, questions: list, answers: list) -> list[dict]:
    for name, rows in (("q.jsonl", questions), ("a.jsonl", answers)):
        (tmp_path / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return read_mt_bench(tmp_path / "a.jsonl", tmp_path / "q.jsonl")


def test_mt_bench_files_give_a_record_per_turn(tmp_path):
    first, second = read_mt(tmp_path, [QUESTION | {"reference": ["Good day", "Well"]}], [ANSWER])
    assert first == {"question_id": 1, "turn": 1, "instruction": "Hello?", "answer": "Hi", "history": [], "output": "Good day"}
    assert second == {"question_id": 1, "turn": 2, "instruction": "And?", "answer": "So", "history": [["Hello?", "Hi"]],
                      "output": "Well"}


@pytest.mark.parametrize(("questions", "answers", "words"), [
    ([QUESTION], [ANSWER | {"question_id": 2}], "question_id [12] is in one of"),
    ([QUESTION, QUESTION], [ANSWER], "--questions .* line 2: question_id 1 stands there a second time"),
    ([{"turns": ["a"]}], [ANSWER], r"--questions .* line 1 is not in MT-Bench's form \(it has no 'question_id'\)"),
    ([QUESTION], [{"question_id": 1, "choices": []}], "--responses .* question_id 1 has 0 answers to 2 turns"),
    ([QUESTION], [7], "--responses .* must hold a list of records, not a int"),
    ([QUESTION | {"question_id": []}], [ANSWER], r"not in MT-Bench's form .*'question_id' is \[\], not a"),
    ([QUESTION | {"turns": []}], [ANSWER], "question_id 1 .*it has no turns"),
    ([QUESTION | {"turns": [1]}], [ANSWER], "number 1 of 'turns' is 1, not a text"),
    ([QUESTION | {"reference": "Good day"}], [ANSWER], "'reference' is 'Good day', not a list"),
    ([QUESTION | {"turns": ["a"]}], [ANSWER], "has 2 answers to 1 turns")])
def test_bad_mt_bench_files(questions, answers, words, tmp_path):
    with pytest.raises(InputError, match=words):
        read_mt(tmp_path, questions, answers)


def test_alpaca_eval_form():
    assert to_alpaca_eval(answered("4", ""), "mine") == [
        {"instruction": "Add.\n\n1 2", "output": "4", "generator": "mine"},
        {"instruction": "Say hi.", "output": "", "generator": "mine"}]


def test_alpaca_eval_command(in_process, tmp_path):
    write_json(tmp_path / "run.json", merge_responses({"base": answered("", "?"), "ntp": answered("4", "Hello")}))
    options = ["ch_instruct/evaluation/to_alpaca_eval.py", "--responses", tmp_path / "run.json", "--arm", "ntp",
               "--out", tmp_path / "new/outputs.json"]
    assert in_process(*options).returncode == 0
    written = json.loads((tmp_path / "new" / "outputs.json").read_text())
    assert written == to_alpaca_eval(answered("4", "Hello"), "ntp")
    assert_refused(in_process(*options), "already exists")
