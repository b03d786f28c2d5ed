"""Files that are either whole or absent, read in one place, and the one error that users see."""

import contextlib
import errno
import hashlib
import json
import os
import re
import reprlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

UMASK = os.umask(0)
os.umask(UMASK)  # it can only be read by setting it


class InputError(Exception):
    """Something the user gave cannot be used. The message is one sentence: the value, what is allowed, what to do."""


_claimed: dict[tuple[int, int], int] = {}  # a folder, as the system knows it -> the descriptor that holds its lock


def claim(folder: Path) -> None:
    """Keep a folder for this process, until it ends, however it ends, or calls `release`. Leaves no mark in it.

    Not on Windows, nor where the file system knows no locks.

    Raises:
        InputError: if another process has it.
    """
    place = folder.stat().st_dev, folder.stat().st_ino
    if fcntl is None or place in _claimed:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise InputError(f"Another process is at work in {folder}; wait for its end, or choose another folder.") from error
    except OSError:  # no locks here
        pass
    _claimed[place] = descriptor


def release() -> None:
    """Let other processes have the folders that this one claimed."""
    while _claimed:
        os.close(_claimed.popitem()[1])


def is_temporary(path: Path) -> bool:
    """Whether this is the name of a temporary file of `write_whole`: a killed process leaves it."""
    return bool(re.fullmatch(r"\..+\.\d+\.tmp", path.name))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, flush it to the disk, and rename it to `path`. Folders are made where they lack.

    A reader sees the old file or the new one, never a part, whenever the process or the power goes away.

    Raises:
        OSError: naming `path`, if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~UMASK)  # some writers make files that only their owner can read
        os.replace(temporary, path)
    except OSError as error:  # a full disk names no file, and nobody knows the temporary one
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    except (SafetensorError, RuntimeError) as error:
        if isinstance(error, SafetensorError) or "inline_container" in str(error):  # the latter is torch.save's way to say it
            raise OSError(errno.EIO, "it cannot be written, perhaps the disk is full", str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with plain line feeds, whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))


def write_json(path: Path, content: object) -> None:
    """Write JSON for people to read, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def out_of_memory(error: Exception) -> bool:
    """Whether this says that there is no memory left, here or on a GPU. PyTorch has no class of its own for the former."""
    return (isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
            or "can't allocate memory" in str(error))


@contextlib.contextmanager
def reading(path: object, what: str, advice: str = "restore it, or make it again") -> Iterator[None]:
    """Whatever goes wrong in here becomes one sentence. All that reads a file, ours or another library, stands in this.

    It is the only place that catches `Exception`: a parser that is given broken content raises whatever it comes upon.

    Args:
        what: the file is then: "PATH is WHAT (reason); ADVICE.", as in "no subset file" or "not JSON".

    Raises:
        InputError: instead of any other error; not where memory is short, which tells nothing about the file.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from error
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
        raise InputError(f"{path} is {what} ({reason}); {advice}.") from error


def check(value: object, kind: Any, where: str = "it") -> None:
    """Refuse a value that is not of this kind.

    Args:
        kind: a type (an int is a float, too; a bool is only a bool); None; (kind, kind), one or the other; [kind], a list;
            {"key": kind}, an object with this key and maybe others; {str: kind}, an object whose values are all so; object,
            anything.

    Raises:
        ValueError: naming the first place that is not so.
    """
    if kind is object:
        return
    if isinstance(kind, tuple):
        errors = []
        for one in kind:
            try:
                return check(value, one, where)
            except ValueError as error:
                errors.append(error)
        raise errors[0]
    wanted = type(kind) if isinstance(kind, (dict, list)) or kind is None else kind
    if type(value) is not wanted and not (wanted is float and type(value) is int):
        name = {dict: "an object", list: "a list", str: "a text", int: "a whole number", float: "a number",
                bool: "true or false", type(None): "null"}.get(wanted, wanted.__name__)
        raise ValueError(f"{where} is {reprlib.repr(value)}, not {name}")
    if isinstance(value, list) and isinstance(kind, list):
        for number, one in enumerate(value, 1):
            check(one, kind[0], f"number {number} of {where}")
    elif isinstance(value, dict) and isinstance(kind, dict):
        for key, part in kind.items():
            if key is not str and key not in value:
                raise ValueError(f"{where} has no {key!r}")
            for name in value if key is str else [key]:
                check(name, str, f"a key of {where}")
                check(value[name], part, f"{name!r}")


def parse_json(text: str, kind: Any = object) -> Any:
    """Read JSON of this kind (see `check`) whose texts can be written again: no halves of surrogate pairs.

    Raises:
        ValueError or RecursionError: if it is not so.
    """
    content = json.loads(text)
    json.dumps(content, ensure_ascii=False).encode()  # a UnicodeEncodeError is a ValueError
    check(content, kind)
    return content


def read_json(path: Path, kind: Any = object, what: str = "not JSON", advice: str = "restore it, or make it again") -> Any:
    """The content of a JSON file that should be of this kind (see `check`).

    Raises:
        InputError: if it cannot be read, or is not so; `what` and `advice` as for `reading`.
    """
    with reading(path, what, advice):
        return parse_json(path.read_text(encoding="utf-8"), kind)


class Journal:
    """A file of JSON lines that only grows, so that what has been paid for survives whatever comes.

    Each entry is on the disk when `append` returns. Opening changes nothing; a last line that a crash cut off goes with the
    next `append`.
    """

    def __init__(self, path: Path, kind: dict, what: str):
        """Read the file, if there is one; `entries` are those that it holds.

        Args:
            kind: of an entry, as for `check`; every entry begins with the first key.
            what: any other line is, for errors: "no vote of an arena".

        Raises:
            InputError: if a line is no such entry. Such a file is somebody else's, and stays as it is.
        """
        self.path = path
        self.entries: list[dict] = []
        *lines, last = (path.read_bytes() if path.exists() else b"").split(b"\n")  # the last one is empty, or was cut off
        begin = b'{"' + next(iter(kind), "").encode()  # as every entry does
        self.cut, self.unended = 0, False  # bytes to take away, or a line feed to add, before the next entry
        for number, line in enumerate([*lines, last] if last else lines, 1):
            try:
                with reading(f"{path}, line {number}", what, "mend or remove that line, or choose another file"):
                    self.entries.append(parse_json(line.decode(), kind))
                    self.unended = number > len(lines)
            except InputError:
                if number <= len(lines) or not (last.startswith(begin) or begin.startswith(last)):
                    raise
                self.cut = len(last)

    def append(self, entry: dict) -> None:
        """Add one entry."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab") as file:
            file.truncate(file.tell() - self.cut)
            file.write(b"\n" * self.unended + json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.cut, self.unended = 0, False
        self.entries.append(entry)


def sha256(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
