"""Public weights through the hub's client: a small hub on this machine, whole, broken, or gone."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import huggingface_hub
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.pretrained import PUBLIC, save_pretrained
from common.support import hub as our_hub
from common.support.files import InputError
from common.support.hub import Pin, check_download, dataset_files, download
from common.tokenizer import Tokenizer
from tests.conftest import ROOT
from tests.models import make_model
from tests.started import run_started

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = "model.safetensors"
PAGE = b"<!doctype html><html><body>Please log in to the guest network.</body></html>"
IDS = [[1, 2, 3, 4]]
START = 10  # seconds for Python and PyTorch to start, on a busy machine
PATIENCE = 3  # seconds, instead of those of hub.py
IMPATIENT = f"""
from common.support import hub
hub.PATIENCE = {PATIENCE}
"""
GENERATE = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

# Loads models by name with the project's own error handling, and prints the logits of each.
LOAD_EACH = """time.sleep = lambda seconds: None  # the hub's client waits between its tries
status = 0
for name in sys.argv[1:]:
    try:
        options.run_command(load)
    except SystemExit as end:
        status = end.code
sys.exit(status)
"""  # name after name, each in the words of a command
LOAD = f"""
import json, sys, time, torch
from common.support import options
from common import pretrained
def load():
    model, _ = pretrained.load_pretrained(name)
    print(json.dumps(model(torch.tensor({IDS})).tolist()))
""" + LOAD_EACH


class Hub(ThreadingHTTPServer):
    """Serves repositories of models and data sets as the hub does: model.safetensors by a redirect, as large files, the
    others directly."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, bytes]] = {}  # name -> file -> content
        self.body: bytes | None = None  # sent for the weights instead of them
        self.cut = False  # close the connection half-way through the weights
        self.stalled = False  # send half of the weights, and then nothing
        self.busy = False  # ask to be left alone for an hour, whatever is wanted
        self.silent = False  # accept every request and never answer
        self.let_go = threading.Event()
        self.portal = False  # a page with status 200 is the answer to everything
        self.hostile: Callable[[Handler, str], bool] = lambda handler, path: False  # answers, or says that it did not
        self.more: dict[str, str] = {}  # headers that replace others of the files' answers
        self.requests: list[tuple[str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def weights_sent(self) -> int:
        return sum(method == "GET" and path.startswith("/large/") for method, path in self.requests)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        hub, path = self.server, urlsplit(self.path).path
        hub.requests.append((self.command, path))
        parts = path.removeprefix("/datasets").strip("/").split("/")
        if hub.hostile(self, path):
            return
        if hub.silent:
            hub.let_go.wait()
        elif hub.busy:
            self.answer(503, b"", {"Retry-After": "3600"})
        elif hub.portal:
            self.answer(200, PAGE, {"Content-Type": "text/html"})
        elif parts[0] == "large":
            content = hub.repos["/".join(parts[1:3])][WEIGHTS]
            self.answer(200, hub.body or content, {"ETag": quoted_sha256(content)}, cut=hub.cut, stalled=hub.stalled)
        elif parts[0] == "api" and (files := hub.repos.get("/".join(parts[2:4]))) is not None:
            self.answer_json(describe(files) if parts[4] == "revision" else [list_entry(*item) for item in files.items()])
        elif parts[2:3] == ["resolve"] and (
                content := hub.repos.get("/".join(parts[:2]), {}).get("/".join(parts[4:]))) is not None:
            if parts[4] == WEIGHTS:
                storage = f"http://localhost:{hub.server_port}/large/{parts[0]}/{parts[1]}"  # another host, as at the hub
                self.answer(302, b"", {"Location": storage, "X-Repo-Commit": parts[3],
                                       "X-Linked-Etag": quoted_sha256(content), "X-Linked-Size": str(len(content))})
            else:
                self.answer(200, content, {"ETag": f'"{git_hash(content)}"', "X-Repo-Commit": parts[3]})
        else:
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})

    do_HEAD = do_GET

    def answer(self, status: int, body: bytes, headers: dict[str, str], cut: bool = False, stalled: bool = False) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers | self.server.more).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:len(body) // 2] if cut or stalled else body)
            if stalled:
                self.server.let_go.wait()

    def answer_json(self, content: object) -> None:
        self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def log_message(self, *_: object) -> None:
        pass


def describe(files: dict[str, bytes]) -> dict:
    return {"id": "someone/tiny", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}


def list_entry(name: str, content: bytes) -> dict:
    entry = {"type": "file", "oid": git_hash(content), "size": len(content), "path": name}
    if name == WEIGHTS:
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


def quoted_sha256(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()}"'


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture(scope="module")
def served_files(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("served")
    save_pretrained(make_model(), Tokenizer.from_merges([]), folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextlib.contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Hub]:
    server = Hub()
    server.repos["someone/tiny"] = dict(files)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        server.let_go.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def hub(served_files):
    with serving(served_files) as server:
        yield server


@pytest.fixture
def closed_address() -> str:
    """An address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def run(*command: str, folder: Path, address: str, **environment: str) -> subprocess.CompletedProcess:
    """Run Python with a cache in `folder` and the hub at `address`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING")) and
           "proxy" not in name.lower()}
    env |= {"HF_HOME": str(folder / "cache"), "HF_ENDPOINT": address, "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    return run_started(*command, folder=folder, environment=env | environment)


def load(*names: str, folder: Path, address: str, **environment: str) -> subprocess.CompletedProcess:
    return run("-c", LOAD, *names, folder=folder, address=address, **environment)


def logits(done: subprocess.CompletedProcess) -> list[torch.Tensor]:
    assert done.returncode == 0, done.stderr
    return [torch.tensor(json.loads(line)) for line in done.stdout.splitlines()]


def refusals(done: subprocess.CompletedProcess) -> list[str]:
    """The sentences that the user reads, the last of them at the very end."""
    assert done.returncode == 2, f"status {done.returncode}:\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("error: ") and lines[-1].endswith("."), done.stderr
    return [line for line in lines if "error: " in line]


def refusal(done: subprocess.CompletedProcess) -> str:
    """The only sentence."""
    [sentence] = refusals(done)
    return sentence


def cached(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"cache/hub/models--*/snapshots/*/{name}"))


@pytest.fixture(scope="module")
def downloaded(served_files, tmp_path_factory):
    """A folder whose cache holds someone/tiny, what loading it twice gave, and the requests that this made."""
    folder = tmp_path_factory.mktemp("downloaded")
    with serving(served_files | {"pytorch_model.bin": b"pickle", "onnx/model.onnx": b"onnx"}) as server:
        found = logits(load("someone/tiny", "someone/tiny", folder=folder, address=server.address))
    return folder, found, server.requests


@pytest.mark.slow
def test_a_fetched_model_computes_what_the_served_one_does(downloaded):
    _, found, _ = downloaded
    expected = make_model()(torch.tensor(IDS))
    assert len(found) == 2
    assert all(torch.allclose(one, expected, atol=1e-6) for one in found)


@pytest.mark.slow
def test_weights_are_fetched_once_and_other_formats_never(downloaded):
    _, _, requests = downloaded
    assert [method for method, path in requests if path.startswith("/large/")].count("GET") == 1
    asked_for = {path.rsplit("/")[-1] for _, path in requests}
    assert "config.json" in asked_for
    assert not asked_for & {"pytorch_model.bin", "model.onnx"}


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, {"HF_HUB_OFFLINE": "1"}], ids=["unreachable", "offline"])
def test_a_cached_model_needs_no_hub(environment, downloaded, closed_address):
    folder, online, _ = downloaded
    [found] = logits(load("someone/tiny", folder=folder, address=closed_address, **environment))
    assert torch.equal(found, online[0])


@pytest.mark.slow
def test_a_connection_cut_off_on_every_try_leaves_nothing_that_looks_whole(hub, tmp_path):
    hub.cut = True
    sentence = refusal(load("someone/tiny", folder=tmp_path, address=hub.address))
    assert "someone/tiny" in sentence and "--model FOLDER" in sentence
    assert hub.weights_sent() > 1
    assert cached(tmp_path, WEIGHTS) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 20_000] == []


@pytest.mark.slow
def test_wrong_bytes_of_the_right_length_are_refused_now_and_from_the_cache(hub, tmp_path, served_files):
    whole = served_files[WEIGHTS]
    hub.body = whole[:-1] + bytes([whole[-1] ^ 1])
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        sentence = refusal(load("someone/tiny", folder=tmp_path, address=hub.address, **environment))
        [path] = cached(tmp_path, WEIGHTS)
        assert str(path.resolve()) in sentence and "SHA-256" in sentence and "delete" in sentence


@pytest.mark.slow
def test_cached_weights_cut_off_later_are_refused_and_deleting_them_as_told_mends_it(hub, downloaded, tmp_path):
    shutil.copytree(downloaded[0], tmp_path, symlinks=True, dirs_exist_ok=True)
    blob = cached(tmp_path, WEIGHTS)[0].resolve()
    blob.write_bytes(blob.read_bytes()[:1000])
    assert str(blob) in refusal(load("someone/tiny", folder=tmp_path, address=hub.address))
    blob.unlink()
    assert len(logits(load("someone/tiny", folder=tmp_path, address=hub.address))) == 1


@pytest.mark.slow
def test_a_page_in_place_of_the_weights_is_refused(hub, tmp_path):
    hub.body = PAGE
    assert "someone/tiny" in refusal(load("someone/tiny", folder=tmp_path, address=hub.address))
    assert cached(tmp_path, WEIGHTS) == []


@pytest.mark.slow
def test_a_hub_that_answers_every_request_with_a_page_gets_one_sentence(hub, tmp_path):
    hub.portal = True
    assert "someone/tiny" in refusal(load("someone/tiny", folder=tmp_path, address=hub.address))


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, {"HF_HUB_OFFLINE": "1"}], ids=["unreachable", "offline"])
def test_without_hub_and_cache_the_command_says_at_once_what_to_do(environment, tmp_path, closed_address):
    start = time.monotonic()
    sentence = refusal(run(str(ROOT / "ch_pretrain/generate.py"), "--model", "someone/tiny", "--prompt", "hi",
                           folder=tmp_path, address=closed_address, **environment))
    assert time.monotonic() - start < 20  # a client that tries again and again needs longer
    for words in ("someone/tiny", "HF_HUB_OFFLINE", "HF_ENDPOINT", "--model FOLDER"):
        assert words in sentence


@pytest.mark.slow
def test_a_hub_that_does_not_answer_is_given_up_within_half_a_minute(served_files, tmp_path, closed_address):
    """Four faults at once, as each takes its time: files that came whole are kept, and a next try fetches the rest.

    After its patience the client may be at a last request, or waiting for one, for as long again at most."""
    assert 2 * our_hub.PATIENCE <= 30
    seconds, sentences = {}, {}

    def attempt(fault: str, address: str) -> None:
        (tmp_path / fault).mkdir()
        started = time.monotonic()
        sentences[fault] = refusal(run("-c", IMPATIENT + GENERATE, str(ROOT / "ch_pretrain/generate.py"), "--model",
                                       "someone/tiny", "--prompt", "hi", folder=tmp_path / fault, address=address))
        seconds[fault] = time.monotonic() - started

    with contextlib.ExitStack() as stack:
        hubs = {fault: stack.enter_context(serving(served_files)) for fault in ("silent", "stalled", "busy")}
        for fault, hub in hubs.items():
            setattr(hub, fault, True)
        addresses = {fault: hub.address for fault, hub in hubs.items()} | {"unreachable": closed_address}
        threads = [threading.Thread(target=attempt, args=one) for one in addresses.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print({fault: f"{found:.1f} s" for fault, found in seconds.items()})
        assert seconds.keys() == addresses.keys() and max(seconds.values()) < 2 * PATIENCE + START, seconds
        assert all("someone/tiny" in sentence and "--model FOLDER" in sentence for sentence in sentences.values())
        assert len(cached(tmp_path / "stalled", "config.json")) == 1 and cached(tmp_path / "stalled", WEIGHTS) == []
        hubs["stalled"].stalled = False
        assert len(logits(load("someone/tiny", folder=tmp_path / "stalled", address=hubs["stalled"].address))) == 1


@pytest.mark.slow
def test_a_cached_model_needs_no_answer(downloaded, served_files, tmp_path):
    shutil.copytree(downloaded[0], tmp_path, symlinks=True, dirs_exist_ok=True)
    with serving(served_files) as hub:
        hub.silent = True
        [found] = logits(run("-c", IMPATIENT + LOAD, "someone/tiny", folder=tmp_path, address=hub.address))
    assert torch.equal(found, downloaded[1][0])


@pytest.mark.slow
def test_what_the_hub_lacks_or_has_in_another_form_gets_one_sentence_each(hub, tmp_path):
    tiny = hub.repos["someone/tiny"]
    hub.repos["someone/pickled"] = {name: content for name, content in tiny.items() if name != WEIGHTS} | {
        "pytorch_model.bin": tiny[WEIGHTS]}
    hub.repos["openai-community/gpt2"] = tiny  # not the published weights
    names = "someone/absent", "someone/pickled", "gpt2"
    absent, pickled, changed = refusals(load(*names, folder=tmp_path, address=hub.address))

    assert "someone/absent" in absent and "spelling" in absent
    assert "no model.safetensors" in pickled and "pytorch_model.bin" in pickled
    assert f"instead of {PUBLIC['gpt2'].size}" in changed
    revisions = {path.split("/")[4] for _, path in hub.requests if path.startswith("/openai-community/")}
    assert revisions == {PUBLIC["gpt2"].revision}


CONTENT = b"the weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER_SHA256 = hashlib.sha256(b"other weights").hexdigest()


@pytest.fixture
def weights(tmp_path) -> Path:
    path = tmp_path / WEIGHTS
    path.write_bytes(CONTENT)
    return path


def test_pins_name_a_commit_and_a_sha256():
    assert set(PUBLIC) == {"gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "smollm2"}
    for pin in PUBLIC.values():
        assert re.fullmatch(r"[0-9a-f]{40}", pin.revision)
        assert pin.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", pin.sha256)


@pytest.mark.parametrize("size, sha256", [(None, None), (len(CONTENT), None), (None, SHA256), (len(CONTENT), SHA256)])
def test_a_file_that_is_as_pinned_passes(weights, size, sha256):
    assert check_download(weights, Pin("someone/tiny", "main", size, sha256)) is None


@pytest.mark.parametrize("size, sha256, words", [
    (len(CONTENT) + 1, None, f"{len(CONTENT)} bytes instead of {len(CONTENT) + 1}"),
    (len(CONTENT) + 1, SHA256, "bytes"),
    (None, OTHER_SHA256, "SHA-256"),
    (len(CONTENT), OTHER_SHA256, "SHA-256"),
])
def test_a_file_that_is_not_as_pinned_is_refused(weights, size, sha256, words):
    with pytest.raises(InputError, match=words) as refused:
        check_download(weights, Pin("someone/tiny", "main", size, sha256))
    assert str(weights) in str(refused.value)


def test_the_pin_of_the_weights_is_not_asked_of_other_files(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{}")
    assert check_download(path, Pin("someone/tiny", "main", 1, OTHER_SHA256)) is None


def in_cache(folder: Path, content: bytes, *, shared: bool) -> Path:
    """The weights as the hub's client keeps them: a link to a blob named by its SHA-256.

    With `shared`, the blob is itself a link, to a store for all repositories, where names are another kind of hash.
    """
    repo, store = folder / "models--someone--tiny", folder / "blobs" / OTHER_SHA256[:2]
    snapshot, blob = repo / "snapshots" / COMMIT, repo / "blobs" / SHA256
    for place in (snapshot, blob.parent, store):
        place.mkdir(parents=True)
    if shared:
        (store / OTHER_SHA256).write_bytes(content)
        blob.symlink_to(Path("../../blobs", OTHER_SHA256[:2], OTHER_SHA256))
    else:
        blob.write_bytes(content)
    path = snapshot / WEIGHTS
    path.symlink_to(Path("../../blobs", SHA256))
    return path


@pytest.mark.parametrize("shared", [False, True])
def test_the_hash_by_which_the_cache_names_a_file_is_checked(tmp_path, shared):
    pin = Pin("someone/tiny", "main")
    assert check_download(in_cache(tmp_path / "whole", CONTENT, shared=shared), pin) is None
    damaged = in_cache(tmp_path / "damaged", CONTENT[:-1] + b"!", shared=shared)
    with pytest.raises(InputError, match="SHA-256"):
        check_download(damaged, pin)


def test_weights_whose_hub_hash_is_right_but_not_the_pinned_one_are_refused(tmp_path):
    path = in_cache(tmp_path, CONTENT, shared=False)
    with pytest.raises(InputError, match="SHA-256"):
        check_download(path, Pin("someone/tiny", "main", None, OTHER_SHA256))


@pytest.fixture
def here(hub, tmp_path, monkeypatch) -> Hub:
    """A hub that commands in this process ask, with a cache in tmp_path / "cache" and little patience."""
    for place in (our_hub, huggingface_hub.constants):
        monkeypatch.setattr(place, "HUB_CACHE" if place is our_hub else "HF_HUB_CACHE", tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE",
                        hub.address + "/{repo_id}/resolve/{revision}/{filename}")
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.05)))  # the client waits between its tries
    monkeypatch.setattr(our_hub, "PATIENCE", 1.0)
    monkeypatch.setenv("NO_PROXY", "*")
    huggingface_hub.close_session()
    return hub


HEADER = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12) | st.sampled_from(
    ["../..", '"../x"', "W/../x", "/etc/x", "a" * 40, "9" * 5000, "-1", "1e9", "http://[", "//x", "..", '"', "x" * 1000])


def fetch() -> Path:
    return download("someone/tiny", Pin("someone/tiny", "main"), ["*.json", "*.txt", WEIGHTS])


def drip(handler: Handler, what: bytes) -> bool:
    """Again and again, for as long as somebody listens."""
    with contextlib.suppress(OSError):
        while not handler.server.let_go.wait(0.05):
            handler.wfile.write(what)
    return True


def head(handler: Handler, *headers: str) -> None:
    handler.wfile.write("\r\n".join(["HTTP/1.1 200 OK", *headers, "", ""]).encode())


def api(answer: Callable[[Handler], object]) -> Callable[[Handler, str], bool]:
    """Answers so to what is no file."""
    return lambda handler, path: path.startswith("/api/") and (answer(handler), True)[1]


def large(answer: Callable[[Handler], object]) -> Callable[[Handler, str], bool]:
    """Answers so to whoever fetches the weights."""
    return lambda handler, path: path.startswith("/large/") and (answer(handler), True)[1]


def endless_pages(handler: Handler) -> None:
    link = f'Link: <{handler.server.address}/api/models/someone/tiny/tree/x?cursor={time.monotonic()}>; rel="next"'
    body = json.dumps(describe({}) if "/revision/" in handler.path else [])
    head(handler, "Content-Type: application/json", link, f"Content-Length: {len(body)}")
    handler.wfile.write(body.encode())


def endless(handler: Handler) -> None:
    head(handler, "Content-Type: application/json")
    with contextlib.suppress(OSError):
        while not handler.server.let_go.is_set():
            handler.wfile.write(b" " * 100_000)


HOSTILE = {
    "a byte now and then in a head": api(lambda h: drip(h, b"x")),
    "a byte now and then in an answer": api(lambda h: (head(h), drip(h, b" "))),
    "100 Continue without end": lambda h, path: drip(h, b"HTTP/1.1 100 Continue\r\n\r\n"),
    "pages without end": api(endless_pages),
    "an answer without end": api(endless),
    "deep JSON": api(lambda h: (head(h, "Content-Length: 200000"), h.wfile.write(b"[" * 100_000 + b"]" * 100_000))),
    "weights a byte at a time": large(lambda h: (head(h, "Content-Length: 300000"), drip(h, b"x"))),
    "weights that stall": large(lambda h: (head(h, "Content-Length: 300000"), h.server.let_go.wait())),
    "weights longer than announced": large(endless),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", HOSTILE)
def test_a_hub_that_means_ill_gets_an_end(how, here, tmp_path, monkeypatch):
    here.hostile = HOSTILE[how]
    started = time.monotonic()
    with monkeypatch.context() as less, pytest.raises(InputError, match="someone/tiny") as error:
        less.setattr(our_hub, "PATIENCE", 0.5)
        fetch()
    assert time.monotonic() - started < 5 and len(str(error.value).splitlines()) == 1
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()) < 1_000_000
    here.hostile = lambda handler, path: False
    assert (fetch() / WEIGHTS).read_bytes() == here.repos["someone/tiny"][WEIGHTS]  # nothing of it is kept


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ETag", "X-Linked-Etag", "X-Repo-Commit", "sha"])
@pytest.mark.parametrize("place", ["{0}/taken", "../../../taken", "a/b", "x" * 300, "a\\b"])
def test_a_name_that_leads_out_of_the_cache_is_refused(name, place, here, tmp_path):
    place = place.format(tmp_path)
    if name == "sha":
        here.hostile = api(lambda h: h.answer_json(describe(here.repos["someone/tiny"]) | {"sha": place}))
    else:
        here.more = {name: place if name == "X-Repo-Commit" else f'"{place}"'}
    with pytest.raises(InputError, match="what answers is not a model hub"):
        fetch()
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}
    assert not list(tmp_path.rglob("*taken*")) and not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["http://[::1", "http://a:99999999/", "//[", "http://a\x7fb/"])
def test_an_address_that_is_none_is_refused(place, here):
    here.more = {"Location": place}
    with pytest.raises(InputError, match=r"what answers is not a model hub|from the hub failed"):
        fetch()


def test_a_file_that_has_no_room_is_not_begun(here, tmp_path):
    here.more = {"X-Linked-Size": str(10**18)}
    with pytest.raises(InputError, match=r"has 1,000,000,000,000,000,000 bytes, and .* has room for"):
        fetch()
    assert here.weights_sent() == 0


@pytest.mark.slow
def test_names_of_files_that_lead_elsewhere_are_no_files(here):
    for name in ("../x.json", "/etc/x.json", "a/../../x.json", "a\\b.json", "\x1b[2J.json"):
        here.hostile = api(lambda h, name=name: h.answer_json(describe({name: b""})))
        with pytest.raises(InputError, match="what answers is not a dataset hub"):
            dataset_files("someone/tiny")
    here.hostile = api(lambda h: h.answer_json(describe({"data/a b.json": b""})))
    assert dataset_files("someone/tiny") == ["data/a b.json"]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(etag=HEADER, commit=HEADER, size=HEADER | st.integers().map(str), place=HEADER)
def test_any_head_is_taken_or_refused(etag, commit, size, place):
    """And what is taken makes a path within the cache."""
    head = {"ETag": etag, "X-Repo-Commit": commit, "X-Linked-Size": size, "Location": place}
    watch = our_hub.HubWatch()
    watch.began = watch._last = 0.0
    try:
        watch.look(httpx2.Response(302, headers=head, request=httpx2.Request("HEAD", "http://hub/x")))
    except (ValueError, OSError, httpx2.InvalidURL):
        return
    for name in (etag.removeprefix("W/").strip('"'), commit):
        assert Path("cache", name).resolve().parent in (Path("cache").resolve(), Path().resolve())
        assert "/" not in name and ".." not in name
