"""The server behind our pages, asked by browsers, by other sites, by what is no browser, and by very many at once."""

import contextlib
import errno
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.support import local_server
from common.support.files import InputError
from common.support.local_server import MOST_BYTES, Answer, LocalServer, Request


def answer(request: Request) -> Answer:
    if request.path == "/refused":
        raise InputError("That is too long; ask something shorter.")
    if request.path == "/full":
        raise OSError(errno.ENOSPC, "No space left on device", "votes.jsonl")
    if request.path == "/go":
        return Answer("", 303, headers=(("Location", "/there"),))
    return Answer(json.dumps({"method": request.method, "form": request.form()}, ensure_ascii=False), kind="application/json")


@contextlib.contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[LocalServer]:
    server = LocalServer(answer, host, 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with serving() as running:
        yield running


def send(server: LocalServer, lines: bytes) -> bytes:
    """What comes back for these bytes; HOST in them is the server's own address."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as browser:
        browser.sendall(lines.replace(b"HOST", b"127.0.0.1:%d" % server.server_port))
        found = b""
        while part := browser.recv(1 << 16):
            found += part
    return found


def get(server: LocalServer, path: str, host: str = "HOST") -> bytes:
    return send(server, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())


def post(server: LocalServer, body: bytes, length: object = None, origin: str = "http://HOST") -> bytes:
    return send(server, b"POST /x HTTP/1.1\r\nHost: HOST\r\nOrigin: %s\r\nContent-Length: %s\r\n\r\n%s" % (
        origin.encode(), str(len(body) if length is None else length).encode(), body))


def test_a_browser_gets_the_answer_and_its_headers(server):
    head, _, body = get(server, "/a?x=1&y=%C3%A4&x=2").partition(b"\r\n\r\n")
    assert json.loads(body) == {"method": "GET", "form": {"x": "1", "y": "ä"}} and head.startswith(b"HTTP/1.0 200 ")
    assert b"Content-Type: application/json" in head and b"default-src 'none'" in head and b"nosniff" in head
    assert json.loads(post(server, b"a=b+c").partition(b"\r\n\r\n")[2]) == {"method": "POST", "form": {"a": "b c"}}
    assert b" 303 " in (moved := get(server, "/go")) and b"Location: /there" in moved


def test_what_cannot_be_done_is_a_sentence_in_the_browser(server, capsys):
    assert b" 400 " in (refused := get(server, "/refused")) and refused.endswith(b"ask something shorter.")
    assert b" 500 " in (full := get(server, "/full")) and b"votes.jsonl: No space left on device" in full
    assert capsys.readouterr().out == "Not done: votes.jsonl: No space left on device.\n"


def test_other_sites_are_refused(server):
    for host in ("example.org", "", "127.0.0.1.example.org", "[::1", "0"):
        assert b" 403 " in get(server, "/", host)
    for origin in ("https://HOST", "null", "http://example.org", ""):
        assert b" 403 " in post(server, b"a=b", origin=origin)
    assert b" 200 " in get(server, "/", "localhost:80")


def test_a_name_is_the_same_in_capitals():
    with serving("LocalHost") as named:
        assert named.address == f"http://localhost:{named.server_port}/"
        named.host = "my-machine"
        assert b" 200 " in get(named, "/", "My-Machine:1") and b" 403 " in get(named, "/", "other")


@pytest.mark.parametrize("lines", [
    b"GET http://[ HTTP/1.1\r\nHost: HOST\r\n\r\n", b"<b>x</b> / HTTP/1.1\r\nHost: HOST\r\n\r\n", b"GET / HTTP/9.x\r\n\r\n",
    b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    b"\xff\xfe\0\r\n\r\n"],
    ids=["target", "method", "version", "long line", "many headers", "bytes"])
def test_what_is_no_request_is_refused_and_not_repeated(lines, server, capfd):
    found = send(server, lines)
    assert found and b"<b>" not in found.partition(b"\r\n\r\n")[2] and b"200 OK" not in found
    assert b" 200 " in get(server, "/")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("length", ["9" * 5000, "many", "", "-1", "\u0663", MOST_BYTES + 1])
def test_a_body_has_a_length_and_a_limit(length, server, capfd):
    assert b" 413 " in post(server, b"a=b", length)
    assert capfd.readouterr().err == ""


def test_a_place_where_nobody_can_listen():
    with serving() as server:
        for host, port in (("127.0.0.1", server.server_port), ("127.0.0.1", 99_999), ("no such name", 0), ("a" * 70, 0),
                           ("a..b", 0)):
            with pytest.raises(InputError, match="cannot be listened at"):
                LocalServer(answer, host, port)


@pytest.mark.slow
def test_hundreds_of_slow_connections_keep_nobody_waiting(server, monkeypatch):
    monkeypatch.setattr(local_server, "MOST_WAITING", 50)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", server.server_port))) for _ in range(400)]
        for connection in slow[::2]:
            with contextlib.suppress(OSError):  # closed for a newer one
                connection.sendall(b"GET / HTTP/1.1\r\nHost: ")
        started = time.monotonic()
        assert b" 200 " in get(server, "/")
        assert time.monotonic() - started < 5
        assert len(server._waiting) <= 50


@pytest.mark.slow
def test_a_burst_is_answered_whole(server):
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(post(server, b"a=b"))) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 100 and all(b" 200 " in one for one in found)
    assert server._waiting == {}


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(host=st.text(max_size=20), sent=st.text(max_size=30))
def test_any_host_and_any_form_are_read(host, sent):
    with serving() as server:
        assert server.is_ours(host) in (True, False)
    assert isinstance(Request("POST", "/", "", sent).form(), dict)


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["&", "=", "%", "%41", "a=b&", "+", "\u2603"])
def test_a_form_as_long_as_it_may_be_is_read_at_once(piece):
    started = time.process_time()
    assert len(Request("POST", "/", "", piece * MOST_BYTES).form()) <= 1
    assert time.process_time() - started < 5
