"""The forms in which other people's records come, and the tables they come in."""

import csv
import gzip
import json
import shlex
from pathlib import Path

import pytest

from ch_instruct.records import load_questions, load_records, save_records
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
    ({"prompt": "Name a color.", "response": "red", "n": 1}, "prompt and response", WANTED | {"n": 1}),
    ({"question": "Name a color.", "answer": "red", "id": 3}, "question and answer", WANTED | {"id": 3}),
    ({"question": "Name a color.", "answer": "red", "context": "It is warm."}, "question and answer",
     WANTED | {"input": "It is warm."}),
    ({"instruction": "Name a color.", "context": "It is warm.", "response": "red", "category": "qa"},
     "instruction and response", WANTED | {"input": "It is warm.", "category": "qa"}),
    ({"id": "a", "system_prompt": "", "question": "Name a color.", "response": "red"}, "question and response",
     WANTED | {"id": "a", "system": ""}),
    ({"id": "a", "system_prompt": "Be brief.", "question": "Name a color.", "response": "red"}, "question and response",
     {"id": "a", "messages": TALK}),
    (WANTED | {"input": "It is warm.", "system": "Be brief.", "history": [["Hi.", "Hello."]]}, "Alpaca", {"messages": [
        TALK[0], *said("user: Hi.", "assistant: Hello.", "user: Name a color.\n\nIt is warm.", "assistant: red")]}),
    (WANTED | {"history": TALK[:0] + said("user: Hi.", "assistant: Hello.")}, "Alpaca", {"messages": said(
        "user: Hi.", "assistant: Hello.", "user: Name a color.", "assistant: red")}),
    (WANTED | {"system": "", "history": []}, "Alpaca", WANTED),
    ({"prompt": TALK[:2], "completion": TALK[2:]}, "prompt and completion", {"messages": TALK}),
    ({"prompt": TALK[:2], "completion": "red"}, "prompt and completion", {"messages": TALK}),
    ({"system": "Be brief."} | share(("human", "Name a color."), ("gpt", "red")), "ShareGPT conversations",
     {"id": "x1", "messages": TALK}),
    ({"messages": [{"role": "human", "value": [{"type": "text", "value": "Name a "}, {"type": "input_text", "text": {
        "value": "color."}}]}, {"role": "gpt", "content": [{"type": "text", "text": "red"}]}]}, "OpenAI messages",
     {"messages": TALK[1:]}),
    ({"messages": TALK}, "OpenAI messages", {"messages": TALK}),
    ({"messages": [{"role": "user", "name": "Ada", "tool_calls": None, "content": [
        {"type": "text", "text": "Name a "}, {"type": "text", "text": "color."}]}, TALK[2]], "tools": []},
     "OpenAI messages", {"messages": TALK[1:], "tools": []}),
    (share(("system", "Be brief."), ("human", "Name a color."), ("gpt", "red")), "ShareGPT conversations",
     {"id": "x1", "messages": TALK})], ids=lambda value: value if isinstance(value, str) else "")
def test_each_form_is_recognised_by_its_keys(tmp_path, row, form, record):
    converted = to_record(row, "here")
    assert converted.form == form and record.items() <= converted.record.items()
    loaded = load_records(save(tmp_path / "a.jsonl", [row, row]))
    assert loaded.form == f"2 {form}"
    assert all(record.items() <= one.items() and one["output"] == "red" for one in loaded.records)


@pytest.mark.parametrize(("row", "unused"), [
    (WANTED | {"input": "x", "family": "f", "split": "train"}, []), (WANTED | {"id": 3, "source": "", "tags": []}, ["id"]),
    (WANTED | {"input": "x", "context": "y"}, ["context"]), (WANTED | {"input": "", "context": "y"}, []),
    (WANTED | {"context": {"a": 1}}, ["context"]), (WANTED | {"history": "a text"}, ["history"]),
    ({"question": "q", "answer": "a", "instruction": "i"}, ["instruction"]),
    ({"messages": TALK, "system": "Be kind.", "context": "x"}, ["context", "system"]),
    ({"messages": TALK, "instruction": "i", "output": "o"}, ["instruction", "output"]),
    ({"prompt": TALK[1:2], "completion": TALK[2:], "input": "x"}, ["input"]),
    ({"messages": [TALK[1] | {"name": "Ada"}, TALK[2] | {"weight": 1, "name": ""}]}, ["message name", "message weight"]),
    ({"messages": [TALK[1], TALK[2] | {"weight": 0, "train": False}]}, ["message train", "message weight"])],
    ids=str)
def test_what_is_not_used_is_named(row, unused):
    """Everything that was in the row is in the record, or named."""
    assert to_record(row, "here").unused == unused


def test_what_is_not_used_is_counted(tmp_path, capsys):
    rows = [WANTED | {"source": "a", "n": 0}, WANTED | {"instruction": "b", "source": "c", "note": None}, WANTED | {
        "instruction": "d", "note": "e", "source": " "}]
    file = save(tmp_path / "a.json", rows)
    load_records(file)
    assert capsys.readouterr().out == f"--data {file}, not used: source (3 records), n (1 record), note (1 record)\n"


def test_forms_may_be_mixed_and_are_counted(tmp_path):
    rows = [WANTED, {"question": "q", "answer": "a"}, WANTED]
    assert load_records(save(tmp_path / "a.json", rows)).form == "2 Alpaca, 1 question and answer"


def test_fields_say_what_is_what():
    row = {"q": "Name a color.", "a": "red", "topic": "colors", "context": "paint", "answer": "blue", "question": "which?"}
    assert to_record(row, "here", ["instruction=q", "output=a", "family=topic", "input=context"])[1] == WANTED | {
        "family": "colors", "input": "paint", "answer": "blue", "question": "which?"}


def test_what_fields_name_goes_before_a_key_of_our_name():
    """A key called input that --fields passes over is not the input, also where the named one is empty."""
    for context in ("paint", None):
        row = {"q": "Name a color.", "a": "red", "input": "id 7", "context": context, "system": "none"}
        _, record, unused = to_record(row, "here", ["instruction=q", "output=a", "input=context", "system=s"])
        assert record.get("input") == context and "id 7" not in record.values() and {"input", "system"} <= {*unused}


def test_a_field_that_no_record_has_is_refused(tmp_path):
    data = save(tmp_path / "a.json", [WANTED, WANTED | {"topic": "x"}])
    assert [r.get("family") for r in load_records(data, fields=["family=topic"]).records] == [None, "x"]
    with pytest.raises(InputError, match="no record has the key 'topics'; change --fields family=topics"):
        load_records(data, fields=["family=topics"])


def test_a_system_message_may_be_empty(tmp_path):
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    for nothing in ("", None):
        rows = [{"messages": [{"role": "system", "content": nothing}, *talk]}]
        [record] = load_records(save(tmp_path / "a.json", rows)).records
        assert record["messages"] == talk


def test_each_field_is_given_once(tmp_path):
    with pytest.raises(InputError, match="comes twice; give each once"):
        load_records(save(tmp_path / "a.json", [{"q": "a?", "b": "c"}]), fields=["instruction=q", "output=b", "output=b"])


@pytest.mark.parametrize("text", [
    'sep=;\r\ninstruction;output\r\nHi;"a, b, c"\r\n', '\n\ninstruction,output\nHi,"a, b, c"\n',
    'instruction,output\rHi,"a, b, c"\r', 'instruction,output,"a; b; c; d"\r\nHi,"a, b, c",\r\n'])
def test_tables_of_other_programs_are_read(tmp_path, text):
    [record] = load_records(save(tmp_path / "a.csv", text)).records
    assert (record["instruction"], record["output"]) == ("Hi", "a, b, c")


def test_fields_may_add_to_a_known_form(tmp_path):
    file = save(tmp_path / "a.json", [{"question": "q", "answer": "a", "topic": 3, "reply": "b"}])
    for fields, record in ((["family=topic"], {"output": "a", "reply": "b", "family": "3"}),
                           (["output=reply"], {"output": "b", "topic": 3, "answer": "a"})):
        loaded = load_records(file, fields=fields)
        assert loaded.records == [{"instruction": "q"} | record]
        assert loaded.form == f"1 question and answer {fields[0]}"


@pytest.mark.parametrize(("row", "fields", "words"), [
    ({"lang": 3, "q": "a?", "a": "b"}, None, ["of no known form (its keys: 'lang', 'q', 'a')",
                                              "--fields instruction=q output=a"]),
    ({"text": "all in one"}, None, ["its keys: 'text'", "a record needs a question and an answer"]),
    (WANTED | {"images": ["a.png"]}, None, ["has 'images', and only text can be learnt"]),
    ({"image": "a.png"} | share(("human", "<image>\nWhat?"), ("gpt", "A cat.")), None, ["has 'image'"]),
    ({"messages": [{"role": "user", "content": [{"type": "text", "words": "a"}]}, TALK[2]]}, None,
     ["message 1 has a part of type 'text' that holds no text (its keys: 'type', 'words')"]),
    (WANTED | {"system": "s", "history": ["a", "b"]}, None, ["'history' holds 'a'; it must hold pairs"]),
    ({"prompt": "a", "completion": TALK[1:]}, None, ["message 2 has the role 'user'; assistant belongs there"]),
    ({"q": "a?", "b": "c"}, ["instruction=q", "output=a"], ["has no 'a' (it has 'q', 'b')", "change --fields output=a"]),
    ({"question": "a", "answer": {"text": ["b"]}}, None, ["'answer' is {'text': ['b']}; it must be a text"]),
    ({"messages": TALK, "tools": [{"name": "search"}]}, None,
     ["has 'tools' (where no tool is called, leave out this key): calling tools is not taught"]),
    ({"messages": [*TALK[:2], {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}]}, None,
     ["message 3 has 'tool_calls'"]),
    ({"messages": [*TALK, {"role": "tool", "content": "42"}]}, None, ["message 4 has 'role tool'"]),
    (share(("human", "a"), ("function_call", "f()")), None, ["message 2 has 'role function_call'"]),
    (share(("human", "a"), ("bing", "b")), None, ["message 2 has the role 'bing'; assistant belongs there"]),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, TALK[2]]}, None,
     ["message 1 has a part of type 'image_url', and only text"]),
    ({"paragraphs": [{"context": "c", "qas": []}], "version": 2}, None, [
        "a question and an answer, each under a key of its own (if they lie inside 'paragraphs', write a record for each)"]),
    ({"a": 1}, None, ["each under a key of its own"]),
    ({"instruction": "Name a color."}, None, ["has no 'output'", "add it, or ask these questions with respond.py"])], ids=str)
def test_what_cannot_be_learnt_is_refused_by_name(tmp_path, row, fields, words):
    data = save(tmp_path / "a.json", [row])
    with pytest.raises(InputError) as refused:
        load_records(data, fields=fields)
    assert_one_sentence(str(refused.value), data, "record 1", *words)


def test_the_fields_of_data_hold_for_a_target_of_the_same_form(tmp_path):
    """--target and --known are read beside --data: by --fields if they have these keys, else by the known forms."""
    same, other = (save(tmp_path / name, [row]) for name, row in (("a.json", {"q": "a?", "a": "b"}), ("b.json", WANTED)))
    for file, record in ((same, {"instruction": "a?", "output": "b"}), (other, WANTED), ("classroom", None)):
        found = load_records(file, "--target", ["instruction=q", "output=a"]).records
        assert record is None or found == [record]
    with pytest.raises(InputError, match="change --fields instruction=q"):
        load_records(other, fields=["instruction=q", "output=a"])


def test_known_sets_need_no_fields():
    with pytest.raises(InputError, match="the keys of classroom are known"):
        load_records("classroom", fields=["instruction=q"])


TEXTS = [{"question": "Wer, wo?\n\"Hier\"", "answer": "Ä 你好 🙂; x"}, {"question": "b" * 200_000, "answer": "\tc"}]


@pytest.mark.parametrize(("name", "sign"), [("a.csv", ","), ("a.csv", ";"), ("a.CSV", "\t"), ("a.tsv", "\t"),
                                            ("a.tsv.gz", "\t")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_tables_are_read_as_they_were_written(tmp_path, name, sign, encoding):
    with (gzip.open if name.endswith("gz") else open)(tmp_path / name, "wt", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer"], delimiter=sign)
        writer.writeheader()
        writer.writerows(TEXTS)
    assert read_file(tmp_path / name) == TEXTS


def test_commas_in_the_names_of_a_tsv_are_letters(tmp_path):
    file = save(tmp_path / "a.tsv", "question\tanswer\tone,two,three\na,b\tc\td\n")
    assert read_file(Path(file)) == [{"question": "a,b", "answer": "c", "one,two,three": "d"}]


def test_missing_values_are_treated_alike_in_all_files(tmp_path):
    """A question without context, one without an answer, one with both."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"question": "a", "context": None, "answer": "b"}, {"question": "c", "context": "d", "answer": None},
            {"question": "e", "context": "f", "answer": "g"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    lines = "question,context,answer\n" + "".join(",".join(value or "" for value in row.values()) + "\n" for row in rows)
    files = [save(tmp_path / "a.json", rows), save(tmp_path / "a.jsonl", rows), save(tmp_path / "a.csv", lines),
             save(tmp_path / "b.json", json.dumps(rows).replace("null", "NaN")), str(tmp_path / "a.parquet")]
    for file in files:
        loaded = load_records(file)
        assert loaded.rows == [1, 3] and [(r["instruction"], r.get("input", ""), r["output"]) for r in loaded.records] == [
            ("a", "", "b"), ("e", "f", "g")]


def test_a_column_that_comes_twice_is_refused(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    assert_load_refused(save(tmp_path / "a.csv", "question,answer,answer\na,b,c\n"), "the column 'answer' twice")
    parquet.write_table(pyarrow.table([["a"], ["b"], ["c"]], names=["question", "answer", "answer"]), tmp_path / "a.parquet")
    assert_load_refused(str(tmp_path / "a.parquet"), "the column 'answer' twice")
    assert_load_refused(save(tmp_path / "a.jsonl", '{"messages": [{"role": "user", "content": "a", "content": "b"}]}'),
                        "message 1 has the key 'content' twice")


# Advice: each proposed command is followed, and reads the file.


@pytest.mark.parametrize(("row", "words"), [
    ({"id": "a1", "name": "b", "instruction": "c", "instances": [{"input": "", "output": "d"}] * 2},
     "has no 'output', but its 'instances' hold some; make a record of each"),
    ({"instruction": "Add.", "input": "1 and 2"}, "has no 'output'"), ({"output": "a", "title": "b"}, "has no 'instruction'"),
    ({"name": "a", "dialogue": [{"role": "char", "content": "b"}]}, "a record needs a question and an answer"),
    ({"data": [{"title": "a", "paragraphs": []}] * 2}, "a record needs a question and an answer"),
    ({"choices": [{"turns": ["a"]}], "question_id": 3}, "a record needs a question and an answer"),
    ({"instruction": "a", "orig_instruction": "b", "instances": []}, "has no 'output'"), ({"text": "a"}, "a record needs"),
    ({"data": [{"q": "a", "a": "b"}] * 2}, "if its 'data' are the records")], ids=str)
def test_nothing_is_proposed_that_would_not_work(row, words):
    with pytest.raises(InputError) as refused:
        to_record(row, "record 1")
    assert words in str(refused.value) and "--fields" not in str(refused.value)


@pytest.mark.parametrize(("row", "proposed"), [
    ({"id": "a1", "lang": "de", "Frage": "Wo?", "Antwort": "Hier."}, "instruction=Frage output=Antwort"),
    ({"id": "a1", "url": "x", "answer_text": "red", "question_id": "q7", "question_text": "color?"},
     "instruction=question_text output=answer_text"),
    ({"instruction": "a?", "reply": "b", "source": "c"}, "instruction=instruction output=reply"),
    ({"input": "a?", "output": "b"}, "instruction=input output=output"),
    ({"query": "a?", "response": "b", "type": "c"}, "instruction=query output=response"),
    ({"User Question": "a?", "Model's answer": "b"}, "'instruction=User Question' 'output=Model'\"'\"'s answer'"),
    ({"problem": "1+1", "solution": "2", "level": 3}, "instruction=problem output=solution"),
    ({"prompt": "a", "chosen": "b", "rejected": "c"}, "instruction=prompt output=chosen"),
    ({"质问": "北京在哪？", "回答": "中国"}, "'instruction=质问' 'output=回答'"),
    ({"Nr.": "T-1", "Bereich": "Technik", "Anliegen": "Es geht nicht an.", "Lösung (final)": "Bitte neu starten."},
     "instruction=Anliegen 'output=Lösung (final)'"),
    ({"questionText": "a?", "answerText": "b", "sourceUrl": "c"}, "instruction=questionText output=answerText"),
    ({"conversation": TALK, "model": "m"}, "messages=conversation")], ids=lambda value: value if isinstance(value, str) else "")
def test_proposed_fields_work_when_they_are_typed(tmp_path, row, proposed):
    data = save(tmp_path / "a.json", [row])
    with pytest.raises(InputError) as refused:
        load_records(data)
    message = str(refused.value)
    assert message.endswith(f"as in --fields {proposed}.")
    [record] = load_records(data, fields=shlex.split(message.rstrip(".").partition("--fields ")[2])).records
    assert record["instruction"] and record["output"]
    asked = {key: value for key, value in row.items() if key not in proposed.partition("output=")[2]}
    if len(asked) < len(row) and not row.keys() & {"instruction", "prompt"}:  # only the questions, to be answered
        with pytest.raises(InputError) as refused:
            load_questions(save(tmp_path / "b.json", [asked]))
        fields = shlex.split(str(refused.value).rstrip(".").partition("--fields ")[2])
        assert load_questions(str(tmp_path / "b.json"), fields=fields).records[0]["instruction"] == record["instruction"]


PREFERRED, REJECTED = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}


@pytest.mark.parametrize(("row", "proposed"), [
    (share(("human", "a"), ("gpt", "b"), ("human", "c")) | {"rejected": {"from": "gpt", "value": "bad"}, "chosen": {
        "from": "gpt", "value": "good"}}, "messages=conversations output=chosen"),
    ({"rejected": [*TALK[:2], REJECTED], "chosen": [*TALK[:2], PREFERRED]}, "messages=chosen"),
    ({"prompt": TALK[:2], "rejected": [REJECTED], "chosen": [PREFERRED]}, "messages=prompt output=chosen"),
    ({"messages": TALK[:2], "rejected_response": "bad", "response": "good"}, "messages=messages output=response"),
    ({"question": "c", "rejected": [REJECTED], "chosen": [PREFERRED]}, "instruction=question output=chosen"),
    ({"prompt": "c", "system": "Be kind.", "rejected": "bad", "chosen": "good"}, "instruction=prompt output=chosen")], ids=str)
def test_the_better_answer_of_a_pair_can_be_learnt(tmp_path, row, proposed):
    data = save(tmp_path / "a.json", [row])
    with pytest.raises(InputError) as refused:
        load_records(data)
    assert str(refused.value).endswith(f"as in --fields {proposed}.")
    [record] = load_records(data, fields=proposed.split()).records
    assert record["output"] == "good" and "rejected" not in str(to_record(row, "here", proposed.split()).record.get("messages"))
    assert set(to_record(row, "here", proposed.split()).unused) == row.keys() & {"id", "rejected", "rejected_response"}


def test_a_conversation_without_an_answer_gets_none():
    row = {"chat": TALK[:2], "answer": ""}
    assert to_record(row, "here", ["messages=chat", "output=answer"], answered=False).record["messages"] == TALK[:2]


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
    assert one["messages"] == TALK and one["day"] == "2024-02-03"
    assert two == {"instruction": "q", "output": "a"}
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
    assert "\r" not in str(refused.value) and "--fields" not in str(refused.value)


@pytest.mark.parametrize("messages", [[], "some text", [{"role": "user", "content": "Hi"}],
                                      [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]])
def test_named_fields_go_before_a_column_called_messages(messages):
    row = {"messages": messages, "question": "What is 2+2?", "answer": "4"}
    found = to_record(row, "Row 1", ["instruction=question", "output=answer"])
    assert found.record == {"instruction": "What is 2+2?", "output": "4"}
    assert found.unused == ["messages"] * bool(messages)


def test_texts_that_parquet_keeps_as_bytes_are_texts(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts = {"question": "Where is \u00c5lesund?", "answer": "In Norway"}
    parquet.write_table(pyarrow.Table.from_pylist([{key: text.encode() for key, text in texts.items()} | {"x": b"\xff"}]),
                        tmp_path / "a.parquet")
    [record] = load_records(str(tmp_path / "a.parquet")).records
    assert (record["instruction"], record["output"], record["x"]) == (texts["question"], texts["answer"], "\\xff")
