"""A page on this machine that answers: the way in which a command serves a browser, with Python's own server.

    server = LocalServer(answer, "127.0.0.1", 8000)        # answer: a function Request -> Answer
    server.serve("Ctrl-C ends.")

Only a browser that was given this machine's own address is answered: another site can neither read nor send anything, even
if its name has been pointed at this machine. Bodies are short, and slow connections hold up nobody.
"""

import base64
import contextlib
import hashlib
import ipaddress
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from common.support import options
from common.support.console import say
from common.support.files import InputError

MOST_BYTES = 100_000  # of what a browser sends with POST
MOST_WAITING = 200  # connections whose browser sends or takes nothing; the one that waits longest is closed for a further one
SECONDS = 60  # so long a browser may do so
# Nothing but the page's own style and forms, whatever an answer contains; no other page may frame this one.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
# How our pages look, in both colour schemes.
STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1d2433, #e6e9f0); --soft: light-dark(#566072, #a7b0c0);
        --line: light-dark(#d5dae3, #3d4656); --paper: light-dark(#f5f6f9, #171b23); --card: light-dark(#fff, #20262f);
        --accent: light-dark(#2457c5, #86aefc) }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.45 system-ui, sans-serif }
.soft { color: var(--soft) }
.scroll { overflow-x: auto }
button, textarea { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--soft); border-radius: 8px;
                   padding: 6px 14px }
button { cursor: pointer }
button:hover, button:focus-visible { border-color: var(--accent) }
textarea { width: 100%; resize: vertical }
"""


def only_script(script: str) -> str:
    """The part of a policy by which a browser runs this one script and no other, whatever a text on the page contains."""
    return f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@dataclass(frozen=True)
class ServerOptions(options.Options):
    """Where to listen."""

    host: str = options.option("127.0.0.1", "address to listen at; with any other than the default, whoever reaches this "
                               "machine can use the page (default: %(default)s)")
    port: int = options.option(8000, "port to listen at, 0 for any free one (default: %(default)s)", options.natural,
                               metavar="N")


class Request(NamedTuple):
    """What a browser asks for: "GET" or "POST", the path, what stands behind "?" in the address, and the body of a POST."""

    method: str
    path: str
    query: str
    body: str

    def form(self) -> dict[str, str]:
        """The fields of a form: those of the body for POST, those of the address for GET; of a repeated one the first."""
        sent = self.body if self.method == "POST" else self.query
        return {name: values[0] for name, values in parse_qs(sent).items()}


class Answer(NamedTuple):
    """What the browser gets. `headers` are added to those that every answer has."""

    content: str
    status: int = 200
    kind: str = "text/html"
    headers: tuple[tuple[str, str], ...] = ()


def problem(sentence: str, status: int) -> Answer:
    """A sentence instead of what was asked for, as plain text."""
    return Answer(sentence, status, "text/plain")


class LocalServer(ThreadingHTTPServer):
    """Answers browsers until Ctrl-C, several at once: `answer` is called from a thread for each request.

    Args:
        answer: makes an Answer of a Request. What it raises as InputError or OSError becomes a sentence in the browser.
        host, port: where to listen; port 0 takes a free one.
        policy: the Content-Security-Policy of every page.

    Raises:
        InputError: if that place cannot be listened at.
    """

    request_queue_size = 128  # connections that the system holds until we take them; Python's 5 let a burst wait for seconds

    def __init__(self, answer: Callable[[Request], Answer], host: str, port: int, policy: str = POLICY):
        self.answer, self.host, self.policy = answer, host.lower(), policy
        self._waiting: dict[socket.socket, None] = {}  # for their browser, the longest first
        self._lock = threading.Lock()
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError, UnicodeError) as error:
            raise InputError(f"--host {host} --port {port} cannot be listened at ({error}); choose another.") from error

    @property
    def address(self) -> str:
        """What to type into the browser."""
        return f"http://{self.host}:{self.server_port}/"

    def serve(self, note: str, ended: Callable[[], str] = lambda: "Stopped.") -> None:
        """Print the address and `note`, serve until Ctrl-C, print what `ended` returns, and end the process.

        What must not be cut off, such as writing a file, `ended` can wait for.
        """
        with self:
            try:
                say(f"Open {self.address} in a browser; {note}")
                self.serve_forever()
            except KeyboardInterrupt:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # pressed once more, it does not disturb the end
                say(f"\n{ended()}")
                os._exit(0)  # an answer that is not finished would come back from PyTorch to a Python that is gone: SIGABRT

    def is_ours(self, host: str) -> bool:
        """Whether a browser was given an address of this machine, and not a name that someone else has pointed at it.

        That a number or "localhost" cannot be redirected, but any other name can (DNS rebinding).
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name not in ("localhost", self.host):
                ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def wait(self, connection: socket.socket) -> None:
        """From now on the connection waits for its browser."""
        with self._lock:
            self._waiting[connection] = None
            if len(self._waiting) > MOST_WAITING:
                longest = next(iter(self._waiting))
                del self._waiting[longest]
                with contextlib.suppress(OSError):  # the browser has gone meanwhile
                    longest.shutdown(socket.SHUT_RDWR)  # its thread sees the end, and closes it

    def go_on(self, connection: socket.socket) -> None:
        """It no longer does."""
        with self._lock:
            self._waiting.pop(connection, None)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take a connection, in a thread of its own."""
        self.wait(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        self.go_on(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of errors, but not of a browser that went away or fell asleep."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection; as of HTTP/1.0 it ends with the answer."""

    server: LocalServer
    timeout = SECONDS

    def do_GET(self) -> None:
        self._reply()

    def do_POST(self) -> None:
        host, length = self.headers.get("Host", ""), self.headers.get("Content-Length", "")
        # A form on another site can be sent here, but its browser names that site as the origin.
        if self.headers.get("Origin") != f"http://{host}":
            self._send(problem("This is taken from the page's own forms only.", 403))
        elif not re.fullmatch("[0-9]{1,9}", length) or int(length) > MOST_BYTES:
            self._send(problem(f"That is far too long: at most {MOST_BYTES:,} bytes.", 413))
        else:
            body = self.rfile.read(int(length))
            if len(body) == int(length):  # else the browser went away
                self._reply(body.decode("utf-8", "replace"))

    def _reply(self, body: str = "") -> None:
        try:
            address = urlsplit(self.path)
        except ValueError:  # such as http://[
            return self._send(problem("That is no address.", 400))
        if not self.server.is_ours(self.headers.get("Host", "")):
            return self._send(problem("This page is to be opened by its own address.", 403))
        self.server.go_on(self.connection)
        try:
            answer = self.server.answer(Request(self.command, address.path, address.query, body))
        except InputError as error:
            answer = problem(str(error), 400)
        except OSError as error:  # a full disk, a folder that has gone
            say(sentence := f"Not done: {error.filename or 'a file'}: {error.strerror or error}.")
            answer = problem(f"{sentence} Go back and try again when that is mended.", 500)
        self.server.wait(self.connection)
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        content = answer.content.encode("utf-8", "replace")
        self.send_response(answer.status)
        for name, value in (("Content-Type", f"{answer.kind}; charset=utf-8"), ("Content-Length", str(len(content))),
                            ("Content-Security-Policy", self.server.policy), ("X-Content-Type-Options", "nosniff"),
                            ("Referrer-Policy", "same-origin"), ("Cache-Control", "no-store"), *answer.headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """For requests that are none; Python's own page would repeat parts of them."""
        self._send(problem("That request cannot be answered.", code))

    def log_message(self, *_: object) -> None:
        """Say nothing about each request."""
