"""Files that are either whole or absent, and the one error that users see."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

UMASK = os.umask(0)
os.umask(UMASK)  # it can only be read by setting it


class InputError(Exception):
    """Something the user gave cannot be used. The message is one sentence: the value, what is allowed, what to do."""


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, flush it to the disk, and rename it to `path`.

    A reader sees the old file or the new one, never a part, whenever the process or the power goes away.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~UMASK)  # some writers make files that only their owner can read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with plain line feeds, whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))


def write_json(path: Path, content: object) -> None:
    """Write JSON for people to read, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file that this code wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


class Journal:
    """A file of JSON lines that only grows, so that what has been paid for survives whatever comes.

    Each entry is on the disk when `append` returns. A last line that a crash cut off is removed on opening.
    """

    def __init__(self, path: Path):
        """Open or make the file; `entries` are those that it holds.

        Raises:
            InputError: if a line is not JSON.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.exists() else b""
        whole = content[:content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(path, len(whole))
        self.entries: list[dict] = []
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                self.entries.append(json.loads(line))
            except ValueError as error:
                raise InputError(f"{path}, line {number} is not JSON ({error}); mend or remove that line.") from error

    def append(self, entry: dict) -> None:
        """Add one entry."""
        with open(self.path, "ab") as file:
            file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.entries.append(entry)


def sha256(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
