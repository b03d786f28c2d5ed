"""An arena: two models answer the same question, you say which answer is better, and only then learn who wrote which.

    python ch_instruct/evaluation/arena.py --models classroom runs/ch_instruct/001
    python ch_instruct/evaluation/arena.py --models runs/ch_instruct/001 runs/ch_sftmix/001 --questions classroom

Opens a page on this machine. Which two models answer, and which one stands left, is drawn anew for every question. Votes are
appended to a file of JSON lines and survive restarts; /ratings turns all of them into Bradley-Terry ratings.
"""

import argparse
import ipaddress
import os
import random
import secrets
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ch_instruct.support.data_forms import RecordOptions
from common.support import options
from common.support.console import say
from common.support.files import InputError, Journal


def parse() -> argparse.Namespace:
    parser = options.Parser(__doc__)
    parser.add_argument("--models", nargs="+", required=True, metavar="M",
                        help="two or more models, each as for --model elsewhere: classroom, gpt2, ..., or a checkpoint folder")
    parser.add_argument("--questions", metavar="D",
                        help="questions to choose from: classroom, or a file as for --data, whose outputs are not needed")
    options.add(parser, RecordOptions)
    parser.add_argument("--votes", type=Path, default=Path("runs/arena/votes.jsonl"), metavar="FILE",
                        help="where votes are kept (default: %(default)s)")
    options.add(parser, options.FormatOption)
    parser.add_argument("--max-new-tokens", type=options.whole, default=128, metavar="N",
                        help="longest answer in tokens (default: %(default)s)")
    options.add(parser, options.DeviceOption, options.PrecisionOption)
    parser.add_argument("--host", default="127.0.0.1",
                        help="address to listen at; with any other than the default, whoever reaches this machine can vote "
                             "(default: %(default)s)")
    parser.add_argument("--port", type=options.natural, default=8000, metavar="N",
                        help="port to listen at, 0 for any free one (default: %(default)s)")
    args = parser.parse_args()
    if len(set(args.models)) != len(args.models) or len(args.models) < 2:
        parser.error(f"--models {' '.join(args.models)}: give two or more different models")
    return args


if __name__ == "__main__":
    options.run_command(parse)  # --help and wrong options end here: the imports below take seconds

import torch

from ch_instruct import pipeline
from ch_instruct.encoding import encode_prompt
from ch_instruct.evaluation import arena_pages
from ch_instruct.evaluation.arena_pages import Battle
from ch_instruct.evaluation.ratings import POINTS, rate
from ch_instruct.prompts import question_text
from ch_instruct.records import load_questions
from common.pretrained import load_pretrained
from common.support.device import pick_device, pick_precision

MOST_BYTES = 100_000  # of a question
VOTE = dict.fromkeys(("time", "vote", "question", "left", "right", "left_answer", "right_answer"), str)
MOST_BATTLES = 1000  # are remembered; older ones can no longer be voted on


class Arena:
    """Who answers, what was asked, and how the votes went. Several browsers may use it at once.

    Args:
        answerers: name -> a function from a record to an answer; at least two.
        votes: where votes go, holding those of earlier days.
        questions: records to choose from, may be empty.
    """

    def __init__(self, answerers: dict[str, Callable[[dict], str]], votes: Journal, questions: list[dict]):
        self.answerers, self.votes, self.questions = answerers, votes, questions
        self.battles: dict[str, Battle] = {}
        self.asked = Counter(vote["question"] for vote in votes.entries)
        self.answering, self.voting = threading.Lock(), threading.Lock()  # one question, and one vote, at a time

    def next_question(self) -> dict:
        """The question that was asked least often, the first of these in the file."""
        return min(self.questions, key=lambda record: self.asked[question_text(record)])

    def start(self, record: dict | None) -> str:
        """Let two models, drawn at random, answer a question, by default the next of the file. Returns the battle's id.

        Raises:
            InputError: if a model cannot answer it.
        """
        with self.answering:
            record = record or self.next_question()
            self.asked[question_text(record)] += 1
            names = dict(zip(("left", "right"), random.sample(list(self.answerers), 2)))
            answers = {side: self.answerers[name](record) for side, name in names.items()}
            battle_id = secrets.token_urlsafe(9)
            self.battles[battle_id] = Battle(question_text(record), names, answers)
            if len(self.battles) > MOST_BATTLES:
                del self.battles[next(iter(self.battles))]
            return battle_id

    def vote(self, battle_id: str, vote: str) -> None:
        """Count a vote, one of POINTS, on a battle that is there. A second vote on it changes nothing."""
        with self.voting:
            battle = self.battles[battle_id]
            if battle.vote is None:
                self.votes.append({"time": datetime.now(timezone.utc).isoformat(timespec="seconds"), "vote": vote,
                                   "question": battle.question, **battle.names,
                                   "left_answer": battle.answers["left"], "right_answer": battle.answers["right"]})
                battle.vote = vote


def answerer(name: str, device: torch.device, precision: str, style: str, max_new_tokens: int) -> Callable[[dict], str]:
    """A model as a function from a record to its greedy answer."""
    model, tokenizer = load_pretrained(name, device)

    def answer(record: dict) -> str:
        length = len(encode_prompt(record, tokenizer, style))
        if length >= model.config.n_positions:
            raise InputError(f"That question is too long: it has {length} tokens with the prompt around it, and a model here "
                             f"reads at most {model.config.n_positions - 1} and answers after that. Ask something shorter.")
        [response] = pipeline.answer(model, tokenizer, [record], style, max_new_tokens, precision=precision)
        return response["answer"]

    return answer


def load_votes(path: Path) -> Journal:
    """Open the file of votes.

    Raises:
        InputError: if a line of it is no vote.
    """
    votes = Journal(path, VOTE, "no vote of an arena")
    for number, vote in enumerate(votes.entries, 1):
        if vote["vote"] not in POINTS or vote["left"] == vote["right"]:
            raise InputError(f"--votes {path}, line {number} is no vote of an arena; mend or remove that line, or choose "
                             "another file.")
    return votes


class Server(ThreadingHTTPServer):
    """Serves one arena. Port 0 takes a free one."""

    daemon_threads = True

    def __init__(self, arena: Arena, host: str, port: int):
        self.arena, self.host = arena, host
        super().__init__((host, port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of errors, but not of a browser that went away or fell asleep."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """What to type into the browser."""
        return f"http://{self.host}:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    """Pages by GET; asking and voting by POST, which then leads to the page to look at."""

    server: Server
    timeout = 60  # for browsers that open a connection and send nothing

    def do_GET(self) -> None:
        """Show a page."""
        arena, path = self.server.arena, urlsplit(self.path).path
        kind, _, battle_id = path[1:].partition("/")
        if not self.is_ours():
            self.send(403, "This page is to be opened by the arena's own address.")
        elif path == "/":
            self.send(200, arena_pages.ask_page(bool(arena.questions)))
        elif path == "/ratings":
            votes = arena.votes.entries.copy()
            self.send(200, arena_pages.ratings_page(rate(votes), len(votes)))
        elif kind == "battle" and (battle := arena.battles.get(battle_id)):
            self.send(200, arena_pages.battle_page(battle_id, battle, bool(arena.questions)))
        else:
            self.send(404, arena_pages.ask_page(bool(arena.questions), "That is not there (any more); ask again."))

    def do_POST(self) -> None:
        """Ask, or vote."""
        arena, length = self.server.arena, self.headers.get("Content-Length", "")
        # A form on another site can be sent here, but its browser names that site as the origin.
        if not self.is_ours() or self.headers.get("Origin") != f"http://{self.headers['Host']}":
            return self.send(403, "Questions and votes are taken from the arena's own pages only.")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            return self.send(413, arena_pages.ask_page(bool(arena.questions), "That question is far too long."))
        body = self.rfile.read(int(length))
        if len(body) < int(length):  # the browser went away
            return None
        form = {key: values[0] for key, values in parse_qs(body.decode("utf-8", "replace")).items()}
        if self.path == "/ask":
            question = form.get("question", "").replace("\r\n", "\n").strip()
            if not question and not (form.get("next") and arena.questions):
                return self.send(400, arena_pages.ask_page(bool(arena.questions), "That question is empty; type one."))
            try:
                battle_id = arena.start(None if form.get("next") and arena.questions else {"instruction": question})
            except InputError as error:
                return self.send(400, arena_pages.ask_page(bool(arena.questions), str(error), question))
        elif self.path == "/vote" and form.get("battle") in arena.battles and form.get("vote") in POINTS:
            battle_id = form["battle"]
            arena.vote(battle_id, form["vote"])
        else:
            return self.send(404, arena_pages.ask_page(bool(arena.questions), "That is not there (any more); ask again."))
        self.send(303, "", {"Location": f"/battle/{battle_id}"})

    def is_ours(self) -> bool:
        """Whether the browser was given an address of this machine, and not a name that someone else has pointed at it.

        That a number or "localhost" cannot be redirected, but any other name can (DNS rebinding).
        """
        try:
            name = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
            if name in ("localhost", self.server.host):
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def send(self, status: int, page: str, headers: dict[str, str] | None = None) -> None:
        """Answer with a page."""
        content = page.encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(content))}
                            | arena_pages.HEADERS | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing about each request."""


def main() -> None:
    args = parse()

    questions = (load_questions(args.questions, "--questions", args.fields, args.bad_rows).records if args.questions else [])
    device = pick_device(args.device)
    precision, _ = pick_precision(args.precision, device)
    answerers = {name: answerer(name, device, precision, args.format, args.max_new_tokens) for name in args.models}
    arena = Arena(answerers, load_votes(args.votes), questions)
    try:
        server = Server(arena, args.host, args.port)
    except (OSError, OverflowError) as error:
        raise InputError(f"--host {args.host} --port {args.port} cannot be listened at ({error}); choose another.") from error
    with server:
        try:
            say(f"Open {server.address} in a browser; Ctrl-C ends. Votes so far in {args.votes}: {len(arena.votes.entries)}.")
            server.serve_forever()
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # pressed once more, it does not disturb the end
            with arena.voting:  # a vote that is being written is written whole
                say(f"\nStopped; votes in {args.votes}: {len(arena.votes.entries)}.")
                os._exit(0)  # an answer that is not finished would come back from PyTorch to a Python that is gone: SIGABRT


if __name__ == "__main__":
    options.run_command(main)
