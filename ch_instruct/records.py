"""Instruction records: read, check, split, and report what was found and what was left out."""

import json
import random
import reprlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ch_instruct.support.data_forms import read_table, to_record
from ch_instruct.support.public_sets import PUBLIC_SETS, fetch_from_hub, is_hub_id
from ch_pretrain import classroom
from common.support.console import say
from common.support.files import InputError, reading, write_json, write_text

TEST_SHARE, VALIDATION_SHARE = 0.10, 0.05
SPLITS = ("train", "validation", "test")


class Loaded(NamedTuple):
    """Records, and in what form they came."""

    records: list[dict]
    form: str = ""  # as in "52002 Alpaca"; empty for the classroom


def load_records(data: str, option: str = "--data", fields: Sequence[str] | None = None, answered: bool = True) -> Loaded:
    """Read "classroom", a public set by name, any set of the hub, or a .json, .jsonl, .csv or .parquet file of records in one
    of the forms of `data_forms.FORMS`, or with keys as `fields` says ("instruction=question", ...).

    An Alpaca record has the texts "instruction" and "output" and may have "input". A conversation has "messages"; it
    gets instruction, input and output of its last turn (see `last_turn`). Both may also have "split" (train, validation
    or test) and "family"; other keys are kept and ignored. Records with an empty instruction, output or message teach
    nothing and are left out; exact duplicates are counted. Both are said, with their row numbers, counted from 1. Where
    they need not be `answered`, an Alpaca record may lack its output, and gets an empty one.

    Raises:
        InputError: if the file is missing, cannot be read, holds no records, or a record lacks a text. `option` says where
            its name was given.
    """
    if fields and (data == "classroom" or data in PUBLIC_SETS):
        raise InputError(f"--fields {' '.join(fields)}: the keys of {data} are known; give --fields with a file of your own.")
    if data == "classroom":
        return Loaded(classroom.records())
    if data in PUBLIC_SETS:
        known = PUBLIC_SETS[data]
        path = known.fetch(data)
        with reading(path, f"not the set {data}", "delete it and try again"):
            rows = [known.convert(row) for row in read_rows(path)]
    else:
        path = fetch_from_hub(data) if is_hub_id(data) else Path(data)
        if path.suffix in (".json", ".jsonl"):
            rows = read_rows(path, option)
        elif path.suffix in (".csv", ".parquet"):
            rows = read_table(path, option)
        else:
            raise InputError(f"{option} {data}: use classroom, {', '.join(PUBLIC_SETS)}, the hub id of a data set, OWNER/NAME, "
                             "or a file that ends in .json, .jsonl, .csv or .parquet.")
    forms: Counter[str] = Counter()
    for number, row in enumerate(rows, 1):
        form, rows[number - 1] = to_record(row, where := f"{data}, record {number}", fields)
        forms[form] += 1
        if not answered:
            rows[number - 1].setdefault("output", "")
        _check(rows[number - 1], where)

    kept, empty, repeated = [], [], []
    seen: dict[tuple[str, ...], int] = {}
    for number, row in enumerate(rows, 1):
        row = last_turn(row)
        texts = [message["content"] for message in row.get("messages", ())] or (
            [row["instruction"], row["output"]] if answered else [row["instruction"]])
        if not all(text.strip() for text in texts):
            empty.append(number)
            continue
        text = (row["instruction"], row.get("input", ""), row["output"])
        if seen.setdefault(text, number) != number:
            repeated.append(number)
        kept.append(row)
    for what, numbers in (("left out, instruction, output or message empty", empty),
                          ("exact repetitions of earlier records (kept)", repeated)):
        if numbers:
            say(f"{option} {data}, {what}: {_rows(numbers)}")
    if not kept:
        raise InputError(f"{option} {data}: no record is left, all have an empty instruction, output or message.")
    return Loaded(kept, ", ".join(f"{count} {form}" for form, count in forms.items()))


def save_records(path: Path, records: list[dict]) -> None:
    """Write records as --data reads them, .json or .jsonl. What `last_turn` took from a conversation is left out again."""
    rows = [{key: value for key, value in record.items() if key not in ("instruction", "input", "output")}
            if "messages" in record else record for record in records]
    if path.suffix == ".json":
        write_json(path, rows)
    else:
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def load_questions(data: str) -> list[dict]:
    """What there is to answer: the records of a file, Alpaca ones with or without outputs, or the test part of "classroom"."""
    records = load_records(data, answered=False).records
    return [record for record in records if record["split"] == "test"] if data == "classroom" else records


def read_rows(path: Path, option: str = "--data") -> list:
    """The rows of a .json list or, whatever else the name ends in, of a JSON lines file; unchecked.

    Raises:
        InputError: if there is no such file, or it is not JSON, or holds no rows. `option` says where its name was given.
    """
    where, form = f"{option} {path}", "JSON" if path.suffix == ".json" else "JSONL"
    if path.exists() and not path.is_file():
        raise InputError(f"{where} is not a file; give a .json or .jsonl file.")
    with reading(where, f"not {form} in UTF-8", "mend the file"):
        text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".json":
        with reading(where, f"not {form}", "mend the file"):
            rows = json.loads(text)
    else:
        rows = []
        for number, line in enumerate(text.split("\n"), 1):  # a line feed alone ends a line of JSON
            if line.strip():
                with reading(f"{where}, line {number}", f"not {form}", "mend that line"):
                    rows.append(json.loads(line))
    if not isinstance(rows, list):
        raise InputError(f"{option} {path} must hold a list of records, not a {type(rows).__name__}.")
    if not rows:
        raise InputError(f"{option} {path} holds no records.")
    return rows


def last_turn(record: dict) -> dict:
    """A conversation with what scoring and showing ask for: "instruction" is the last message of the user, "input" what
    was said before it, "output" the last message of the assistant. An Alpaca record comes back as it is."""
    if "messages" not in record:
        return record
    *before, question, answer = record["messages"]
    said = "\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in before)
    return record | {"instruction": question["content"], "input": said, "output": answer["content"]}


def _check(row: dict, where: str) -> None:
    texts = ["instruction", "input", "output", "family"]
    if "messages" in row:
        _check_messages(row["messages"], where)
        texts = ["family"]  # the others will be taken from the messages
    for key in ("instruction", "output"):
        if key in texts and key not in row:
            raise InputError(f"{where} has no {key!r} (it has {', '.join(map(repr, row)) or 'nothing'}); add it.")
    for key in texts:
        if not isinstance(row.get(key, ""), str):
            raise InputError(f"{where}: {key!r} is {reprlib.repr(row[key])}; it must be a text.")
        check_characters(row.get(key, ""), f"{where}: {key!r}")
    if row.get("split", "train") not in SPLITS:
        raise InputError(f"{where}: 'split' is {reprlib.repr(row['split'])}; it must be train, validation or test.")
    check_characters(json.dumps(row, ensure_ascii=False), where)  # other keys are kept and written, too


def _check_messages(messages: object, where: str) -> None:
    if not isinstance(messages, list) or not messages:
        raise InputError(f"{where}: 'messages' is {reprlib.repr(messages)}; it must be a list of objects with a role and a "
                         "content.")
    for number, message in enumerate(messages, 1):
        place = f"{where}, message {number}"
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise InputError(f"{place} is {reprlib.repr(message)}; it must be an object with a role and a text as content.")
        check_characters(message["content"], place)
        may_be = ["user"] if number == 1 or messages[number - 2].get("role") != "user" else ["assistant"]
        may_be += ["system"] if number == 1 else []
        if message.get("role") not in may_be:
            raise InputError(f"{place} has the role {reprlib.repr(message.get('role'))}; {' or '.join(may_be)} belongs there: "
                             "perhaps one system message first, then user and assistant in turn.")
    if messages[-1]["role"] != "assistant":
        raise InputError(f"{where}: 'messages' ends with the {messages[-1]['role']}; it must end with the assistant's answer.")


def check_characters(text: str, where: str) -> None:
    """Refuse a text that cannot be written again."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise InputError(f"{where} holds half of a surrogate pair, which is no character; mend the text.")


def _rows(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
    return f"{len(numbers)} (row{'s' if len(numbers) > 1 else ''} {shown})"


def split_records(records: list[dict], seed: int) -> dict[str, list[dict]]:
    """Divide into train, validation and test; see `split_places`."""
    return {split: [records[i] for i in places] for split, places in split_places(records, seed).items()}


def split_places(records: list[dict], seed: int) -> dict[str, list[int]]:
    """Where the records of each split stand: as the records themselves say, or else at random by `seed`.

    At random, equal records stay together, so that no test question has been trained on word for word.

    Raises:
        InputError: if only some records name a split, or no record is left for training or for testing.
    """
    named = sum("split" in record for record in records)
    if named not in (0, len(records)):
        raise InputError(f"{named} of {len(records)} records name a 'split'; all of them must, or none.")
    parts: dict[str, list[int]] = {split: [] for split in SPLITS}
    if named:
        for place, record in enumerate(records):
            parts[record["split"]].append(place)
    else:
        groups: dict[tuple, list[int]] = {}
        for place, record in enumerate(records):
            groups.setdefault((record["instruction"], record.get("input", "")), []).append(place)
        shuffled = list(groups.values())
        random.Random(f"split {seed}").shuffle(shuffled)
        n_test, n_validation = (max(1, round(s * len(records))) for s in (TEST_SHARE, VALIDATION_SHARE))
        for group in shuffled:
            split = ("test" if len(parts["test"]) < n_test else
                     "validation" if len(parts["validation"]) < n_validation else "train")
            parts[split] += group
    for split in ("train", "test"):
        if not parts[split]:
            raise InputError(f"{len(records)} record(s) leave nothing for the {split} part; at least 3 different questions "
                             "are needed, or a 'split' in each record.")
    return parts
