"""Files that are either whole or absent, read in one place, and the one error that users see."""

import contextlib
import errno
import hashlib
import json
import os
import re
import reprlib
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


@contextlib.contextmanager
def needs(packages: str, install: str = "-r requirements-dev.txt") -> Iterator[None]:
    """Stands around the import of packages that are optional. Where they are missing, the error says how to install them."""
    try:
        yield
    except ImportError as error:
        raise InputError(f"This needs {packages}: pip install {install}") from error


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
    return bool(re.fullmatch(r"\..+\.\d+\.unfinished", path.name))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, flush it to the disk, and rename it to `path`. Folders are made where they lack.

    A reader sees the old file or the new one, never a part, whenever the process or the power goes away.

    Raises:
        OSError: naming `path`, if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
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


def regular(path: Path) -> Path:
    """The path, if it is a file or a link to one. Reading from a pipe or a device may never begin, or never end.

    Raises:
        OSError: if it is not, or there is nothing.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise OSError(errno.EINVAL, f"it is {what}, not a file", str(path))
    return path


def is_there(path: Path) -> bool:
    """Whether there is anything by this name, even a link that leads nowhere: it is no file, but somebody meant one."""
    return os.path.lexists(path)


def unwritable(path: Path) -> Path | None:
    """The folder (or file) in which this path cannot be made, as far as can be seen before; None if it can."""
    place = next(parent for parent in path.absolute().parents if is_there(parent))
    return None if place.is_dir() and os.access(place, os.W_OK | os.X_OK) else place


@contextlib.contextmanager
def reading(path: object, what: str, advice: str = "restore it, or make it again") -> Iterator[None]:
    """Whatever goes wrong in here becomes one sentence. All that reads a file, ours or another library, stands in this.

    It is the only place that catches `Exception`: a parser that is given broken content raises whatever it comes upon.

    Args:
        path: if it is a Path, it must be a regular file; where it is the name of more, `regular` asks that.
        what: the file is then: "PATH is WHAT (reason); ADVICE.", as in "no subset file" or "not JSON".

    Raises:
        InputError: instead of any other error; not where memory is short, which tells nothing about the file.
    """
    try:
        if isinstance(path, Path):
            regular(path)
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


@dataclass(frozen=True)
class Within:
    """A kind of number, for `check`: of this type and from `low` to `high`, which may be infinite. NaN is nowhere."""

    type: type
    low: float
    high: float


NATURAL = Within(int, 0, sys.maxsize)
FROM_0 = Within(float, 0.0, sys.float_info.max)


def check(value: object, kind: Any, where: str = "it") -> None:
    """Refuse a value that is not of this kind.

    Args:
        kind: a type (an int is a float, too, a float is finite, and a bool is only a bool); a `Within`; None; (kind, kind),
            one or the other; [kind], a list; {"key": kind}, an object with this key and maybe others; {str: kind}, an object
            whose values are all so; object, anything.

    Raises:
        ValueError: naming the first place that is not so.
    """
    if kind is object:
        return
    low, high = -sys.float_info.max, sys.float_info.max
    if isinstance(kind, Within):
        kind, low, high = kind.type, kind.low, kind.high
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
    if isinstance(value, (int, float)) and not low <= value <= high:  # comparing is exact, even with a number of 400 digits
        raise ValueError(f"{where} is {str(value)[:20]}, not from {low:g} to {high:g}")
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


MOST_LEVELS = 100  # of lists and objects in one another; what writes or copies them takes several calls for each


def refuse_deep(value: object, levels: int = MOST_LEVELS) -> None:
    """Raise ValueError if lists and objects of JSON stand in one another more than so many levels deep."""
    if levels < 0:
        raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep")
    if isinstance(value, (list, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            refuse_deep(one, levels - 1)


def parse_json(text: str, kind: Any = object) -> Any:
    """Read JSON of this kind (see `check`) that can be written again: no halves of surrogate pairs, not too deep.

    Raises:
        ValueError or RecursionError: if it is not so.
    """
    content = json.loads(text)
    refuse_deep(content)
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
    next `append`. Several processes may share one (not on Windows): each sees the others' entries when it adds one.
    """

    def __init__(self, path: Path, kind: dict, what: str):
        """Read the file, if there is one; `entries` are those that it holds.

        Args:
            kind: of an entry, as for `check`; every entry begins with the first key.
            what: any other line is, for errors: "no vote of an arena".

        Raises:
            InputError: if a line is no such entry. Such a file is somebody else's, and stays as it is.
        """
        self.path, self.kind, self.what = path, kind, what
        self.entries: list[dict] = []
        self.whole, self.unended = 0, False  # bytes of the entries; whether the last one lacks its line feed
        if is_there(path):
            with reading(path, what):
                content = path.read_bytes()
            self._take(content)

    def _take(self, content: bytes) -> None:
        """Take up the entries that stand behind those we know."""
        if self.unended and content[:1] == b"\n":
            content, self.whole, self.unended = content[1:], self.whole + 1, False
        *lines, last = content.split(b"\n")  # the last one is empty, or was cut off
        begin = b'{"' + next(iter(self.kind), "").encode()  # as every entry does
        for number, line in enumerate([*lines, last] if last else lines):
            where = f"{self.path}, line {len(self.entries) + 1}"
            try:
                with reading(where, self.what, "mend or remove that line, or choose another file"):
                    self.entries.append(parse_json(line.decode(), self.kind))
                self.unended = number == len(lines)
                self.whole += len(line) + (not self.unended)
            except InputError:
                if number < len(lines) or not (last.startswith(begin) or begin.startswith(last)):
                    raise

    def append(self, entry: dict) -> None:
        """Add one entry.

        Raises:
            OSError: if it cannot be written. Then it is not there, and may be added again.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab+") as file:
            if fcntl is not None:
                with contextlib.suppress(OSError):  # no locks here
                    fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
            self.whole = min(self.whole, file.seek(0, os.SEEK_END))  # somebody may have shortened it
            file.seek(self.whole)
            self._take(file.read())
            try:
                file.truncate(self.whole)
                file.write(b"\n" * self.unended + json.dumps(entry, ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(self.whole)
                raise
            self.whole, self.unended = file.seek(0, os.SEEK_END), False
        self.entries.append(entry)


def sha256(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(regular(path), "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
