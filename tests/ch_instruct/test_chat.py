"""Talking with a model: as a user at a terminal, and part by part."""

import json
import os
import pty
import select
import sys
import time
from pathlib import Path

import pytest
import torch

from ch_instruct import chat
from ch_instruct.chat import Chat, ChatOptions
from ch_instruct.encoding import encode_prompt
from ch_instruct.records import load_records, split_records
from ch_pretrain import classroom
from common.fast.answering import continue_all
from common.pretrained import load_pretrained, save_pretrained
from common.tokenizer import Tokenizer
from tests.conftest import ENVIRONMENT, run_here
from tests.models import make_model
from tests.started import start


class Terminal:
    """chat.py at a pseudo-terminal of its own, so that Ctrl-C is the key and not a signal sent by hand."""

    def __init__(self, folder: Path, *options: object):
        self.screen, self.inside = pty.openpty()
        [self.process] = start("ch_instruct/chat.py", *options, folder=folder, environment=ENVIRONMENT | {"TERM": "dumb"},
                               terminal=os.ttyname(self.inside))
        self.seen = ""

    def read(self) -> str:
        """What came within a tenth of a second; "" if nothing."""
        if not select.select([self.screen], [], [], 0.1)[0]:
            return ""
        return os.read(self.screen, 65536).decode(errors="replace").replace("\r\n", "\n")

    def until(self, text: str) -> str:
        """Everything up to and including `text`, which must come within a minute."""
        deadline = time.monotonic() + 60
        while text not in self.seen:
            assert time.monotonic() < deadline and self.process.is_alive(), f"no {text!r} in {self.seen!r}"
            self.seen += self.read()
        before, text, self.seen = self.seen.partition(text)
        return before + text

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def press(self, key: str, text: str) -> None:
        """Press a key until `text` comes: between showing its prompt and waiting for a key, input() can miss Ctrl-C."""
        deadline = time.monotonic() + 60
        while text not in self.seen:
            assert time.monotonic() < deadline and self.process.is_alive(), f"no {text!r} in {self.seen!r}"
            self.type(key)
            for _ in range(10):
                self.seen += self.read()
        self.until(text)

    def ask(self, question: str) -> str:
        """Type a question; the answer as it stands on the screen."""
        self.type(question + "\n")
        self.until("model> ")
        return self.until("\nyou> ").removesuffix("\nyou> ")

    def end(self) -> int:
        """The exit status, which must come within a minute."""
        deadline = time.monotonic() + 60
        while self.process.exitcode is None:
            assert time.monotonic() < deadline, "it does not end"
            self.seen += self.read()
        return self.process.exitcode


@pytest.fixture
def terminal(request):
    """Starts chats and ends what is left of them."""
    started = []

    def start(folder: Path, *options: object) -> Terminal:
        started.append(Terminal(folder, *options))
        started[-1].until("you> ")
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.join()
        os.close(one.screen)
        os.close(one.inside)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model trained on a file of conversations of two turns, and what the command told."""
    folder = tmp_path_factory.mktemp("talk")
    plain = [record for record in classroom.records() if not record["input"]][:80]
    talks = [{"messages": [message for record in pair for message in (
        {"role": "user", "content": record["instruction"]}, {"role": "assistant", "content": record["output"]})]}
        for pair in zip(plain[::2], plain[1::2])]
    (folder / "talk.jsonl").write_text("\n".join(map(json.dumps, talks)))
    done = run_here("ch_instruct/train.py", "--smoke", "--data", "talk.jsonl", "--format", "phi3", "--precision", "fp32",
                    "--out", "run", folder=folder)
    return folder, done.stdout


@pytest.mark.slow
def test_a_file_of_conversations_trains_on_the_assistants_tokens(trained):
    folder, _ = trained
    facts = json.loads((folder / "run" / "run.json").read_text())["facts"]
    _, tokenizer = load_pretrained(folder / "run")
    parts = split_records(load_records(str(folder / "talk.jsonl")).records, seed=0)
    said = [message["content"] for record in parts["train"] for message in record["messages"] if message["role"] == "assistant"]
    assert facts["supervised_tokens"] == sum(len(tokenizer.encode(text)) + 1 for text in said)  # and the end of each
    assert facts["records"]["train"] == len(parts["train"]) == len(said) / 2

    responses = json.loads((folder / "run" / "responses.json").read_text())
    assert [r["output"] for r in responses] == [record["messages"][-1]["content"] for record in parts["test"]]
    assert all(isinstance(r["answers"]["ntp"]["answer"], str) for r in responses)


@pytest.mark.slow
def test_it_holds_a_conversation_at_a_terminal(trained, terminal):
    folder, _ = trained
    screen = terminal(folder, "--model", "run", "--format", "phi3", "--greedy", "--max-new-tokens", 24, "--system", "Be brief.",
                      "--precision", "fp32")
    questions = ["What is the capital of France?", "And what is 2 plus 3?"]
    answers = [screen.ask(question) for question in questions]

    model, tokenizer = load_pretrained(folder / "run")
    messages = [{"role": "system", "content": "Be brief."}]
    for question, answer in zip(questions, answers):  # each question is asked with all that was said before
        messages.append({"role": "user", "content": question})
        [expected] = continue_all(model, [encode_prompt({"messages": messages}, tokenizer, "phi3")], 24, tokenizer.eot_id)
        text = tokenizer.decode(expected.ids)
        assert answer == text + ("" if expected.stopped else " [stopped after 24 tokens]")
        messages.append({"role": "assistant", "content": text.strip()})

    screen.type("/save said.json\n")
    screen.until("[5 messages in said.json]")
    assert load_records(str(folder / "said.json")).records[0]["messages"] == messages
    screen.type("/reset\n")
    screen.until("[forgotten]")
    assert screen.ask(questions[0]) == answers[0]
    screen.type("\x04")
    assert screen.end() == 0


@pytest.mark.slow
def test_ctrl_c_stops_the_answer_and_not_the_program(tmp_path, terminal):
    model = make_model(n_positions=8192)
    with torch.no_grad():
        model.wte.weight[256] = 0  # never the largest logit: this model does not stop by itself
    save_pretrained(model, Tokenizer.from_merges([]), tmp_path / "model")
    screen = terminal(tmp_path, "--model", "model", "--greedy", "--max-new-tokens", 8000)
    screen.type("Hello!\n")
    screen.until("model> ")
    while len(screen.seen) < 10:
        screen.seen += screen.read()
    screen.type("\x03")
    assert screen.until(" [stopped]\n")
    screen.until("you> ")

    screen.press("\x03", "[/quit or Ctrl-D ends]\n")  # at the prompt it ends nothing either
    screen.type("/save said.json\n")
    screen.until("[2 messages in said.json]")
    [record] = json.loads((tmp_path / "said.json").read_text())
    assert [message["role"] for message in record["messages"]] == ["user", "assistant"]
    screen.type("/quit\n")
    assert screen.end() == 0


@pytest.mark.slow
def test_lines_that_are_pasted_at_once_are_one_turn(tmp_path, terminal):
    save_pretrained(make_model(n_positions=512), Tokenizer.from_merges([]), tmp_path / "model")
    screen = terminal(tmp_path, "--model", "model", "--greedy", "--max-new-tokens", 4, "--no-repeat-ngram", 1)
    screen.ask("Sort these:\n/pear\n\nfig")
    screen.ask("And now?")
    screen.type("/save said.json\n")
    screen.until("[4 messages in said.json]")
    [record] = json.loads((tmp_path / "said.json").read_text())
    assert [m["content"] for m in record["messages"] if m["role"] == "user"] == ["Sort these:\n/pear\n\nfig", "And now?"]


@pytest.mark.slow
def test_lines_of_a_file_are_a_turn_each(tmp_path, monkeypatch):
    save_pretrained(make_model(n_positions=512), Tokenizer.from_merges([]), tmp_path / "model")
    (tmp_path / "lines.txt").write_text("One?\nTwo?\n/save said.json\n")
    with open(tmp_path / "lines.txt") as lines:
        monkeypatch.setattr(sys, "stdin", lines)
        run_here("ch_instruct/chat.py", "--model", "model", "--max-new-tokens", 4, folder=tmp_path)
    assert len(json.loads((tmp_path / "said.json").read_text())[0]["messages"]) == 4


# In this process


def make_chat(model=None, **changes: object) -> Chat:
    args = {"format": "phi3", "max_new_tokens": 16, "greedy": True, "precision": "fp32"}
    return Chat(model or make_model(), Tokenizer.from_merges([]), ChatOptions(**args | changes))


def answer_with(monkeypatch, text: bytes, after: BaseException | None = None) -> list[list[int]]:
    """Let every answer be this text, a token per byte, and then perhaps an exception. Returns the prompts to come."""
    prompts = []

    def stream(model, prompt, *_):
        prompts.append(prompt)
        yield from text
        if after:
            raise after

    monkeypatch.setattr(chat, "stream", stream)
    return prompts


class Pieces(list):
    """Stands in for standard output and keeps what is written piece by piece."""

    def write(self, text: str) -> None:
        self.append(text)

    def flush(self) -> None:
        pass


def test_characters_of_several_bytes_come_whole(monkeypatch):
    answer_with(monkeypatch, "Ä🙂z".encode())
    pieces = Pieces()
    monkeypatch.setattr(sys, "stdout", pieces)
    talk = make_chat()
    talk.ask("a")
    assert [piece for piece in pieces if piece.strip()] == ["model> ", "Ä", "🙂", "z"]
    assert talk.messages[-1]["content"] == "Ä🙂z"


def test_control_characters_of_an_answer_do_not_reach_the_terminal(monkeypatch, capsys):
    answer_with(monkeypatch, b"a\x1b[31mred")
    talk = make_chat()
    talk.ask("a")
    assert capsys.readouterr().out == "model> a\ufffd[31mred\n" and talk.messages[-1]["content"] == "a\x1b[31mred"


def test_half_a_character_at_the_end_becomes_one_sign(monkeypatch, capsys):
    answer_with(monkeypatch, "Ä🙂".encode()[:-1])
    talk = make_chat()
    talk.ask("a")
    assert capsys.readouterr().out == "model> Ä�\n" and talk.messages[-1]["content"] == "Ä�"


@pytest.mark.parametrize(("text", "after", "shown"), [
    (b"", None, "model>  [no answer]\n"), (b"", KeyboardInterrupt(), "model>  [stopped] [no answer]\n"),
    (b" \n", None, "model>  \n [no answer]\n")])
def test_a_question_without_an_answer_is_forgotten(monkeypatch, capsys, text, after, shown):
    answer_with(monkeypatch, text, after)
    talk = make_chat(system="S")
    talk.ask("a")
    assert capsys.readouterr().out == shown
    assert talk.messages == [{"role": "system", "content": "S"}]


def test_the_oldest_turns_make_room_and_the_user_is_told(monkeypatch, capsys):
    prompts = answer_with(monkeypatch, b"yes")
    talk = make_chat(make_model(n_positions=160), system="S")
    for number in range(6):
        talk.ask(f"question {number}")
    told = capsys.readouterr().out
    assert told.count("the model no longer sees the first 2 messages") == 1
    assert "the first 4 messages" in told and "the first 12 messages" not in told
    assert len(talk.messages) == 13  # for /save, nothing is lost
    for number, prompt in enumerate(prompts):
        text = Tokenizer.from_merges([]).decode(prompt)
        assert len(prompt) + 16 <= 160 and text.startswith("<|System|>\nS\n\n<|User|>\n")
        assert f"question {number}\n" in text
    assert prompts[1] == encode_prompt({"messages": talk.messages[:4]}, talk.tokenizer, "phi3")
    assert "question 0" not in text


def test_a_question_that_can_never_fit_is_refused(monkeypatch, capsys):
    prompts = answer_with(monkeypatch, b"yes")
    talk = make_chat()
    talk.ask("a")
    talk.ask("a" * 60)
    assert "[that is too long: this model reads 48 tokens and answers after them]" in capsys.readouterr().out
    assert len(prompts) == 1 and len(talk.messages) == 2


def test_commands(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    prompts = answer_with(monkeypatch, b"yes")
    talk = make_chat(make_model(n_positions=512))

    def told(line: str) -> str:
        assert talk.command(line)
        return capsys.readouterr().out

    assert "nothing has been said" in told("/save a.json")
    talk.ask("a")
    for name in ("", "a.txt", "folder/", "."):
        assert "new file that ends in .json" in told(f"/save {name}")
    assert f"[{'a' * 300}.json cannot be written: File name too long]" in told(f"/save {'a' * 300}.json")
    assert "[2 messages in a.json]" in told("/save a.json")
    assert "[a.json/b.json cannot be written: " in told("/save a.json/b.json")
    assert "[2 messages in new/a.json]" in told("/save new/a.json")
    assert "new file" in told("/save a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == [{"messages": talk.messages}]
    assert "now phi3; choose alpaca or phi3 or chatml" in told("/format") and "now phi3" in told("/format vicuna")
    assert "[This model's tokenizer has no control token <|im_start|>" in told("/format chatml")
    assert "now phi3" in told("/format")
    assert "alpaca prompts" in told("/format alpaca")
    capsys.readouterr()
    talk.ask("b")
    assert prompts[-1] == encode_prompt({"messages": talk.messages[:3]}, talk.tokenizer, "alpaca")
    help_text = told("/help")
    assert all(name in help_text for name in ("/reset", "/save FILE", "/format STYLE", "/help", "/quit", "Ctrl-C"))
    assert "no command /rest" in told("/rest")
    told("/reset")
    assert talk.messages == []
    assert not talk.command("/quit")
