"""An arena: two models answer the same question. You say which answer is better, and only then see who wrote which.

    python ch_instruct/evaluation/arena.py --models classroom runs/ch_instruct/001
    python ch_instruct/evaluation/arena.py --models runs/ch_instruct/001 runs/ch_sftmix/001 --questions classroom

Opens a page on this machine. For every question it draws anew which two models answer and which one is on the left. Votes are
appended to a file of JSON lines and survive restarts. /ratings turns all of them into Bradley-Terry ratings.
"""

import random
import secrets
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from ch_instruct.support.data_forms import RecordOptions
from common.support import options
from common.support.files import InputError, Journal
from common.support.local_server import Answer, LocalServer, Request, ServerOptions
from common.support.options import REQUIRED, DeviceOption, FormatOption, PrecisionOption, SamplingOptions, option


@dataclass(frozen=True)
class ArenaOptions(ServerOptions, PrecisionOption, DeviceOption, SamplingOptions, FormatOption, RecordOptions):
    """The options of this command."""

    models: tuple[str, ...] = option(REQUIRED, "two or more models, each as for --model elsewhere: classroom, gpt2, ..., or a "
                                     "checkpoint folder", nargs="+", metavar="M")
    questions: str | None = option(None, "questions to choose from: classroom, or a file as for --data, whose outputs are not "
                                   "needed", metavar="D")
    part: str = option("all", "of --questions: all, or those held out from the models that were trained on this file (default: "
                       "%(default)s)", choices=["all", "test"])
    votes: Path = option(Path("runs/arena/votes.jsonl"), "where votes are kept (default: %(default)s)", Path, metavar="FILE")
    temperature: float = 0.0  # as the tests of the chapters ask

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.models)) != len(self.models) or len(self.models) < 2:
            raise InputError(f"--models {' '.join(self.models)}: give two or more different models; --help lists all options.")
        if self.part == "test" and not self.questions:
            raise InputError("--part test: the part of which file? Give --questions, too; --help lists all options.")


if __name__ == "__main__":
    options.run_command(options.parse, ArenaOptions, __doc__)  # --help and wrong options end here: imports take seconds

import torch

from ch_instruct import pipeline
from ch_instruct.encoding import encode_prompt
from ch_instruct.evaluation import arena_pages
from ch_instruct.evaluation.arena_pages import Battle
from ch_instruct.evaluation.ratings import POINTS, rate
from ch_instruct.prompts import question_text
from ch_instruct.records import load_questions
from ch_instruct.support.held_out import choose_part
from ch_instruct.support.prompt_style import choose_style, end_as
from common.pretrained import load_pretrained
from common.sampling import GREEDY, Sampling, asked_for
from common.support.device import pick_device, pick_precision

VOTE = dict.fromkeys(("time", "vote", "question", "left", "right", "left_answer", "right_answer"), str)
MOST_WAITING = 8  # questions at once; more would only keep each other, and whoever votes, waiting
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
        self.places = threading.Semaphore(MOST_WAITING)

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


def answerer(name: str, device: torch.device, precision: str, style: str, max_new_tokens: int,
             how: Sampling = GREEDY) -> Callable[[dict], str]:
    """A model as a function from a record to its answer; where it is drawn, another one each time."""
    model, tokenizer = load_pretrained(name, device)
    end_as(style, tokenizer)

    def answer(record: dict) -> str:
        length = len(encode_prompt(record, tokenizer, style))
        if length >= model.config.n_positions:
            raise InputError(f"That question is too long: it has {length} tokens with the prompt around it, and a model here "
                             f"reads at most {model.config.n_positions - 1} and answers after that. Ask something shorter.")
        [response] = pipeline.answer(model, tokenizer, [record], style, max_new_tokens, precision=precision, how=how,
                                     seed=random.getrandbits(32))
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


def pages(arena: Arena) -> Callable[[Request], Answer]:
    """What the arena answers to a browser: pages for GET; for POST, which asks or votes, the page to look at then."""
    with_file = bool(arena.questions)

    def ask_page(status: int, why: str, typed: str = "") -> Answer:
        return Answer(arena_pages.ask_page(with_file, why, typed), status)

    def show(path: str) -> Answer:
        kind, _, battle_id = path[1:].partition("/")
        if path == "/":
            return ask_page(200, "")
        if path == "/ratings":
            votes = arena.votes.entries.copy()
            return Answer(arena_pages.ratings_page(rate(votes), len(votes)))
        if kind == "battle" and (battle := arena.battles.get(battle_id)):
            return Answer(arena_pages.battle_page(battle_id, battle, with_file))
        return ask_page(404, "That is not there (any more); ask again.")

    def answer(request: Request) -> Answer:
        form = request.form()
        if request.method == "GET":
            return show(request.path)
        if request.path == "/ask":
            question = form.get("question", "").replace("\r\n", "\n").strip()
            if not question and not (form.get("next") and with_file):
                return ask_page(400, "That question is empty; type one.")
            if not arena.places.acquire(blocking=False):
                return ask_page(503, f"{MOST_WAITING} questions wait for an answer already; ask again in a while.", question)
            try:
                battle_id = arena.start(None if form.get("next") and with_file else {"instruction": question})
            except InputError as error:
                return ask_page(400, str(error), question)
            finally:
                arena.places.release()
        elif request.path == "/vote" and form.get("battle") in arena.battles and form.get("vote") in POINTS:
            battle_id = form["battle"]
            arena.vote(battle_id, form["vote"])
        else:
            return ask_page(404, "That is not there (any more); ask again.")
        # The page to look at, which can be loaded again without sending anything again.
        return Answer("", 303, headers=(("Location", f"/battle/{battle_id}"),))

    return answer


def main() -> None:
    args = options.parse(ArenaOptions, __doc__)

    questions = (choose_part(load_questions(args.questions, "--questions", args.fields, args.bad_rows), args.models,
                             args.part).records if args.questions else [])
    device = pick_device(args.device)
    precision, _ = pick_precision(args.precision, device)
    answerers = {name: answerer(name, device, precision, choose_style(name, args.format), args.max_new_tokens,
                                asked_for(args)) for name in args.models}
    arena = Arena(answerers, load_votes(args.votes), questions)
    server = LocalServer(pages(arena), args.host, args.port, arena_pages.ALLOWED)
    args.votes.parent.mkdir(parents=True, exist_ok=True)  # if that is impossible, better now than at the first vote

    def ended() -> str:
        arena.voting.acquire()  # a vote that is being written is written whole, and none begins
        return f"Stopped; votes in {args.votes}: {len(arena.votes.entries)}."

    server.serve(f"Ctrl-C ends. Votes so far in {args.votes}: {len(arena.votes.entries)}.", ended)


if __name__ == "__main__":
    options.run_command(main)
