"""Fetching from the Hugging Face hub, and checking what came."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, constants, set_client_factory, snapshot_download
from huggingface_hub.errors import (
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionResolutionError,
    XetDownloadError,
)
from huggingface_hub.utils._http import default_client_factory
from huggingface_hub.utils.logging import set_verbosity_error

from common.support import files
from common.support.files import InputError

PATIENCE = 15.0  # seconds without progress after which nothing more is asked of the hub; a request gets half as many
constants.HF_HUB_DISABLE_XET = True  # its downloads have no time limit that could be set


class NoProgress(Exception):
    """The hub has been silent for PATIENCE seconds."""


class Pin(NamedTuple):
    """One public repository: where it is, in which revision, and what the weights in it must be."""

    repo: str
    revision: str
    size: int | None = None  # bytes of model.safetensors
    sha256: str | None = None


def download(name: str, pin: Pin, patterns: list[str], kind: str = "model") -> Path:
    """Fetch a repository's files through the hub's own client, which knows the cache, mirrors, proxies and offline mode.

    The client takes a file of the right length on trust, so its content is checked here.

    Args:
        name: what the user calls it.
        patterns: which files to fetch.
        kind: "model" or "dataset".

    Returns:
        The folder in the cache.

    Raises:
        InputError: if it cannot be fetched, or is not what it should be.
    """
    fetch = partial(snapshot_download, pin.repo, repo_type=kind, revision=pin.revision, allow_patterns=patterns)
    with telling(name, pin.repo, kind):
        try:
            with impatience(cache_of(pin.repo, kind)):
                folder = Path(fetch())
        except NoProgress:
            folder = Path(fetch(local_files_only=True))  # whole, or not there
    for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):  # none, if it has no such files
        check_download(path, pin)
    return folder


def dataset_files(repo: str) -> list[str]:
    """The names of all files of a data set, in its newest revision; of those in the cache, if the hub cannot be reached.

    Raises:
        InputError: if there is no such data set, or it can be found neither there nor here.
    """
    cache = cache_of(repo, "dataset")
    with telling(repo, repo, "dataset"):
        try:
            with impatience(cache):
                return [file.rfilename for file in HfApi().dataset_info(repo, revision="main").siblings or []]
        except RepositoryNotFoundError:
            raise
        except (NoProgress, HTTPError, OfflineModeIsEnabled) as error:
            newest = cache / "refs" / "main"  # the commit that was the newest when something was fetched
            if not newest.exists():
                raise LocalEntryNotFoundError(repo) from error
            folder = cache / "snapshots" / newest.read_text()
            return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def cache_of(repo: str, kind: str) -> Path:
    """Where the hub's client keeps this repository."""
    return Path(constants.HF_HUB_CACHE) / f"{kind}s--{repo.replace('/', '--')}"


@contextlib.contextmanager
def telling(name: str, repo: str, kind: str) -> Iterator[None]:
    """Within this context what the hub's client raises becomes one sentence; `name`, `kind` as for `download`."""
    local, instead = {"model": ("folder", "copy the files to a folder and use --model FOLDER"),
                      "dataset": ("file", "copy the file here and use --data FILE")}[kind]
    set_verbosity_error()  # the client tells of each retry; one sentence at the end is enough
    try:
        yield
    except LocalEntryNotFoundError as error:
        raise InputError(f"{name} is no {local} here and not in the local cache, and the hub cannot be reached or does not "
                         f"answer (or HF_HUB_OFFLINE is set): go online once, set HF_ENDPOINT to a mirror, or {instead}; "
                         "files that came whole are kept for the next try.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise InputError(f"The hub has no {kind} {repo!r} that can be read without a login, and there is no {local} "
                         f"{name!r} here; check the spelling.") from error
    except (ValueError, KeyError, TypeError, AssertionError) as error:  # what its parsers raise on other pages
        raise InputError(f"Fetching {name} failed: what answers is not a {kind} hub; look at HF_ENDPOINT, and whether a login "
                         "page or a proxy stands in between.") from error
    except (HTTPError, OSError, RevisionResolutionError, XetDownloadError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"Fetching {name} from the hub failed ({reason}); try again, or {instead}.") from error


@contextlib.contextmanager
def impatience(folder: Path) -> Iterator[None]:
    """Within this context the hub's client, which tries again for minutes, asks nothing more after PATIENCE without progress.

    Progress is an answer, or a file in `folder`, the repository's in the cache, that has grown.

    Raises:
        NoProgress: from within the client.
    """
    heard = time.time()

    def watched(send: Callable[..., Any]) -> Callable[..., Any]:
        def send_in_time(request: Any, **options: Any) -> Any:
            nonlocal heard
            if time.time() - max(heard, min(last_growth(folder), time.time())) > PATIENCE:
                raise NoProgress
            # For each of connecting, sending and reading on; for some requests the client sets no limit.
            request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), PATIENCE / 2)
            answer = send(request, **options)
            if not options.get("stream"):  # the head of a large file is no progress yet, its body is
                heard = time.time()
            for name in ("retry-after", "ratelimit"):
                answer.headers.pop(name, None)  # the client would wait for as long as a server asks
            return answer

        return send_in_time

    def make_client() -> Any:
        client = default_client_factory()
        client.send = watched(client.send)  # type: ignore[method-assign]
        return client

    set_client_factory(make_client)
    try:
        yield
    finally:
        set_client_factory(default_client_factory)


def last_growth(folder: Path) -> float:
    """When a file of a repository in the cache last grew, in seconds since 1970; 0 if there is none."""
    latest = 0.0
    for path in folder.glob("blobs/*"):
        with contextlib.suppress(FileNotFoundError):  # another thread's file has just got its final name
            latest = max(latest, path.stat().st_mtime)
    return latest


def check_download(path: Path, pin: Pin) -> None:
    """Compare a fetched file with its pin, and with the hash by which the hub named it.

    In the cache a file is a link to a blob, whose name is the SHA-256 of the content for large files. (The blob may be a
    link again, into a store that names files otherwise; so only the first link's name is looked at.)
    """
    blob = path.resolve()
    name = path.readlink().name if path.is_symlink() else path.name
    expected = {name} if re.fullmatch(r"[0-9a-f]{64}", name) else set()
    if path.name == "model.safetensors":
        if pin.size is not None and blob.stat().st_size != pin.size:
            raise InputError(f"{blob} has {blob.stat().st_size} bytes instead of {pin.size}; delete it and try again.")
        expected |= {pin.sha256} if pin.sha256 else set()
    if expected and expected != {files.sha256(blob)}:
        raise InputError(f"{blob} is damaged or not what {pin.repo} publishes (its SHA-256 differs); delete it and try "
                         "again.")
