"""An OpenAI-compatible server (Ollama, llama.cpp, `transformers serve`, a hosted one) as seen from here."""

import json
import os
import re
import time
from urllib.parse import urlsplit

import httpx2

from common.support.bounded import NoProgress, Watch
from common.support.console import shorten
from common.support.files import InputError, check, parse_json

KEY_VARIABLE = "JUDGE_API_KEY"  # its own name, so that no other service's key is sent to a server it is not meant for
TRIES = 5
MOST_BYTES = 4 << 20  # of an answer
FIRST_WAIT = 1.0  # seconds before the second try; doubled before each further one
LONGEST_WAIT = 60.0  # however long a server asks to be left alone
PROBE_TIMEOUT = 10.0
MAX_TOKENS = 1024  # room for a reason before the verdict, and for models that think aloud
LOOPBACK = ("127.0.0.1", "localhost", "::1")
FAILURES = (NoProgress, httpx2.HTTPError, OSError, UnicodeError)  # the last for a host whose name is none


class NoReply(Exception):
    """One request got no reply; the message says why."""


class JudgeServer:
    """Asks one model on one server. The key, if any, goes into the request's header and nowhere else.

    Args:
        url: the server's address up to and with /v1.
        timeout: seconds to wait for a whole answer, whatever the server does meanwhile.

    Raises:
        InputError: if the address or the key cannot be used.
    """

    def __init__(self, url: str, model: str, timeout: float):
        url = url.strip()
        try:
            parts = urlsplit(url)
            self.host, self.port = parts.hostname, parts.port
            httpx2.URL(url)
        except (ValueError, httpx2.InvalidURL) as error:  # not shown: it may hold a secret
            raise InputError("--url is not an address; it looks like http://127.0.0.1:11434/v1.") from error
        if parts.scheme not in ("http", "https") or not self.host:
            raise InputError(f"--url {shorten(url)} is not an address; it looks like http://127.0.0.1:11434/v1.")
        if parts.username is not None or parts.query or parts.fragment:  # not shown: it may hold a secret
            raise InputError(f"--url holds more than an address; a key belongs in the environment variable {KEY_VARIABLE}.")
        self.url, self.model, self.timeout = url.rstrip("/"), model, timeout
        self.key = os.environ.get(KEY_VARIABLE, "").strip()
        if not (self.key.isascii() and self.key.isprintable()):
            raise InputError(f"{KEY_VARIABLE} holds characters that no key has; set it again.")
        # What a server may write instead of each character of the key, in JSON: itself, \/, \u0073; in a text in that, \\u0073.
        self._key = re.compile("".join(rf"\\{{0,9}}(?:{re.escape(char)}|u00(?i:{ord(char):02x}))" for char in self.key))
        self.client = httpx2.Client(trust_env=self.host not in LOOPBACK)  # a proxy is for what is outside
        self.watch = Watch(self.client, timeout, timeout, MOST_BYTES)

    def probe(self) -> list[str]:
        """Ask what models the server has, before any work is done.

        Returns:
            Their names; none if the server does not list them.

        Raises:
            InputError: if no OpenAI-compatible server answers, or it wants another key.
        """
        try:
            status, text, _ = self._fetch("/models", None, min(PROBE_TIMEOUT, self.timeout))
        except FAILURES as error:
            raise InputError(f"--url {self.url}: no server answers there ({_reason(error)}); "
                             f"{self._how_to_start()}.") from error
        self._refuse(status, text)
        if status >= 500:  # `transformers serve` has no list without a hub cache, but can answer
            return []
        try:
            return [model["id"] for model in parse_json(text, {"data": [{"id": str}]})["data"]]
        except (ValueError, RecursionError) as error:
            raise InputError(f"--url {self.url}: what answers there is not an OpenAI-compatible server (HTTP {status} to "
                             f"/models: {shorten(text)!r}); with most of those the address ends in /v1.") from error

    def request(self, prompt: str) -> dict:
        """What is sent for this prompt. Temperature 0: the same question gets the same reply, as far as the server can."""
        return {"model": self.model, "messages": [{"role": "user", "content": prompt}], "temperature": 0,
                "max_tokens": MAX_TOKENS}

    def ask(self, prompt: str) -> tuple[str, bool]:
        """The model's reply, and whether MAX_TOKENS cut it off.

        What may pass (429, 5xx, time-outs, cut connections) is tried again, at growing distances.

        Raises:
            NoReply: if this request failed for good.
            InputError: if every request would fail: a wrong key, no such model.
        """
        asked_wait = 0.0
        for attempt in range(TRIES):
            if attempt:
                time.sleep(max(FIRST_WAIT * 2 ** (attempt - 1), asked_wait))
            try:
                status, text, asked_wait = self._fetch("/chat/completions", self.request(prompt), self.timeout)
            except FAILURES as error:
                problem = _reason(error)
                continue
            if status != 429 and status < 500:
                break
            problem = f"HTTP {status}: {shorten(text)}"
        else:
            raise NoReply(f"{problem} ({TRIES} tries)")
        self._refuse(status, text)
        if status != 200:
            raise NoReply(f"HTTP {status}: {shorten(text)}")
        try:
            check(content := json.loads(text), {"choices": [{"message": {"content": object}}]})
            choice = content["choices"][0]
        except (ValueError, LookupError, RecursionError) as error:
            raise NoReply(f"not a chat completion: {shorten(text)}") from error
        # Null where a hosted model refuses; half a character where the reply was cut inside one.
        reply = choice["message"]["content"]
        text = reply.encode("utf-8", "replace").decode() if isinstance(reply, str) else ""
        return text, choice.get("finish_reason") == "length"

    def _fetch(self, path: str, body: dict | None, timeout: float) -> tuple[int, str, float]:
        """One request: the status, the text, and for how many seconds the server asks to be left alone.

        Raises:
            one of FAILURES: if there is no whole answer of at most MOST_BYTES in `timeout` seconds.
        """
        self.watch.patience = self.watch.wait = timeout
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}  # left out where we are sent to another host
        with self.watch:
            answer = self.client.request("GET" if body is None else "POST", self.url + path, json=body, headers=headers)
        text = answer.content.decode("utf-8", "replace")
        if len(self.key) >= 8:  # some servers repeat the key; shorter ones, as local servers take them, are no secret
            text = self._key.sub("[key]", text)
        seconds = answer.headers.get("Retry-After", "")
        return answer.status_code, text, min(float(seconds), LONGEST_WAIT) if seconds.isdecimal() else 0.0

    def _refuse(self, status: int, text: str) -> None:
        """End the run where asking on would be in vain."""
        if status in (401, 403):
            state = "the key in it is refused" if self.key else "it is not set"
            raise InputError(f"--url {self.url}: the server wants a key (HTTP {status}: {shorten(text)!r}); put the right one "
                             f"into the environment variable {KEY_VARIABLE}, {state}.")
        if status == 404:
            raise InputError(f"--url {self.url}: the server answers 404 ({shorten(text)!r}); check that the address ends in "
                             f"/v1 and that it has the --judge-model {self.model}.")

    def _how_to_start(self) -> str:
        if self.host not in LOOPBACK:
            return "check the address and the network"
        port = self.port or 80
        ollama = "ollama serve" if port == 11434 else f"OLLAMA_HOST={self.host}:{port} ollama serve"
        return (f"start one in another terminal with `{ollama}` (and fetch the model with `ollama pull {self.model}`), "
                f"`llama-server -m MODEL.gguf --port {port}`, or `transformers serve --port {port}`")


def _reason(error: Exception) -> str:
    """Why there was no whole answer, in a few words."""
    if isinstance(error, (NoProgress, httpx2.TimeoutException)):
        return "no answer in time"
    if isinstance(error, (httpx2.NetworkError, httpx2.ProtocolError)) and not isinstance(error, httpx2.ConnectError):
        return "connection cut"
    return re.sub(r"\[Errno -?[0-9]+\] ", "", shorten(str(error)))
