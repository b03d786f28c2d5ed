"""Instruction records: read, check, split, and report what was found and what was left out."""

import json
import random
import reprlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ch_instruct.support.data_files import READABLE, ending, read_file
from ch_instruct.support.data_forms import BESIDES, to_record
from ch_instruct.support.public_sets import PUBLIC_SETS, fetch_from_hub, is_hub_id
from ch_pretrain import classroom
from common.support.console import say
from common.support.files import InputError, reading, write_json, write_text

TEST_SHARE, VALIDATION_SHARE = 0.10, 0.05
SPLITS = ("train", "validation", "test")
SECOND = ("--target", "--known")  # read beside --data, for which --fields are meant first


class Loaded(NamedTuple):
    """Records, and in what form they came."""

    records: list[dict]
    rows: list[int]  # of each record, its number in the file, from 1
    form: str = ""  # as in "52002 Alpaca"; empty for the classroom
    skipped: dict[int, str] | None = None  # rows that could not be used, and why


_ahead: dict[tuple, Loaded] = {}  # what `read_ahead` has read


def read_ahead(data: str, *, fields: Sequence[str] | None, bad_rows: str) -> None:
    """Read a file before PyTorch is loaded, so that what is wrong with it is told at once. The next `load_records` with the
    same arguments gives what was found."""
    if Path(data).is_file() and (key := _as_it_is(data, fields, "--data", True, bad_rows)) not in _ahead:
        _ahead.clear()
        _ahead[key] = load_records(data, fields=fields, bad_rows=bad_rows)


def _as_it_is(data: str, fields: Sequence[str] | None, *how: object) -> tuple:
    """A file as it is now, and how it is read."""
    found = Path(data).stat()
    return found.st_dev, found.st_ino, found.st_mtime_ns, tuple(fields or ()), *how


def load_records(data: str, option: str = "--data", fields: Sequence[str] | None = None, answered: bool = True,
                 bad_rows: str = "refuse") -> Loaded:
    """Read "classroom", a public set by name, any set of the hub, or a file of `data_forms.READABLE` with records in one of the
    forms of `data_forms.FORMS`, or with keys as `fields` says ("instruction=question", ...).

    An Alpaca record has the texts "instruction" and "output" and may have "input". A conversation has "messages"; it
    gets instruction, input and output of its last turn (see `last_turn`). Both may also have "split" (train, validation
    or test) and "family"; other keys are kept and ignored. Prints which keys it ignores, which records it leaves out because
    an instruction, output or message is empty, and which are exact duplicates, with their row numbers, counted from 1.
    If records need not be `answered`, a record without an output gets an empty one.

    Args:
        option: where the name was given, for errors.
        bad_rows: what becomes of records that cannot be used, "refuse" or "skip".

    Raises:
        InputError: if the file is missing, cannot be read, holds no records, or a record cannot be used.
    """
    if _ahead and Path(data).is_file() and (found := _ahead.pop(_as_it_is(data, fields, option, answered, bad_rows), None)):
        return found
    if fields and option not in SECOND and (data == "classroom" or data in PUBLIC_SETS):
        raise InputError(f"--fields {' '.join(fields)}: the keys of {data} are known; give --fields with a file of your own.")
    if data == "classroom":
        records = classroom.records()
        return Loaded(records, list(range(1, len(records) + 1)))
    rows = _read(data, option)
    if option in SECOND and fields and not _fits(rows[0], fields):
        fields = None  # they are those of --data
    if fields and len(names := [pair.partition("=")[0] for pair in fields]) > len({*names}):
        raise InputError(f"--fields {' '.join(fields)}: one of the names before = comes twice; give each once.")
    for pair in fields or ():
        ours, _, theirs = pair.partition("=")
        if ours in BESIDES and not any(isinstance(row, dict) and theirs in row for row in rows):
            raise InputError(f"{option} {data}: no record has the key {theirs!r}; change --fields {pair}, or leave it out.")
    forms: Counter[str] = Counter()
    unused: Counter[str] = Counter()
    good: dict[int, dict] = {}
    bad: dict[int, str] = {}
    for number, row in enumerate(rows, 1):
        try:
            if isinstance(row, InputError):
                raise row
            form, record, others = to_record(row, where := f"{data}, record {number}", fields, answered)
            if not answered and "messages" not in record:
                record.setdefault("output", "")
            _check(record, where, answered)
        except InputError as error:
            bad[number] = str(error)
            continue
        good[number] = record
        forms[form] += 1
        unused.update(others)
    if bad and (bad_rows == "refuse" or not good):
        raise InputError(_refusal(bad, len(rows)))
    if bad:
        first = _reason(next(iter(bad.values())))
        say(f"{option} {data}, skipped, cannot be used: {count_rows(list(bad))}; the first: {first}")
    if unused:
        say(f"{option} {data}, not used: " + ", ".join(f"{key} ({count} record{'s' * (count > 1)})"
                                                       for key, count in unused.most_common()))
    return _keep(good, f"{option} {data}", answered)._replace(
        form=", ".join(f"{count} {form}" for form, count in forms.items()), skipped=bad)


def _read(data: str, option: str) -> list:
    """The rows of a public set, a set of the hub, or a file."""
    if data in PUBLIC_SETS:
        known = PUBLIC_SETS[data]
        path = known.fetch(data)
        with reading(path, f"not the set {data}", "delete it and try again"):
            return [known.convert(row) for row in read_rows(path)]
    path = fetch_from_hub(data) if is_hub_id(data) else Path(data)
    if not ending(path.name):
        raise InputError(f"{option} {data}: use classroom, {', '.join(PUBLIC_SETS)}, the hub id of a data set, OWNER/NAME, "
                         f"or a file that ends in {', '.join(READABLE)}, or in one of these and .gz.")
    return read_file(path, option)


def _fits(row: object, fields: Sequence[str]) -> bool:
    return isinstance(row, dict) and row.keys() >= {pair.partition("=")[2] for pair in fields}


def _reason(message: str) -> str:
    """What is wrong, without the advice."""
    return message.rstrip(".").rpartition("; ")[0] or message.rstrip(".")


def _refusal(bad: dict[int, str], total: int) -> str:
    """One sentence on so many bad records of so many: the first with the advice, two more, how many they are."""
    first, *others = bad.values()
    if total == 1:
        return first
    first = first.rstrip(".")
    if len(bad) == total:
        first = _reason(first) if "--bad-rows" in first else first  # nothing would be left
        return f"{first}; none of the {total} records can be used."
    if not others:
        return f"{first}; --bad-rows skip leaves this one of {total} records out."
    also = ", ".join("record " + _reason(message).rpartition(", record ")[2] for message in others[:2])
    return f"{first}; {len(bad)} of {total} records cannot be used (also {also}), --bad-rows skip leaves them out."


def _keep(rows: dict[int, dict], where: str, answered: bool) -> Loaded:
    """Those records that hold something, with the texts of their last turn; tells which are left out, and which repeated."""
    kept: dict[int, dict] = {}
    empty, repeated = [], []
    seen: dict[tuple[str, ...], int] = {}
    for number, row in rows.items():
        row = last_turn(row)
        texts = [message["content"] for message in row.get("messages", ())] or (
            [row["instruction"], row["output"]] if answered else [row["instruction"]])
        if not all(text.strip() for text in texts):
            empty.append(number)
            continue
        text = (row["instruction"], row.get("input", ""), row["output"])
        if seen.setdefault(text, number) != number:
            repeated.append(number)
        kept[number] = row
    for what, numbers in (("left out, instruction, output or message empty", empty),
                          ("exact repetitions of earlier records (kept)", repeated)):
        if numbers:
            say(f"{where}, {what}: {count_rows(numbers)}")
    if not kept:
        raise InputError(f"{where}: no record is left, all have an empty instruction, output or message.")
    return Loaded(list(kept.values()), list(kept))


def save_records(path: Path, records: list[dict]) -> None:
    """Write records as --data reads them, .json or .jsonl. What `last_turn` took from a conversation is left out again."""
    rows = [{key: value for key, value in record.items() if key not in ("instruction", "input", "output")}
            if "messages" in record else record for record in records]
    if path.suffix == ".json":
        write_json(path, rows)
    else:
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def load_questions(data: str, option: str = "--data", fields: Sequence[str] | None = None, bad_rows: str = "refuse") -> Loaded:
    """What there is to answer: the records of a file, with or without answers, or the test part of "classroom"."""
    loaded = load_records(data, option, fields, answered=False, bad_rows=bad_rows)
    if data != "classroom":
        return loaded
    test = [place for place, record in enumerate(loaded.records) if record["split"] == "test"]
    return Loaded([loaded.records[i] for i in test], [loaded.rows[i] for i in test])


def read_rows(path: Path, option: str = "--data") -> list:
    """The rows of a .json list or, whatever else the name ends in, of a JSON lines file; unchecked.

    Raises:
        InputError: if there is no such file, or it is not JSON, or holds no rows. `option` says where its name was given.
    """
    rows = read_file(path, option)
    for row in rows:
        if isinstance(row, InputError):
            raise row
    return rows


def last_turn(record: dict) -> dict:
    """A conversation with what scoring and showing ask for: "instruction" is the last message of the user, "input" what
    was said before it, "output" the last message of the assistant, empty if the user spoke last. An Alpaca record comes back as
    it is."""
    if "messages" not in record:
        return record
    messages = record["messages"]
    *before, question, answer = messages if messages[-1]["role"] == "assistant" else [*messages, {"content": ""}]
    said = "\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in before)
    return record | {"instruction": question["content"], "input": said, "output": answer["content"]}


def _check(row: dict, where: str, answered: bool = True) -> None:
    texts = ["instruction", "input", "output", "family"]
    if "messages" in row:
        _check_messages(row["messages"], where, answered)
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


def _check_messages(messages: object, where: str, answered: bool) -> None:
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
    if messages[-1]["role"] != "assistant" and (answered or messages[-1]["role"] != "user"):
        raise InputError(f"{where}: 'messages' ends with the {messages[-1]['role']}; it must end with the assistant's answer.")


def check_characters(text: str, where: str) -> None:
    """Refuse a text that cannot be written again."""
    try:
        text.encode()
    except UnicodeEncodeError as error:  # UTF-8 can write all but these
        raise InputError(f"{where} holds half of a surrogate pair, which is no character; mend the text.") from error


def count_rows(numbers: list[int]) -> str:
    """How many rows these are, and the numbers of the first."""
    shown = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
    return f"{len(numbers)} (row{'s' if len(numbers) > 1 else ''} {shown})"


def split_records(records: list[dict], seed: int) -> dict[str, list[dict]]:
    """Divide into train, validation and test; see `split_places`."""
    return {split: [records[i] for i in places] for split, places in split_places(records, seed).items()}


def different_questions(records: list[dict]) -> list[dict]:
    """The records without those that ask the question of an earlier one again."""
    found: dict[tuple[str, str], dict] = {}
    for record in records:
        found.setdefault((record["instruction"], record.get("input", "")), record)
    return list(found.values())


def _groups(records: list[dict]) -> list[list[int]]:
    """The places of records that share a question, in groups: where one asks what another asks, too, both are in one group."""
    first: dict[int, int] = {}  # question -> a record that asks it
    towards = list(range(len(records)))  # the record itself, or another one of its group

    def leader(place: int) -> int:
        while towards[place] != place:
            towards[place] = place = towards[towards[place]]
        return place

    for place, record in enumerate(records):
        for question in _questions(record):
            towards[leader(place)] = leader(first.setdefault(question, place))
    groups: dict[int, list[int]] = {}
    for place in range(len(records)):
        groups.setdefault(leader(place), []).append(place)
    return list(groups.values())


def without_questions(records: list[dict], places: list[int], held_out: Sequence[dict]) -> list[int]:
    """Those of the places whose records ask nothing that is asked in `held_out`. Says how many others there are.

    Raises:
        InputError: if all of them do.
    """
    asked = {question for record in held_out for question in _questions(record)}
    kept = [place for place in places if asked.isdisjoint(_questions(records[place]))]
    if not kept:
        raise InputError("Every training record asks a question that the other file holds out for validation or testing; "
                         "choose from other records.")
    if len(kept) < len(places):
        say(f"  {len(places) - len(kept):,} of {len(places):,} training records ask what the other file holds out for "
            "validation or testing; they are left out")
    return kept


def _questions(record: dict) -> Iterator[int]:
    """What a record asks, each time with all that was said before, as hashes."""
    if "messages" not in record:
        yield hash((0, record["instruction"], *filter(None, [record.get("input")])))
        return
    before = 0
    for message in record["messages"]:
        before = hash((before, message["content"]))
        if message["role"] == "user":
            yield before


def split_places(records: list[dict], seed: int) -> dict[str, list[int]]:
    """Where the records of each split stand: as the records themselves say, or else at random by `seed`.

    At random, records with the same question stay together, so that no test question has been trained on word for word (nor
    as an earlier turn of a conversation). A question that more records ask than a part still lacks goes to training. Prints
    the sizes that result.

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
        shuffled = _groups(records)
        random.Random(f"split {seed}").shuffle(shuffled)
        training = []
        shares = {"test": TEST_SHARE, "validation": VALIDATION_SHARE}
        wanted = {split: max(1, round(share * len(records))) for split, share in shares.items()}
        for group in shuffled:
            split = next((split for split, count in wanted.items() if len(parts[split]) + len(group) <= count), "")
            if split:
                parts[split] += group
            else:
                training.append(group)
        for split in wanted:  # where every question is asked more often than that, the rarest one
            if not parts[split] and len(training) > 1:
                parts[split] = training.pop(training.index(min(training, key=len)))
        parts["train"] = [place for group in training for place in group]
    for split in ("train", "test"):
        if not parts[split] and named:
            raise InputError(f"No record has the 'split' {split!r}; give it to some, or take 'split' out of all records.")
        if not parts[split]:
            raise InputError(f"{len(records)} record(s) leave nothing for the {split} part; at least 3 different questions "
                             "are needed, or a 'split' in each record.")
    if named:
        asked = {question for place in parts["train"] for question in _questions(records[place])}
        for split in ("validation", "test"):
            known = sum(not asked.isdisjoint(_questions(records[place])) for place in parts[split])
            if known:
                say(f"Warning: {known:,} of {len(parts[split]):,} {split} records ask what a training record asks, too; scores "
                    "on them say nothing about new questions.")
    else:
        say(f"Split by --seed: {' / '.join(str(len(part)) for part in parts.values())} records for {', '.join(parts)} "
            f"(wanted: {1 - TEST_SHARE - VALIDATION_SHARE:.0%} / {VALIDATION_SHARE:.0%} / {TEST_SHARE:.0%})")
    return parts
