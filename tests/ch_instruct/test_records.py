import gzip
import itertools
import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ch_instruct.encoding import encode_records
from ch_instruct.prompts import format_prompt
from ch_instruct.records import (
    _groups,
    check_characters,
    last_turn,
    load_questions,
    load_records,
    read_ahead,
    split_places,
    split_records,
    without_questions,
)
from ch_pretrain import classroom
from common.pretrained import load_pretrained
from common.support import runs
from common.support.files import InputError
from common.tokenizer import Tokenizer

GOOD = {"instruction": "Name a color.", "input": "", "output": "red"}
BYTES = Tokenizer.from_merges([])


def save(path: Path, content: object) -> str:
    """Write text, bytes, or anything else as JSON (a list as JSON lines, for .jsonl); give the name for --data."""
    if path.suffix == ".jsonl" and isinstance(content, list):
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
    if not isinstance(content, (str, bytes)):
        content = json.dumps(content, ensure_ascii=False)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def assert_one_sentence(message: str, *words: str) -> None:
    assert "\n" not in message and message.endswith("."), message
    for word in words:
        assert word in message, f"{word!r} is not in {message!r}"


def assert_load_refused(data: str, *words: str) -> None:
    with pytest.raises(InputError) as refused:
        load_records(data)
    assert_one_sentence(str(refused.value), data, *words)


def numbered(count: int, **fields: str) -> list[dict]:
    return [GOOD | {"instruction": f"Question {i}?"} | fields for i in range(count)]


def as_bag(records: list[dict]) -> Counter:
    return Counter(tuple(sorted(record.items())) for record in records)


# Reading


def test_what_is_read_ahead_is_read_once_and_of_the_file_as_it_is(tmp_path, capsys):
    file = save(tmp_path / "a.json", [{"q": "a", "output": "b", "note": "x"}])
    fields = ["instruction=q", "output=output"]  # a list, as the command line gives it
    for _ in range(2):
        read_ahead(file, fields=fields, bad_rows="refuse")
    assert capsys.readouterr().out.count("not used: note") == 1
    assert load_records(file, fields=fields).records[0]["instruction"] == "a" and capsys.readouterr().out == ""
    save(tmp_path / "a.json", [GOOD] * 2)
    read_ahead(file, fields=None, bad_rows="refuse")
    assert len(load_records(file).records) == 2
    read_ahead(file, fields=None, bad_rows="refuse")
    save(tmp_path / "a.json", [GOOD])
    os.utime(file, ns=(1, 1))  # two writes may come within one tick of the clock
    assert load_records(file).records == [GOOD]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_records_are_read_as_they_are(tmp_path, name, capsys):
    rows = [GOOD, {"instruction": " Greet. ", "output": "Hello\n\tÄ 你好 🙂 \\ \" </s>", "family": "talk"}]
    loaded = load_records(save(tmp_path / name, rows))
    assert loaded.records == rows and loaded.rows == [1, 2] and capsys.readouterr().out == ""


@pytest.mark.parametrize(("name", "form"), [("a.json", ".jsonl"), ("a.jsonl", ".json"), ("A.JSON", ".json"),
                                            ("a.ndjson", ".jsonl"), ("a.jsonl.gz", ".jsonl"), ("a.JSON.GZ", ".json")])
def test_the_content_says_which_kind_of_json_it_is(tmp_path, name, form):
    content = Path(save(tmp_path / f"plain{form}", [GOOD, GOOD | {"output": "blau é 蓝"}])).read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.lower().endswith("gz") else content)
    assert [record["output"] for record in load_records(str(tmp_path / name)).records] == ["red", "blau é 蓝"]


@pytest.mark.parametrize("content", [json.dumps(GOOD), json.dumps(GOOD, indent=2)], ids=["one line", "several lines"])
def test_a_single_object_is_a_single_record(tmp_path, content):
    assert load_records(save(tmp_path / "a.json", content)).records == [GOOD]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_byte_order_mark_is_skipped(tmp_path, name):
    plain = save(tmp_path / name, [GOOD])
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + Path(plain).read_bytes())
    assert load_records(plain).records == [GOOD]


def test_json_lines_may_have_empty_lines_and_other_line_ends(tmp_path):
    line = json.dumps(GOOD)
    assert load_records(save(tmp_path / "a.jsonl", f"\r\n{line}\r\n\n  \n{line}")).records == [GOOD, GOOD]


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"])
def test_only_line_feeds_end_json_lines(tmp_path, sign):
    """Some other signs count as line ends too, but not in JSON lines, where most writers leave them as they are."""
    rows = [GOOD | {"output": f"one{sign}two"}, GOOD]
    assert load_records(save(tmp_path / "a.jsonl", rows)).records == rows


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@settings(deadline=None, max_examples=60)
@given(texts=st.lists(st.text(), min_size=3, max_size=3))
def test_every_text_survives(tmp_path_factory, name, texts):
    row = {"instruction": "x" + texts[0], "input": texts[1], "output": texts[2] + "x"}
    folder = tmp_path_factory.getbasetemp()
    assert load_records(save(folder / name, [row])).records == [row]
    [example] = encode_records([row], BYTES, "alpaca", 10_000, "error").examples
    assert BYTES.decode(example.ids[:-1]) == format_prompt(row) + row["output"]


@pytest.mark.slow
def test_classroom():
    assert load_records("classroom").records == classroom.records()


@pytest.mark.slow
def test_the_classroom_is_what_it_always_was():
    """Records, split, ids and masks, bit for bit: figures of earlier runs stand beside those of later ones."""
    records = load_records("classroom").records
    _, tokenizer = load_pretrained("classroom")
    examples = encode_records(records, tokenizer, "alpaca", 256, "error").examples
    found = [runs.data_hash(part) for part in (records, split_places(records, 0), [[e.ids, e.spans] for e in examples],
                                               split_places(numbered(500), 3))]
    assert [digest[:16] for digest in found] == ["c0472cb1399a0188", "b4635ddaf974eb36", "bf9e070c801fae1c", "ccac6d00c010eac3"]


# Refusals


def test_missing_file(tmp_path):
    assert_load_refused(str(tmp_path / "none.json"), "no such file")


def test_folder_instead_of_a_file(tmp_path):
    (tmp_path / "folder.json").mkdir()
    assert_load_refused(str(tmp_path / "folder.json"))


@pytest.mark.parametrize("name", ["a.txt", "a.json.bz2", "a", "a.parquet.gz"])
def test_other_ending(tmp_path, name):
    assert_load_refused(save(tmp_path / name, [GOOD]), ".json, .jsonl, .ndjson, .csv, .tsv, .parquet")


def test_what_only_claims_to_be_packed_is_refused(tmp_path):
    packed = gzip.compress(json.dumps([GOOD] * 50).encode())
    for content in (b"[]", packed[:-20]):
        assert_load_refused(save(tmp_path / "a.json.gz", content), "a.json.gz")


@pytest.mark.parametrize(("name", "content"), [
    ("a.json", "[{"), ("a.json", "instruction,output"), ("a.jsonl", '{"instruction": "a"'),
    ("a.json", b"\xff\xfe[]"), ("a.jsonl", '{"a": "\xe4"}'.encode("latin-1")), ("a.json", "<!DOCTYPE html>"),
    ("a.json", "[" * 100_000)],
    ids=["cut off", "csv", "line cut off", "utf-16", "latin-1", "html", "very deep"])
def test_what_is_no_json(tmp_path, name, content):
    assert_load_refused(save(tmp_path / name, content), "JSON")


def test_bad_line_is_named(tmp_path):
    line = json.dumps(GOOD)
    data = save(tmp_path / "a.jsonl", f"{line}\n{line}\n{line[:-1]}\n{line}\n")
    with pytest.raises(InputError, match=r"(line|record) 3\b"):
        load_records(data)


@pytest.mark.parametrize("content", ["text", 3, None], ids=repr)
def test_not_a_list(tmp_path, content):
    assert_load_refused(save(tmp_path / "a.json", json.dumps(content)), f"not a {type(content).__name__}")


def test_records_inside_an_object_are_pointed_at(tmp_path):
    assert_load_refused(save(tmp_path / "a.json", {"version": 1, "data": [GOOD] * 2}), "if its 'data' are the records, save")


@pytest.mark.parametrize(("name", "content"), [("a.json", "[]"), ("a.json", ""), ("a.jsonl", ""), ("a.jsonl", "\n \n")])
def test_no_records(tmp_path, name, content):
    assert_load_refused(save(tmp_path / name, content), "no records")


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize(("bad", "words"), [
    ("text", ["must be an object"]), (None, ["must be an object"]), ([GOOD], ["must be an object"]),
    ({"output": "b"}, ["no 'instruction'", "'output'"]), ({"instruction": "a"}, ["no 'output'", "'instruction'"]),
    ({}, ["of no known form", "nothing"]), ({"ask": "a", "say": "b"}, ["'ask', 'say'", "instruction=ask output=say"]),
    (GOOD | {"instruction": 3}, ["'instruction' is 3", "must be a text"]),
    (GOOD | {"output": ["a", "b"]}, ["'output'", "must be a text"]),
    (GOOD | {"split": "dev"}, ["'split' is 'dev'", "train, validation or test"]),
    (GOOD | {"split": ["train"]}, ["'split'"])], ids=repr)
def test_bad_record_is_named_or_skipped(tmp_path, name, bad, words):
    file = save(tmp_path / name, [GOOD, GOOD, bad, GOOD])
    assert_load_refused(file, "record 3", *words, "--bad-rows skip leaves this one of 4 records out")
    loaded = load_records(file, bad_rows="skip")
    assert loaded.records == [GOOD] * 3 and loaded.rows == [1, 2, 4] and list(loaded.skipped) == [3]
    assert all(word in loaded.skipped[3] for word in words)


def test_many_bad_rows_are_counted_and_three_shown(tmp_path, capsys):
    line = json.dumps(GOOD)
    rows = [line, '{"instruction": "a"', line, '{"instruction": "a", "instruction": "b", "output": "c"}', '"text"', line, "[1]"]
    file = save(tmp_path / "a.jsonl", "\n".join(rows))
    assert_load_refused(file, "line 2 is no JSON", "4 of 7 records cannot be used (also record 4 has the key "
                        "'instruction' twice, record 5 is a str)", "--bad-rows skip leaves them out")
    capsys.readouterr()
    assert load_records(file, bad_rows="skip").rows == [1, 3, 6]
    assert "skipped, cannot be used: 4 (rows 2, 4, 5, 7); the first: --data " in capsys.readouterr().out


def test_a_file_of_bad_rows_alone_is_refused_even_if_they_may_be_skipped(tmp_path):
    file = save(tmp_path / "a.json", [{"text": "a"}, {"text": "b"}])
    for bad_rows in ("refuse", "skip"):
        with pytest.raises(InputError, match="none of the 2 records can be used"):
            load_records(file, bad_rows=bad_rows)


@pytest.mark.parametrize("key", ["input", "family", "split"])
def test_null_is_what_is_not_there(tmp_path, key):
    [record] = load_records(save(tmp_path / "a.json", [GOOD | {key: None}])).records
    assert record == {name: text for name, text in GOOD.items() if name != key}


def test_numbers_are_written_out(tmp_path):
    rows = [GOOD | {"output": value, "input": 3} for value in (7, -2.5, 0, True)]
    assert [(r["output"], r["input"]) for r in load_records(save(tmp_path / "a.json", rows)).records] == [
        ("7", "3"), ("-2.5", "3"), ("0", "3"), ("true", "3")]


@pytest.mark.parametrize("written", ["3.10", "1E3", "1e400", "-0.0"])
def test_a_number_is_the_answer_as_it_is_written(tmp_path, written):
    [record] = load_records(save(tmp_path / "a.json", json.dumps([GOOD | {"output": 7}]).replace("7", written))).records
    assert record["output"] == written


def test_half_a_surrogate_pair_is_refused(tmp_path):
    """JSON can spell it, but it is no text: no file could be written of it after the training."""
    assert_load_refused(save(tmp_path / "a.json", '[{"instruction": "a", "output": "\\ud83d"}]'), "record 1")


@pytest.mark.parametrize(("text", "refused"), [
    ("\ud800", True), ("a\udbff b", True), ("\udc00", True), ("é" * 99 + "\udfff", True), ("\ud83d\ude00", True),
    ("", False), ("\ud7ff\ue000\uffff", False), ("\U0001f600 \x00", False)])
def test_every_half_of_a_surrogate_pair_is_found_and_nothing_else(text, refused):
    if refused:
        with pytest.raises(InputError, match="record 7 holds half of a surrogate pair"):
            check_characters(text, "record 7")
    else:
        check_characters(text, "record 7")


def test_all_outputs_empty(tmp_path):
    assert_load_refused(save(tmp_path / "a.json", [GOOD | {"output": ""}, GOOD | {"output": " \n"}]), "no record is left")


# Notes


def test_empty_records_are_left_out_and_noted(tmp_path, capsys):
    rows = numbered(6)
    rows[1]["output"], rows[3]["instruction"], rows[4]["output"] = None, " ", "\n\t"
    file = save(tmp_path / "a.json", rows)
    assert load_records(file, "--target").records == [rows[0], rows[2], rows[5]]
    assert capsys.readouterr().out == f"--target {file}, left out, instruction, output or message empty: 3 (rows 2, 4, 5)\n"


def test_questions_need_no_output(tmp_path):
    talk = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
    rows = [{"instruction": "a"}, {"instruction": "b", "output": " "}, {"instruction": " "}, GOOD, talk]
    file = save(tmp_path / "a.json", rows)
    assert [record["output"] for record in load_questions(file).records] == ["", " ", GOOD["output"], "Hello."]


def test_conversations_that_end_with_the_user_are_questions(tmp_path):
    talk = [*TALK, *said("user: And now?")]
    file = save(tmp_path / "a.jsonl", [{"messages": talk}, {"messages": TALK}, {"question": "Why?"}, {"prompt": talk[:2]}])
    records = load_questions(file).records
    assert [(r["instruction"], r["output"]) for r in records] == [
        ("And now?", ""), ("One more?", "blue"), ("Why?", ""), ("Name a color.", "")]
    assert format_prompt(records[0], "phi3").endswith("<|Assistant|>\nblue\n\n<|User|>\nAnd now?\n\n<|Assistant|>\n")
    with pytest.raises(InputError, match="ends with the user"):
        load_records(file)


@pytest.mark.slow
def test_the_questions_of_the_classroom_are_its_test_part():
    loaded, records = load_questions("classroom"), classroom.records()
    assert loaded.records == [record for record in records if record["split"] == "test"]
    assert [records[row - 1] for row in loaded.rows] == loaded.records


def test_repeated_records_are_kept_and_noted(tmp_path, capsys):
    rows = numbered(3) + numbered(2) + [GOOD | {"instruction": "Question 0?", "output": "blue"}]
    file = save(tmp_path / "a.jsonl", rows)
    assert load_records(file).records == rows
    assert capsys.readouterr().out == f"--data {file}, exact repetitions of earlier records (kept): 2 (rows 4, 5)\n"


def test_missing_input_is_the_same_as_an_empty_one(tmp_path, capsys):
    file = save(tmp_path / "a.json", [GOOD, {"instruction": GOOD["instruction"], "output": "red"}])
    load_records(file)
    assert capsys.readouterr().out == f"--data {file}, exact repetitions of earlier records (kept): 1 (row 2)\n"


def test_long_lists_of_rows_are_cut(tmp_path, capsys):
    file = save(tmp_path / "a.json", [GOOD, *[GOOD | {"output": ""}] * 20])
    load_records(file)
    assert capsys.readouterr().out == (f"--data {file}, left out, instruction, output or message empty: "
                                       "20 (rows 2, 3, 4, 5, 6, 7, 8, 9, ...)\n")


# Splitting


def test_named_splits_are_followed():
    rows = [GOOD | {"split": split, "id": i} for i, split in enumerate(["test", "train", "train", "validation", "test"])]
    parts = split_records(rows, seed=0)
    assert {split: [row["id"] for row in part] for split, part in parts.items()} == {
        "train": [1, 2], "validation": [3], "test": [0, 4]}


def test_named_splits_need_no_validation_part():
    assert split_records([GOOD | {"split": "train"}, GOOD | {"split": "test"}], seed=0)["validation"] == []


@pytest.mark.parametrize("missing", ["train", "test"])
def test_named_splits_need_training_and_test_parts(missing):
    rows = [GOOD | {"split": split} for split in ("train", "validation", "test") if split != missing]
    with pytest.raises(InputError) as refused:
        split_records(rows, seed=0)
    assert_one_sentence(str(refused.value), f"No record has the 'split' '{missing}'", "take 'split' out of all records")


def test_questions_of_the_training_part_that_are_tested_are_told(capsys):
    rows = [*numbered(4, split="train"), *numbered(2, split="test"), GOOD | {"split": "test", "instruction": "new"}]
    split_records(rows, seed=0)
    assert "Warning: 2 of 3 test records ask what a training record asks, too" in capsys.readouterr().out
    split_records(rows[2:4] + rows[6:], seed=0)
    assert capsys.readouterr().out == ""


def test_some_records_with_a_split_and_some_without():
    with pytest.raises(InputError) as refused:
        split_records([*numbered(2, split="train"), *numbered(3)], seed=0)
    assert_one_sentence(str(refused.value), "2 of 5", "'split'")


def test_random_split_has_the_stated_shares():
    parts = split_records(numbered(200), seed=0)
    assert {split: len(part) for split, part in parts.items()} == {"train": 170, "validation": 10, "test": 20}


def test_random_split_depends_on_the_seed_alone():
    records = numbered(60)
    random.seed(1)
    once = split_records(records, seed=4)
    random.seed(2)
    assert split_records(records, seed=4) == once
    assert split_records(records, seed=5) != once
    assert records == numbered(60)


@pytest.mark.slow
@settings(max_examples=60)
@given(questions=st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["", "x"]), st.sampled_from("uv")),
                          min_size=3, max_size=30), seed=st.integers(0, 100))
def test_equal_questions_stay_in_one_part(questions, seed):
    records = [{"instruction": i, "input": x, "output": o} for i, x, o in questions] + numbered(10)
    parts = split_records(records, seed)
    assert sum(map(as_bag, parts.values()), Counter()) == as_bag(records)
    asked = [{(record["instruction"], record["input"]) for record in part} for part in parts.values()]
    assert sum(map(len, asked)) == len(set.union(*asked))
    assert all(parts.values())


def test_a_question_within_a_conversation_is_one_too():
    """Conversations that are written out turn by turn: the first question of the longer one is that of the shorter."""
    def talk(*texts: str) -> dict:
        return last_turn({"messages": [{"role": role, "content": text}
                                       for role, text in zip(itertools.cycle(("user", "assistant")), texts)]})

    records = [one for n in range(20) for one in (
        talk(f"q{n}", "a"), talk(f"q{n}", "a", "why?", "b"), {"instruction": f"q{n}", "input": "", "output": "c"},
        talk(f"other {n}", "a", "why?", "b"))]
    assert _groups(records)[:4] == [[0, 1, 2], [3], [4, 5, 6], [7]]
    joined = [talk("x", "a"), talk("y", "a"), talk("x", "a", "y", "b"), talk("y", "c", "z", "d"), talk("z", "d")]
    assert _groups(joined) == [[0, 2], [1, 3], [4]]
    assert _groups([*joined, talk("x", "c", "x", "d"), talk("y", "e")]) == [[0, 2, 5], [1, 3, 6], [4]]
    parts = split_places(records, 0)
    assert all(len({place // 4 for place in part if place % 4 < 3}) * 3 == sum(place % 4 < 3 for place in part)
               for part in parts.values())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("often", "wanted"), [((45,), [85, 5, 10]), ((30, 30), [85, 5, 10]), ((11,), [85, 5, 10])])
def test_one_frequent_question_does_not_spoil_the_split(seed, often, wanted, capsys):
    """A question that is asked more often than a part has room goes to training."""
    records = [GOOD | {"instruction": f"Often {n}?", "output": str(i)} for n, count in enumerate(often) for i in range(count)]
    records += numbered(100 - len(records))
    random.Random(seed).shuffle(records)
    parts = split_records(records, seed)
    assert [len(part) for part in parts.values()] == wanted
    assert not [record for split in ("validation", "test") for record in parts[split] if "Often" in record["instruction"]]
    assert capsys.readouterr().out.splitlines() == [
        "Split by --seed: 85 / 5 / 10 records for train, validation, test (wanted: 85% / 5% / 10%)"]


def test_where_all_questions_are_frequent_each_part_gets_one(capsys):
    records = [GOOD | {"instruction": f"Question {n}?", "output": str(i)} for n in range(4) for i in range(10 + n)]
    parts = split_records(records, seed=0)
    assert {split: sorted({r["instruction"] for r in part}) for split, part in parts.items()} == {
        "train": ["Question 2?", "Question 3?"], "validation": ["Question 1?"], "test": ["Question 0?"]}
    assert "25 / 11 / 10 records" in capsys.readouterr().out


@pytest.mark.slow
@settings(max_examples=60)
@given(counts=st.lists(st.integers(1, 12), min_size=3, max_size=40), seed=st.integers(0, 50))
def test_no_part_is_larger_than_wanted_unless_every_question_is(counts, seed):
    records = [{"instruction": str(n), "output": "a"} for n, count in enumerate(counts) for _ in range(count)]
    parts = split_records(records, seed)
    for split, share in (("test", 0.1), ("validation", 0.05)):
        wanted = max(1, round(share * len(records)))
        assert len(parts[split]) <= max(wanted, min(counts)) or len({r["instruction"] for r in parts[split]}) == 1
    assert parts["train"] and parts["test"]


def test_three_records_are_enough_for_a_random_split():
    assert [len(part) for part in split_records(numbered(3), seed=0).values()] == [1, 1, 1]


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_records_for_a_random_split(count):
    with pytest.raises(InputError) as refused:
        split_records(numbered(count), seed=0)
    assert_one_sentence(str(refused.value), "at least 3")


# Conversations


def said(*turns: str) -> list[dict]:
    """"user: Hello." and so on as messages."""
    return [dict(zip(("role", "content"), turn.split(": ", 1))) for turn in turns]


TALK = said("system: Be brief.", "user: Name a color.", "assistant: red", "user: One more?", "assistant: blue")


def test_conversations_are_read_with_the_texts_of_their_last_turn(tmp_path):
    rows = [{"messages": TALK, "family": "talk"}, GOOD, {"messages": TALK[1:3], "input": None, "output": 3}]
    one, two, three = load_records(save(tmp_path / "a.jsonl", rows)).records
    assert one == rows[0] | {"instruction": "One more?", "output": "blue",
                             "input": "System: Be brief.\nUser: Name a color.\nAssistant: red"}
    assert two == GOOD
    assert three == {"messages": TALK[1:3], "instruction": "Name a color.", "input": "", "output": "red"}


@pytest.mark.parametrize(("messages", "words"), [
    ("hello", ["'messages' is 'hello'", "must be a list"]), ([], ["'messages' is []"]), (None, ["'messages' is None"]),
    (["hello"], ["message 1 is 'hello'", "a role and a text as content"]),
    ([{"role": "user"}], ["message 1", "a role and a text as content"]),
    ([{"role": "user", "content": None}, *TALK[2:]], ["message 1", "'content': None"]),
    ([{"role": "user", "content": ["a"]}, *TALK[2:]], ["message 1", "['a']"]),
    ([{"content": "a"}, *TALK[2:]], ["message 1 has the role None", "user or system belongs there"]),
    (said("bot: a", "gpt: b"), ["message 1 has the role 'bot'", "user or system"]),
    (said("user: a", "bot: b"), ["message 2 has the role 'bot'", "assistant belongs there"]),
    ([{"role": ["user"], "content": "a"}], ["message 1 has the role ['user']"]),
    (said("user: a", "user: b", "assistant: c"), ["message 2 has the role 'user'", "assistant belongs there"]),
    (said("assistant: a", "user: b"), ["message 1 has the role 'assistant'"]),
    (said("user: a", "assistant: b", "assistant: c"), ["message 3 has the role 'assistant'", "user belongs there"]),
    (said("user: a", "system: b", "assistant: c"), ["message 2 has the role 'system'", "one system message first"]),
    (said("system: a", "system: b"), ["message 2 has the role 'system'", "user belongs there"]),
    (said("user: a"), ["ends with the user", "assistant's answer"]), (said("system: a"), ["ends with the system"]),
    ([*TALK, *said("user: a")], ["ends with the user"])], ids=str)
def test_bad_conversation_is_named(tmp_path, messages, words):
    assert_load_refused(save(tmp_path / "a.json", [GOOD, {"messages": messages}]), "record 2", *words)


def test_half_a_surrogate_pair_in_a_message_is_refused(tmp_path):
    text = '[{"messages": [{"role": "user", "content": "\\ud83d"}, {"role": "assistant", "content": "b"}]}]'
    assert_load_refused(save(tmp_path / "a.json", text), "record 1, message 1", "surrogate")


def test_conversations_with_an_empty_message_are_left_out_and_repeated_ones_noted(tmp_path, capsys):
    rows = [{"messages": TALK}, {"messages": [*TALK[:3], *said("user:  ", "assistant: a")]}, {"messages": TALK},
            {"messages": TALK[1:]}]
    file = save(tmp_path / "a.json", rows)
    assert [row["messages"] for row in load_records(file).records] == [TALK, TALK, TALK[1:]]
    assert capsys.readouterr().out.splitlines() == [
        f"--data {file}, left out, instruction, output or message empty: 1 (row 2)",
        f"--data {file}, exact repetitions of earlier records (kept): 1 (row 3)"]


def test_what_another_file_holds_out_is_not_trained_on(capsys):
    """An earlier turn of a conversation is a question, too."""
    records = [*numbered(4), {"messages": TALK, "instruction": "One more?", "input": "", "output": "blue"}]
    held_out = [{"messages": TALK[:3], "instruction": "Name a color.", "input": "", "output": "red"}, records[1]]
    assert without_questions(records, [0, 1, 2, 4], held_out) == [0, 2]
    assert "2 of 4 training records ask what the other file holds out" in capsys.readouterr().out
    assert without_questions(records, [4, 0], []) == [4, 0] and capsys.readouterr().out == ""
    with pytest.raises(InputError, match="choose from other records"):
        without_questions(records, [1, 4], held_out)
