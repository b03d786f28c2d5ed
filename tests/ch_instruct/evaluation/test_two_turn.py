import json
import random
import re
from itertools import islice

import pytest

from ch_instruct.encoding import encode_prompt
from ch_instruct.evaluation.two_turn import QUESTIONS, answer_both, answer_lines, load_questions, score_turns
from ch_pretrain import classroom
from common.fast.answering import continue_all
from common.pretrained import save_pretrained
from common.support.files import InputError
from common.tokenizer import Tokenizer
from tests.conftest import ROOT, assert_refused
from tests.models import make_model

ASKED = {"question_id": 7, "category": "math", "turns": ["Add 1 and 2.", "And 4?"], "reference": ["3", "7"]}


def save(folder, *questions: object):
    path = folder / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, questions)))
    return path


def given(*answers: str) -> list[dict]:
    return [{"answer": answer, "stopped": True} for answer in answers]


def test_our_questions_have_right_references():
    """Every reference is an answer of the classroom world, or a sum that is right."""
    questions = load_questions(QUESTIONS)
    assert len(questions) == 12 and len({q["category"] for q in questions}) == 12
    packaged = 'ch_instruct = ["evaluation/*.jsonl", "evaluation/benchmark_tasks/*.yaml"]'
    assert packaged in (ROOT / "pyproject.toml").read_text()  # so that installing brings them along
    known = {item.output for name, family in classroom.FAMILIES.items() if name not in classroom.DRAWN
             for item in family(random.Random(0))}
    known |= {item.output for item in islice(classroom.larger(random.Random(0)), 9999)}
    for question in questions:
        assert question["category"] in classroom.FAMILIES and len(question["reference"]) == 2
        for text in question["reference"]:
            if sum_ := re.fullmatch(r"(\d+) (plus|minus) (\d+) is (\d+)\.", text):
                sign = 1 if sum_[2] == "plus" else -1
                assert int(sum_[1]) + sign * int(sum_[3]) == int(sum_[4])
            else:
                assert text in known


@pytest.mark.parametrize(("question", "words"), [
    ("hello", ["line 2", "it is 'hello', not an object"]), ({"turns": ["a", "b"]}, ["line 2", "it has no 'question_id'"]),
    ({"question_id": None, "turns": ["a", "b"]}, ["question_id"]),
    (ASKED, ["line 2", "question_id 7 stands there a second time"]),
    ({"question_id": 1}, ["line 2", "it has no 'turns'"]),
    ({"question_id": 1, "turns": ["a"]}, ["question_id 1 has 1 turns", "must have two"]),
    ({"question_id": 1, "turns": ["a", 2]}, ["number 2 of 'turns' is 2"]),
    ({"question_id": 1, "turns": "ab"}, ["'turns' is 'ab'"]),
    ({"question_id": 1, "turns": ["a", "b"], "reference": "ab"}, ["'reference' is 'ab'"]),
    ({"question_id": 1, "turns": ["a", "b"], "reference": [None, "b"]}, ["number 1 of 'reference' is None"])], ids=str)
def test_bad_question_is_named(tmp_path, question, words):
    with pytest.raises(InputError) as refused:
        load_questions(save(tmp_path, ASKED, question))
    assert "\n" not in str(refused.value)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(("content", "words"), [
    ("", "holds no records"), ("hello", "line 1 is no JSON"), (None, "no such file")])
def test_bad_question_file_is_refused(tmp_path, content, words):
    path = tmp_path / "questions.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=words) as refused:
        load_questions(path)
    assert str(refused.value).startswith(f"--questions {path}")


@pytest.mark.slow
def test_the_second_turn_sees_the_first_answer(tokenizer):
    model = make_model(n_positions=256)
    questions = [ASKED, ASKED | {"question_id": 8, "turns": ["Say hello to everybody.", "Once more."]}]
    first, second = answer_both(model, tokenizer, questions, "phi3", 9)
    for question, one, two in zip(questions, first, second):
        messages = [{"role": "user", "content": question["turns"][0]}, {"role": "assistant", "content": one["answer"]},
                    {"role": "user", "content": question["turns"][1]}]
        for upto, expected in ((1, one), (3, two)):
            prompt = encode_prompt({"messages": messages[:upto]}, tokenizer, "phi3")
            [alone] = continue_all(model, [prompt], 9, tokenizer.eot_id)
            assert expected == {"answer": tokenizer.decode(alone.ids).strip(), "stopped": alone.stopped}


def test_a_question_without_room_is_refused_before_any_work(tokenizer, monkeypatch):
    monkeypatch.setattr("ch_instruct.evaluation.two_turn.continue_all", None)
    questions = [ASKED, ASKED | {"question_id": 8, "turns": ["a" * 80, "b" * 80]}]
    with pytest.raises(InputError, match=r"Question 8 has \d+ tokens, and its first answer may add 64; .* reads 256"):
        answer_both(make_model(n_positions=256), tokenizer, questions, "phi3", 64)


def test_answers_have_the_format_of_mt_bench():
    questions = [ASKED, ASKED | {"question_id": "b"}]
    lines = [json.loads(line) for line in answer_lines(questions, [given("3", "drei"), given("7", "Ä")], "mine").splitlines()]
    assert [line["question_id"] for line in lines] == [7, "b"]
    assert [line["choices"] for line in lines] == [[{"index": 0, "turns": ["3", "7"]}], [{"index": 0, "turns": ["drei", "Ä"]}]]
    for line in lines:
        assert set(line) == {"question_id", "answer_id", "model_id", "choices", "tstamp"} and line["model_id"] == "mine"
        assert isinstance(line["tstamp"], float)
    assert lines[0]["answer_id"] != lines[1]["answer_id"]


def test_turns_are_scored_apart_and_only_where_a_reference_is():
    questions = [ASKED, ASKED | {"reference": ["3"]}, ASKED | {"reference": ["", " "]}, ASKED | {"reference": None}]
    first, second = score_turns(questions, [given("3", "4", "3", "3"), given("7.", "8", "8", "8")])
    assert (first["count"], first["exact_match"]) == (2, 0.5)
    assert (second["count"], second["exact_match"], second["rouge_l"]) == (1, 1.0, 1.0)
    assert score_turns(questions[2:], [given("3", "3"), given("7", "7")]) == [None, None]


@pytest.mark.slow
def test_the_command(in_process, tmp_path):
    save_pretrained(make_model(n_positions=512), Tokenizer.from_merges([]), tmp_path / "cwd" / "model")
    options = ["ch_instruct/evaluation/two_turn.py", "--model", "model", "--out", tmp_path / "answers.jsonl",
               "--max-new-tokens", 8]
    told = in_process(*options).stdout
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [line["question_id"] for line in lines] == list(range(1, 13))
    assert all(line["model_id"] == "model" and len(line["choices"][0]["turns"]) == 2 for line in lines)
    assert "turn 1         12" in told and "turn 2         12" in told
    assert_refused(in_process(*options), "already exists")
