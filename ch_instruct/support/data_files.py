"""Files of rows, as other people have them: JSON in two forms, tables, packed or not. What a row means is for `data_forms`."""

import csv
import gzip
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from common.support.files import InputError, reading, refuse_deep

READABLE = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")  # and all but the last packed, as .gz
MOST_UNPACKED, MOST_TIMES = 64 << 20, 200  # bytes; and how often its own size a larger file may unpack to


def ending(name: str) -> str:
    """Which of READABLE a file's name ends in, whatever its case and whether it is packed; empty for another."""
    name = name.lower()
    return next((end for end in READABLE if name.endswith((end, f"{end}.gz") if end != ".parquet" else end)), "")


def read_file(path: Path, option: str = "--data") -> list:
    """The rows of a file of records, unchecked. In the place of a row that cannot be read stands the InputError that says so.

    Raises:
        InputError: if there is no such file, it cannot be read, or it has no rows. `option` says where its name was given.
    """
    where, kind = f"{option} {path}", ending(path.name)
    if path.exists() and not path.is_file():
        raise InputError(f"{where} is not a file; give a file that ends in {', '.join(READABLE)}.")
    if kind == ".parquet":
        rows = read_parquet(path, where)
    else:
        with reading(where, "not to be unpacked as gzip, it may be cut off", "fetch or copy it again"):
            content = path.read_bytes()
            content = unpack(content) if path.name.lower().endswith(".gz") else content
        rows = read_csv(content, where, kind == ".tsv") if kind in (".csv", ".tsv") else read_json_rows(content, where)
    if not rows:
        raise InputError(f"{where} holds no records.")
    return rows


def unpack(packed: bytes) -> bytes:
    """What was packed by gzip.

    Raises:
        ValueError: if it is far longer than text packs to; a small file could take all memory.
    """
    most = max(MOST_UNPACKED, MOST_TIMES * len(packed))
    content = gzip.GzipFile(fileobj=io.BytesIO(packed)).read(most + 1)
    if len(content) > most:
        raise ValueError(f"it unpacks to more than {MOST_TIMES} times its size")
    return content


class Number(float):
    """A number of JSON that keeps how it is written: an answer of 3.10 is not 3.1."""

    def __init__(self, text: str) -> None:
        self.written = text


def _parse(text: str) -> Any:
    content = json.loads(text, object_pairs_hook=_object, parse_float=Number)
    refuse_deep(content)
    return content


def _object(pairs: list[tuple[str, object]]) -> dict:
    """An object of JSON. If a key comes twice, it stands under None, where no key of JSON can stand."""
    content: dict = dict(pairs)
    if len(content) < len(pairs):
        content[None] = _twin([key for key, _ in pairs])
    return content


def _twin(names: list[str]) -> str:
    """The name that comes most often."""
    return Counter(names).most_common(1)[0][0]


def read_json_rows(content: bytes, where: str) -> list:
    """The rows of a list of JSON, or of JSON lines: whichever it is."""
    with reading(where, "no JSON in UTF-8", "mend the file or save it again in that form"):
        text = content.decode("utf-8-sig")
        if text.lstrip().startswith("["):
            return _parse(text)
        try:
            rows = [_parse(text)] if text.strip() else []  # a single object, maybe on many lines
        except json.JSONDecodeError:
            lines = enumerate(text.split("\n"), 1)  # a line feed alone ends a line of JSON
            rows = [_line(line, f"{where}, line {number}") for number, line in lines if line.strip()]
    if len(rows) == 1 and not isinstance(rows[0], (dict, InputError)):
        raise InputError(f"{where} must hold a list of records, not a {type(rows[0]).__name__}.")
    return rows


def _line(line: str, where: str) -> object:
    """What a line of JSON holds, or the InputError that says why nothing."""
    try:
        with reading(where, "no JSON", "mend that line"):
            return _parse(line)
    except InputError as error:
        return error


def read_csv(content: bytes, where: str, tabs: bool = False) -> list:
    """The rows of a table with a line of names, in UTF-8. Cells are parted by `tabs`, or by the sign that a first line like
    "sep=;" names (Excel's), or else by the one that is most frequent in the line of names: comma, semicolon or tab."""
    csv.field_size_limit(2**31 - 1)  # characters in one cell
    with reading(where, "no CSV in UTF-8", "save it again in that form"):
        text = content.decode("utf-8-sig").lstrip("\r\n")
        if told := re.match(r"sep=(.)[\r\n]+", text):
            text = text[told.end():]
        names = re.sub(r'"[^"]*"', "", text[:200_000]).lstrip("\r\n").splitlines()[:1]  # a name in quotes may hold a sign
        sign = "\t" if tabs else told[1] if told else max(",;\t", key="".join(names).count)
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=sign)
        rows: list = list(reader)
        _refuse_twins([name for name in reader.fieldnames or () if name], where)
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            rows[number - 1] = InputError(f"{where}, record {number} has more or fewer cells than the line of names; texts "
                                          "with commas or line breaks belong into quotation marks.")
    return rows


def _refuse_twins(names: list[str], where: str) -> None:
    if len(set(names)) < len(names):
        raise InputError(f"{where} has the column {_twin(names)!r} twice; rename or remove one of them.")


def read_parquet(path: Path, where: str) -> list[dict]:
    """The rows of a Parquet file; dates and the like become texts, and bytes the text that they hold."""
    def text(value: object) -> str:
        return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)

    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(f"{where}: reading .parquet needs pyarrow: pip install pyarrow") from error
    with reading(where, "no Parquet file", "fetch or copy it again"):
        file = parquet.ParquetFile(path)
        _refuse_twins(file.schema_arrow.names, where)
        return [json.loads(json.dumps(row, default=text), parse_constant=lambda _: None) for row in file.read().to_pylist()]
