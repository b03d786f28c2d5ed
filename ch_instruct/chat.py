"""Talk with a model in the terminal.

    python ch_instruct/chat.py --model runs/ch_instruct/001
    python ch_instruct/chat.py --model runs/ch_instruct/001 --greedy --system "Answer in one sentence."

The answer appears while it is written. Lines that you paste together are one question. The model reads the whole conversation
before each question, in the same form as in training and in its own prompt style.

    /reset          forget the conversation
    /save FILE      write it as a .json file that --data takes
    /format STYLE   go on in another prompt style: alpaca, phi3 or chatml
    /help           list these commands
    /quit, Ctrl-D   end
    Ctrl-C          stop the answer; what it has said so far stays
"""

import codecs
import contextlib
import os
import select
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from common.support import files, options
from common.support.console import CONTROL, say
from common.support.files import InputError
from common.support.options import AnswerPrecisionOption, DeviceOption, FormatOption, ModelOption, SamplingOptions, option


@dataclass(frozen=True)
class ChatOptions(AnswerPrecisionOption, DeviceOption, SamplingOptions, FormatOption, ModelOption):
    """The options of this command."""

    system: str | None = option(None, "a message to the model before the conversation (default: none)", metavar="TEXT")


if __name__ == "__main__":
    options.run_command(options.parse, ChatOptions, __doc__)  # --help and wrong options end here: imports take seconds

from ch_instruct.encoding import encode_prompt
from ch_instruct.prompts import EVERY_STYLE
from ch_instruct.support.prompt_style import choose_style, end_as
from common.fast.int8 import precision_to_answer
from common.fast.prepacked import prepacked_weights
from common.generation import stream
from common.gpt2 import GPT2
from common.pretrained import load_pretrained
from common.sampling import asked_for
from common.support.device import evaluating, pick_device
from common.tokenizer import Tokenizer

with contextlib.suppress(ImportError):  # not everywhere
    import readline  # noqa: F401  from here on, input() knows arrow keys and earlier lines

AT_ONCE = 0.05  # seconds: nobody types a line in less


class Chat:
    """A conversation with a model, and how to go on with it."""

    def __init__(self, model: GPT2, tokenizer: Tokenizer, args: ChatOptions):
        self.model, self.tokenizer, self.args = model, tokenizer, args
        self.precision = precision_to_answer(args.precision, model)
        self.own_end = tokenizer.end, tokenizer.eot_id  # what /format goes back to
        end_as(args.style, tokenizer)
        self.reset()

    def reset(self) -> None:
        """Forget everything but the system message."""
        self.messages = [{"role": "system", "content": self.args.system}] if self.args.system else []
        self.forgotten = 0  # messages that were told not to fit any more

    def prompt(self, messages: list[dict]) -> list[int] | None:
        """The ids to answer: the messages, without the oldest turns if they do not fit; None if nothing fits.

        Of the context a quarter stays free for the answer, or --max-new-tokens if that is less.
        """
        longest = self.model.config.n_positions - min(self.args.max_new_tokens, self.model.config.n_positions // 4)
        first = 1 if self.args.system else 0  # the system message stays
        for dropped in range(0, len(messages) - first, 2):  # a question and its answer go together
            kept = messages[:first] + messages[first + dropped:]
            ids = encode_prompt({"messages": kept}, self.tokenizer, self.args.style)
            if len(ids) <= longest:
                if dropped > self.forgotten:
                    say(f"[the context is full: the model no longer sees the first {dropped} messages]")
                self.forgotten = dropped
                return ids
        what = "with the system message, that is" if self.args.system else "that is"
        say(f"[{what} too long: this model reads {longest} tokens and answers after them]")
        return None

    def ask(self, question: str) -> None:
        """Print the answer while it is made. Remember question and answer, if there is one."""
        args, messages = self.args, [*self.messages, {"role": "user", "content": question}]
        ids = self.prompt(messages)
        if ids is None:
            return
        answer, note, count = "", "", 0
        room = min(args.max_new_tokens, self.model.config.n_positions - len(ids))
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may need several tokens
        try:
            print("model> ", end="", flush=True)
            with evaluating(self.model, self.precision), prepacked_weights(self.model):
                for token in stream(self.model, ids, room, self.tokenizer.eot_id, asked_for(args)):
                    text = decoder.decode(self.tokenizer.decode_bytes([token]))
                    answer, count = answer + text, count + 1
                    print(text.translate(CONTROL), end="", flush=True)
            if count == room:
                note = f" [stopped after {room} tokens]"
        except KeyboardInterrupt:
            note = " [stopped]"
        rest = decoder.decode(b"", final=True)  # half a character, if the answer ended there
        answer = (answer + rest).strip()
        print(rest.translate(CONTROL) + note + ("" if answer else " [no answer]"), flush=True)
        if answer:
            self.messages = [*messages, {"role": "assistant", "content": answer}]

    def command(self, line: str) -> bool:
        """Carry out a line that begins with a slash. Returns whether the conversation goes on."""
        name, _, value = line.partition(" ")
        value = value.strip()
        if name == "/quit":
            return False
        if name == "/reset":
            self.reset()
            say("[forgotten]")
        elif name == "/save":
            self.save(value)
        elif name == "/format" and value in EVERY_STYLE:
            try:
                encode_prompt({"instruction": ""}, self.tokenizer, value)
                self.args = replace(self.args, format=value)
                self.tokenizer.end, self.tokenizer.eot_id = self.own_end
                end_as(value, self.tokenizer)
                say(f"[{value} prompts from here on, for the earlier turns too]")
            except InputError as error:  # the model does not know the style's control tokens
                say(f"[{error}]")
        elif name == "/format":
            say(f"[now {self.args.format}; choose {' or '.join(EVERY_STYLE)}: /format {EVERY_STYLE[0]}]")
        elif name == "/help":
            say(__doc__.strip().split("\n\n")[-1])
        else:
            say(f"[there is no command {name}; /help lists them]")
        return True

    def save(self, name: str) -> None:
        """Write the conversation as a data file with one record, or say why not."""
        path = Path(name)
        try:
            if path.suffix != ".json" or "\0" in name or files.is_there(path):
                say("[/save needs the name of a new file that ends in .json]")
            elif not any(message["role"] == "assistant" for message in self.messages):
                say("[nothing has been said yet]")
            else:
                files.write_json(path, [{"messages": self.messages}])
                say(f"[{len(self.messages)} messages in {path}]")
        except OSError as error:  # a name that is too long, a folder that may not be read, a full disk
            say(f"[{path} cannot be written: {error.strerror}]")


def read_turn() -> str:
    """What is typed, or pasted: lines that come at once from a terminal are one turn. Those of a file are a turn each."""
    lines = [input("you> ")]
    with contextlib.suppress(EOFError):
        while os.name == "posix" and sys.stdin.isatty() and select.select([sys.stdin], [], [], AT_ONCE)[0]:
            lines.append(input())
    return "\n".join(lines).strip()


def main() -> None:
    args = options.parse(ChatOptions, __doc__)

    model, tokenizer = load_pretrained(args.model, pick_device(args.device))
    args = replace(args, format=choose_style(args.model, args.format))
    chat = Chat(model, tokenizer, args)
    say(f"{args.model}, {args.format} prompts, {model.config.n_positions} tokens of context. Ctrl-C stops an answer, "
        "/help lists commands, Ctrl-D ends.")
    while True:
        try:
            line = read_turn()
            if line.startswith("/") and "\n" not in line:
                if not chat.command(line):
                    break
            elif line:
                chat.ask(line)
        except KeyboardInterrupt:
            say("\n[/quit or Ctrl-D ends]")
        except EOFError:
            say()
            break


if __name__ == "__main__":
    options.run_command(main)
