"""Fetching from the Hugging Face hub, and checking what came."""

import contextlib
import re
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx2
from huggingface_hub import HfApi, constants, errors, get_session, snapshot_download
from huggingface_hub.utils.logging import set_verbosity_error

from common.support import files
from common.support.bounded import NoProgress, Watch
from common.support.files import InputError, parse_json

PATIENCE = 15.0  # seconds without progress after which nothing more is asked of the hub; a request gets half as many
HUB_CACHE = Path(constants.HF_HUB_CACHE)
constants.HF_HUB_DISABLE_XET = True  # its downloads have no time limit that could be set


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
            with HubWatch():
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
    cache = HUB_CACHE / f"datasets--{repo.replace('/', '--')}"  # where the hub's client keeps it
    with telling(repo, repo, "dataset"):
        try:
            with HubWatch():
                names = [file.rfilename for file in HfApi().dataset_info(repo, revision="main").siblings or []]
            if not all(name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(name.split("/"))
                       for name in names):
                raise ValueError("a file's name that leads elsewhere")
            return names
        except errors.RepositoryNotFoundError:
            raise
        except (NoProgress, errors.HTTPError, errors.OfflineModeIsEnabled) as error:
            newest = cache / "refs" / "main"  # the commit that was the newest when something was fetched
            if not newest.exists():
                raise errors.LocalEntryNotFoundError(repo) from error
            folder = cache / "snapshots" / newest.read_text()
            return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


@contextlib.contextmanager
def telling(name: str, repo: str, kind: str) -> Iterator[None]:
    """Within this context what the hub's client raises becomes one sentence; `name`, `kind` as for `download`."""
    local, instead = {"model": ("folder", "copy the files to a folder and use --model FOLDER"),
                      "dataset": ("file", "copy the file here and use --data FILE")}[kind]
    set_verbosity_error()  # the client tells of each retry; one sentence at the end is enough
    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        raise InputError(f"{name} is no {local} here and not in the local cache, and the hub cannot be reached or does not "
                         f"answer (or HF_HUB_OFFLINE is set): go online once, set HF_ENDPOINT to a mirror, or {instead}; "
                         "files that came whole are kept for the next try.") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise InputError(f"The hub has no {kind} {repo!r} that can be read without a login, and there is no {local} "
                         f"{name!r} here; check the spelling.") from error
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError,
            httpx2.InvalidURL) as error:  # what its parsers raise on other pages
        raise InputError(f"Fetching {name} failed: what answers is not a {kind} hub; look at HF_ENDPOINT, and whether a login "
                         "page or a proxy stands in between.") from error
    except (errors.HTTPError, OSError, errors.RevisionResolutionError, errors.XetDownloadError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"Fetching {name} from the hub failed ({reason}); try again, or {instead}.") from error


class HubWatch(Watch):
    """What the hub's client does not hold itself: an end, a size, and names that stay within the cache."""

    def __init__(self) -> None:
        super().__init__(get_session(), PATIENCE, PATIENCE / 2)
        self._sizes: dict[str, int] = {}  # address of a file -> its bytes, as announced

    def most(self, request: httpx2.Request) -> int:
        """What was announced; the client would write what comes, until the disk is full."""
        return self._sizes.get(str(request.url), self.most_bytes)

    def look(self, answer: httpx2.Response) -> None:
        """Check what becomes a path; note sizes.

        Raises:
            ValueError: if this is no answer of a hub.
            OSError: if a file has no room here.
        """
        head = answer.headers
        names = [head.get(name, "").removeprefix("W/").strip('"') for name in ("etag", "x-linked-etag", "x-repo-commit")]
        if answer.request.method == "HEAD":
            size = int(head.get("x-linked-size") or head.get("content-length") or 0)
            place = next(path for path in (HUB_CACHE, *HUB_CACHE.parents) if path.exists())
            if size > (free := shutil.disk_usage(place).free):
                raise OSError(f"{answer.request.url.path} has {size:,} bytes, and {place} has room for {free:,}")
            self._sizes[str(httpx2.URL(head.get("location") or answer.request.url))] = size
        elif answer.is_success and "/api/" in answer.request.url.path:
            content = parse_json(answer.text)
            names.append(content.get("sha") or "" if isinstance(content, dict) else "")
        if not all(re.fullmatch(r"[\w-]{0,128}", name, re.ASCII) for name in names):
            raise ValueError("a name that leads out of the cache")
        for name in ("retry-after", "ratelimit"):
            head.pop(name, None)  # the client would wait for as long as a server asks
        # Files have clocks of their own. Of answers that are none there may be no end: pages of a list, say.
        if time.monotonic() - self.began < PATIENCE:
            self.heard()


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
