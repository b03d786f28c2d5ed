"""The forms in which other people's records come, and the tables they come in."""

import csv
import json

import pytest

from ch_instruct.records import load_records, save_records
from ch_instruct.support.data_files import read_file
from ch_instruct.support.data_forms import to_record
from common.support.files import InputError
from tests.ch_instruct.test_records import assert_load_refused, assert_one_sentence, said, save

WANTED = {"instruction": "Name a color.", "output": "red"}
TALK = said("system: Be brief.", "user: Name a color.", "assistant: red")


def share(*turns: tuple[str, str]) -> dict:
    return {"id": "x1", "conversations": [{"from": sender, "value": value} for sender, value in turns]}


@pytest.mark.parametrize(("row", "form", "record"), [
    (WANTED | {"input": "x"}, "Alpaca", WANTED | {"input": "x"}),
    ({"prompt": "Name a color.", "completion": "red"}, "prompt and completion", WANTED),
    ({"question": "Name a color.", "answer": "red", "id": 3}, "question and answer", WANTED | {"id": 3}),
    ({"messages": TALK}, "OpenAI messages", {"messages": TALK}),
    ({"messages": [{"role": "user", "name": "Ada", "tool_calls": None, "content": [
        {"type": "text", "text": "Name a "}, {"type": "text", "text": "color."}]}, TALK[2]], "tools": []},
     "OpenAI messages", {"messages": TALK[1:], "tools": []}),
    (share(("system", "Be brief."), ("human", "Name a color."), ("gpt", "red")), "ShareGPT conversations",
     {"id": "x1", "messages": TALK})], ids=lambda value: value if isinstance(value, str) else "")
def test_each_form_is_recognised_by_its_keys(tmp_path, row, form, record):
    assert to_record(row, "here") == (form, record)
    loaded = load_records(save(tmp_path / "a.jsonl", [row, row]))
    assert loaded.form == f"2 {form}"
    assert all(record.items() <= one.items() and one["output"] == "red" for one in loaded.records)


def test_forms_may_be_mixed_and_are_counted(tmp_path):
    rows = [WANTED, {"question": "q", "answer": "a"}, WANTED]
    assert load_records(save(tmp_path / "a.json", rows)).form == "2 Alpaca, 1 question and answer"


def test_fields_say_what_is_what():
    row = {"q": "Name a color.", "a": "red", "topic": "colors", "context": "paint", "answer": "blue", "question": "which?"}
    assert to_record(row, "here", ["instruction=q", "output=a", "family=topic", "input=context"])[1] == WANTED | {
        "family": "colors", "input": "paint", "answer": "blue", "question": "which?"}


@pytest.mark.parametrize(("row", "fields", "words"), [
    ({"lang": 3, "q": "a?", "a": "b"}, None, ["of no known form (its keys: 'lang', 'q', 'a')",
                                              "--fields instruction=q output=a"]),
    ({"text": "all in one"}, None, ["its keys: 'text'", "--fields instruction=KEY output=KEY"]),
    ({"q": "a?", "b": "c"}, ["instruction=q", "output=a"], ["has no 'a' (it has 'q', 'b')", "change --fields output=a"]),
    ({"question": "a", "answer": {"text": ["b"]}}, None, ["'answer' is {'text': ['b']}; it must be a text"]),
    ({"messages": TALK, "tools": [{"name": "search"}]}, None, ["has 'tools': calling tools is not taught"]),
    ({"messages": [*TALK[:2], {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}]}, None,
     ["message 3 has 'tool_calls'"]),
    ({"messages": [*TALK, {"role": "tool", "content": "42"}]}, None, ["message 4 has 'role tool'"]),
    (share(("human", "a"), ("function_call", "f()")), None, ["message 2 has 'role function_call'"]),
    (share(("human", "a"), ("bing", "b")), None, ["message 2 has the role 'bing'; assistant belongs there"]),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, TALK[2]]}, None,
     ["message 1 has a part of type 'image_url'; only text"])], ids=str)
def test_what_cannot_be_learnt_is_refused_by_name(tmp_path, row, fields, words):
    data = save(tmp_path / "a.json", [row])
    with pytest.raises(InputError) as refused:
        load_records(data, fields=fields)
    assert_one_sentence(str(refused.value), data, "record 1", *words)


def test_known_sets_need_no_fields():
    with pytest.raises(InputError, match="the keys of classroom are known"):
        load_records("classroom", fields=["instruction=q"])


TEXTS = [{"question": "Wer, wo?\n\"Hier\"", "answer": "Ä 你好 🙂; x"}, {"question": "b" * 200_000, "answer": "\tc"}]


@pytest.mark.parametrize("sign", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv_is_read_as_it_was_written(tmp_path, sign, encoding):
    with open(tmp_path / "a.csv", "w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer"], delimiter=sign)
        writer.writeheader()
        writer.writerows(TEXTS)
    assert read_file(tmp_path / "a.csv") == TEXTS


@pytest.mark.parametrize(("content", "words"), [
    ("", ["holds no records"]), ("question,answer\n", ["holds no records"]), ("question,answer\na,b\nc\n", ["record 2"]),
    ("question,answer\na,b,c\n", ["record 1", "more or fewer cells"]), ('question,answer\n"a,b\n', ["no CSV in UTF-8"]),
    ("question,answer\nä,b\n".encode("latin-1"), ["no CSV in UTF-8"])], ids=str)
def test_broken_tables_are_refused(tmp_path, content, words):
    assert_load_refused(save(tmp_path / "a.csv", content), *words)


def test_parquet_with_nested_messages_and_other_types(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    import datetime
    rows = [{"messages": TALK, "day": datetime.date(2024, 2, 3)}, {"question": "q", "answer": "a"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows, pyarrow.schema([
        ("messages", pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]))),
        ("day", pyarrow.date32()), ("question", pyarrow.string()), ("answer", pyarrow.string())])), tmp_path / "a.parquet")
    one, two = load_records(str(tmp_path / "a.parquet")).records
    assert one["messages"] == TALK and one["day"] == "2024-02-03" and two == {"instruction": "q", "output": "a"}
    assert_load_refused(save(tmp_path / "b.parquet", b"PAR1 and no more"), "no Parquet file")


@pytest.mark.parametrize("name", ["b.json", "b.jsonl"])
def test_saved_records_are_read_again_as_the_same(tmp_path, name):
    rows = [WANTED | {"family": "f"}, share(("human", "a\u2028b"), ("gpt", "c"), ("human", "d"), ("gpt", "e"))]
    loaded = load_records(save(tmp_path / "a.jsonl", rows))
    save_records(tmp_path / "new" / name, loaded.records)
    again = load_records(str(tmp_path / "new" / name))
    assert again.records == loaded.records and again.form == "1 Alpaca, 1 OpenAI messages"


@pytest.mark.slow
def test_a_table_of_ones_own_trains_and_is_saved(in_process, tmp_path):
    with open(tmp_path / "a.csv", "w", newline="") as file:
        csv.writer(file).writerows([["q", "a"], *[[f"What is {n} plus 1?", f"{n + 1}"] for n in range(30)]])
    command = ["ch_instruct/train.py", "--smoke", "--data", tmp_path / "a.csv", "--fields", "instruction=q", "output=a",
               "--save-data", tmp_path / "b.jsonl", "--out"]
    done = in_process(*command, tmp_path / "run")
    assert done.returncode == 0 and "read: 30 instruction=q output=a" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert rows[3] == {"instruction": "What is 3 plus 1?", "output": "4"} and len(rows) == 30
    assert "give a new file" in in_process(*command, tmp_path / "other").stderr


def test_a_key_that_cannot_be_typed_is_not_proposed():
    with pytest.raises(InputError) as refused:
        to_record({"\r": "x", "ids": "y"}, "record 1")
    assert "\r" not in str(refused.value) and str(refused.value).endswith("--fields instruction=KEY output=KEY.")
