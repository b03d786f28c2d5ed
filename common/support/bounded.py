"""Requests that end, whatever the other side does: those of the hub's client, and those to a judge's server.

A time limit of a connection begins anew with each byte, so a byte every two seconds never ends. Here one clock runs, and
when nothing that counts has come for too long, all connections are cut.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2

MOST_BYTES = 20 << 20  # of an answer that is no file
CHUNK = 300_000  # bytes of a file that count as progress; in 15 seconds that is 20 kB a second
MOST_REDIRECTS = 10


class NoProgress(Exception):
    """Nothing that counts has come for too long."""


class Watch:
    """Watches over all requests of a client, within `with`.

    Args:
        client: its `send` is replaced meanwhile.
        patience: seconds without progress after which its connections are cut. Progress is what calls `heard`: the start, and
            each CHUNK of a file.
        wait: seconds for each of connecting, sending and reading on.
        most_bytes: of an answer, after unpacking.

    Raises:
        NoProgress: from within the client.
        OSError: if an answer is longer than it may be.
    """

    def __init__(self, client: httpx2.Client, patience: float, wait: float, most_bytes: int = MOST_BYTES):
        self.client, self.patience, self.wait, self.most_bytes = client, patience, wait, most_bytes
        self._send = client.send
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> "Watch":
        self.began = self._last = time.monotonic()
        self._ended = threading.Event()
        self.client.send = self.send  # type: ignore[method-assign]
        self._guard = threading.Thread(target=self._cut_when_over, daemon=True)
        self._guard.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._guard.join()  # a late one would cut the connections of the next request
        self.client.send = self._send  # type: ignore[method-assign]

    def heard(self) -> None:
        """There is progress."""
        self._last = time.monotonic()

    def look(self, answer: httpx2.Response) -> None:
        """What else is to be done with an answer; its body has been read, if it is no file."""

    def most(self, request: httpx2.Request) -> int:
        """How many bytes the file that is asked for may have."""
        return self.most_bytes

    def send(self, request: httpx2.Request, *, stream: bool = False, follow_redirects: Any = True,
             **options: Any) -> httpx2.Response:
        """In place of the client's own. A redirect's body is not read; a key goes to no other host (httpx2 sees to it)."""
        most = self.most(request) if stream else self.most_bytes
        with self._cut():
            for _ in range(MOST_REDIRECTS):
                limits = dict.fromkeys(("connect", "read", "write", "pool"), self.wait)
                request.extensions = request.extensions | {"timeout": limits, "trace": self._trace}
                answer = self._send(request, stream=True, follow_redirects=False, **options)
                if follow_redirects is False or answer.next_request is None:
                    break
                answer.close()
                request = answer.next_request
            else:
                raise OSError("it redirects without end")
            parts = answer.iter_bytes(CHUNK)
            answer.iter_bytes = lambda chunk_size=None: self._held(parts, most)  # type: ignore[method-assign]
            if not stream:
                answer.read()
        self.look(answer)
        return answer

    def _held(self, parts: Iterator[bytes], most: int) -> Iterator[bytes]:
        with self._cut():
            for part in parts:
                most -= len(part)
                if most < 0:
                    raise OSError("its answer is longer than it may be")
                if len(part) == CHUNK:
                    self.heard()
                yield part

    def _is_over(self) -> bool:
        return time.monotonic() - self._last > self.patience

    @contextlib.contextmanager
    def _cut(self) -> Iterator[None]:
        """Raises NoProgress for what comes of cutting: an error, or the end of a body whose length was not said."""
        if self._is_over():
            raise NoProgress
        try:
            yield
        except (httpx2.HTTPError, OSError) as error:
            if not self._is_over():
                raise
            raise NoProgress from error
        if self._is_over():
            raise NoProgress

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._sockets.append(info["return_value"].get_extra_info("socket"))

    def _cut_when_over(self) -> None:
        while not self._ended.wait(0.1):
            if self._is_over():
                for connection in self._sockets:
                    with contextlib.suppress(OSError):  # closed already
                        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # of TLS, too, the plain way: a reader wakes
