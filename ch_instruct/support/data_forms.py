"""Other people's files: tables (.csv, .parquet), and the forms in which instruction records come.

A row has a form by the keys it has, or --fields says which key holds what. Nothing else is tried: the form is told, and a row
of no form is refused.
"""

import argparse
import csv
import json
import reprlib
from collections.abc import Sequence
from pathlib import Path

from common.support.files import InputError, reading

# Ours -> theirs. A row has the first form of which it has all keys.
FORMS = {"OpenAI messages": {"messages": "messages"},
         "ShareGPT conversations": {"messages": "conversations"},
         "Alpaca": {"instruction": "instruction", "output": "output"},
         "prompt and completion": {"instruction": "prompt", "output": "completion"},
         "question and answer": {"instruction": "question", "output": "answer"}}
ROLES = {"human": "user", "gpt": "assistant"}  # what ShareGPT calls them; other names stay
TOOLS = ("tools", "functions", "tool_calls", "function_call")
TOOL_ROLES = ("tool", "function", "function_call", "observation")
OURS = ("instruction", "input", "output", "messages", "family", "split")


def field_pair(text: str) -> str:
    """OURS=THEIRS, as in instruction=question."""
    ours, _, theirs = text.partition("=")
    if ours not in OURS or not theirs:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed, it must be OURS=THEIRS, as in instruction=question, and "
                                         f"OURS one of {', '.join(OURS)}")
    return text


def to_record(row: object, where: str, fields: Sequence[str] | None = None) -> tuple[str, dict]:
    """The name of a row's form, and the row with the keys of ours; keys that mean nothing here stay.

    Args:
        where: begins the sentence of an error.
        fields: pairs as for `field_pair`; then no other form is looked for.

    Raises:
        InputError: if the row has no known form, lacks a key, or calls tools.
    """
    if not isinstance(row, dict):
        raise InputError(f"{where} is a {type(row).__name__}; it must be an object with instruction and output, or messages.")
    if fields:
        name, keys = " ".join(fields), {ours: theirs for ours, _, theirs in (pair.partition("=") for pair in fields)}
        for ours, theirs in keys.items():
            if theirs not in row and ours in ("instruction", "output", "messages"):
                raise InputError(f"{where} has no {theirs!r} (it has {_names(row)}); change --fields {ours}={theirs}.")
    else:
        name = next((name for name, keys in FORMS.items() if row.keys() >= set(keys.values())), "")
        if not name and not {"instruction", "output"} & row.keys():  # with one of them, the other is asked for later
            texts = [key for key, value in row.items() if isinstance(value, str) and key.isprintable()][:2]
            question, answer = texts if len(texts) == 2 else ("KEY", "KEY")
            raise InputError(f"{where} is of no known form (its keys: {_names(row)}); say which of them hold question and "
                             f"answer, as in --fields instruction={question} output={answer}.")
        keys = FORMS[name or "Alpaca"]
    record = {key: value for key, value in row.items() if key not in keys.values()}
    record |= {ours: row[theirs] for ours, theirs in keys.items() if theirs in row}
    for ours, theirs in keys.items():
        if ours not in ("messages", theirs) and theirs in row and not isinstance(row[theirs], str):
            raise InputError(f"{where}: {theirs!r} is {reprlib.repr(row[theirs])}; it must be a text.")
    if isinstance(record.get("messages"), list):
        refuse_tools(record, where)
        record["messages"] = [_message(message, f"{where}, message {number}")
                              for number, message in enumerate(record["messages"], 1)]
    return name, record


def _names(row: dict) -> str:
    return ", ".join(map(repr, row)) or "nothing"


def refuse_tools(holder: dict, where: str) -> None:
    """Raise InputError if this record or message has tools in it."""
    used = [key for key in TOOLS if holder.get(key)]
    used += [f"role {holder[key]}" for key in ("role", "from") if holder.get(key) in TOOL_ROLES]
    if used:
        raise InputError(f"{where} has {used[0]!r}: calling tools is not taught here; leave such records out of the file.")


def _message(message: object, where: str) -> object:
    """A message with "role" and "content" alone, the content one text; what is no message comes back as it is."""
    if not isinstance(message, dict):
        return message
    refuse_tools(message, where)
    if "from" in message:
        sender = message["from"]
        return {"role": ROLES.get(sender, sender) if isinstance(sender, str) else sender, "content": message.get("value")}
    kept = {key: message[key] for key in ("role", "content") if key in message}
    parts = kept.get("content")
    if isinstance(parts, list) and all(isinstance(part, dict) and "type" in part for part in parts):
        for part in parts:
            if part["type"] != "text" or not isinstance(part.get("text"), str):
                raise InputError(f"{where} has a part of type {part['type']!r}; only text can be learnt here.")
        kept["content"] = "".join(part["text"] for part in parts)
    return kept


def read_table(path: Path, option: str = "--data") -> list[dict]:
    """The rows of a .csv or .parquet file, one object each.

    Raises:
        InputError: if there is no such file, it cannot be read, or it has no rows.
    """
    if not path.is_file():
        raise InputError(f"{option} {path}: there is no such file.")
    rows = read_csv(path, option) if path.suffix == ".csv" else read_parquet(path, option)
    if not rows:
        raise InputError(f"{option} {path} holds no records.")
    return rows


def read_csv(path: Path, option: str) -> list[dict]:
    """The rows of a table with a line of names, in UTF-8. Cells are parted by the sign that is most frequent in that line:
    comma, semicolon or tab."""
    csv.field_size_limit(2**31 - 1)  # characters in one cell
    with (reading(f"{option} {path}", "no CSV in UTF-8", "save it again in that form"),
          open(path, encoding="utf-8-sig", newline="") as file):
        names = file.readline()
        file.seek(0)
        rows = list(csv.DictReader(file, delimiter=max(",;\t", key=names.count), strict=True))
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise InputError(f"{option} {path}, record {number} has more or fewer cells than the line of names; texts with "
                             "commas or line breaks belong into quotation marks.")
    return rows


def read_parquet(path: Path, option: str) -> list[dict]:
    """The rows of a Parquet file. Empty cells are left out of their row; dates and the like become texts."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(f"{option} {path}: reading .parquet needs pyarrow: pip install pyarrow") from error
    with reading(f"{option} {path}", "no Parquet file", "fetch or copy it again"):
        rows = parquet.read_table(path).to_pylist()
    return [{key: json.loads(json.dumps(value, default=str)) for key, value in row.items() if value is not None}
            for row in rows]
