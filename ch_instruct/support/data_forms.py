"""The forms in which other people's instruction records come.

The keys of a row tell its form, or --fields says which key holds what. Nothing else is tried. The command prints the form and
the keys that it ignores, and refuses a row of no known form.
"""

import argparse
import json
import re
import reprlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ch_instruct.prompts import question_text
from common.support.files import InputError
from common.support.options import Options, option

# Ours -> theirs. A row has the first form of which it has all keys.
FORMS = {"OpenAI messages": {"messages": "messages"},
         "ShareGPT conversations": {"messages": "conversations"},
         "Alpaca": {"instruction": "instruction", "output": "output"},
         "prompt and completion": {"instruction": "prompt", "output": "completion"},
         "prompt and response": {"instruction": "prompt", "output": "response"},
         "question and answer": {"instruction": "question", "output": "answer"},
         "question and response": {"instruction": "question", "output": "response"},
         "instruction and response": {"instruction": "instruction", "output": "response"}}
# What any of them may have besides, by any of these names.
BESIDES = {"input": ("input", "context"), "system": ("system", "system_prompt"), "history": ("history",),
           "family": ("family",), "split": ("split",)}
OURS = ("instruction", "output", "messages", *BESIDES)
ROLES = {"human": "user", "gpt": "assistant"}  # what ShareGPT calls them; other names stay
TOOLS_AT_HAND, TOOLS = ("tools", "functions"), ("tools", "functions", "tool_calls", "function_call")
TOOL_ROLES = ("tool", "function", "function_call", "observation")
MEDIA = ("image", "images", "video", "videos", "audio", "audios")
# Parts of names by which --fields is proposed, and those of columns that hold neither question nor answer.
QUESTIONS = ("instruction", "question", "prompt", "query", "problem", "ask", "q", "input", "inputs", "user", "human")
ANSWERS = ("output", "answer", "response", "completion", "solution", "reply", "a", "target", "targets", "assistant", "chosen")
LABELS = ("id", "ids", "uid", "uuid", "hash", "url", "link", "source", "date", "time", "lang", "language", "category", "type",
          "split", "tag", "tags", "topic", "family", "license", "rejected", "name", "title", "label", "role", "from",
          *(name for names in BESIDES.values() for name in names if name != "input"))
FEW_WORDS = 3  # a shorter text may be a number, a date or a kind
SENDERS = ("system", "user", "assistant", *ROLES)


def field_pair(text: str) -> str:
    """OURS=THEIRS, as in instruction=question."""
    ours, _, theirs = text.partition("=")
    if ours not in OURS or not theirs:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed, it must be OURS=THEIRS, as in instruction=question, and "
                                         f"OURS one of {', '.join(OURS)}")
    return text


@dataclass(frozen=True)
class RecordOptions(Options):
    """How files of records are read, in every command that reads them."""

    fields: tuple[str, ...] | None = option(None, "for a file of records in another form: which of its keys hold what, as in "
                                            "instruction=question output=answer (default: by the known forms)", field_pair,
                                            nargs="+", metavar="OURS=THEIRS")
    bad_rows: str = option("refuse", "what happens to records that cannot be used: refuse the file, or skip them, counted and "
                           "told (default: %(default)s)", choices=["refuse", "skip"])


class Converted(NamedTuple):
    """A row with keys of ours."""

    form: str  # its name
    record: dict  # keys that mean nothing here stay
    unused: list[str]  # those of them that hold something


def to_record(row: object, where: str, fields: Sequence[str] | None = None, answered: bool = True) -> Converted:
    """Find out a row's form and give its keys our names. Null counts as missing; numbers are written out.

    A row with a system text or a history becomes a conversation.

    Args:
        where: begins the sentence of an error.
        fields: pairs as for `field_pair`; a known form is only looked for if they name no instruction and no messages.
        answered: whether there must be an answer.

    Raises:
        InputError: if the row has no known form, lacks a key, calls tools, or is about more than text.
    """
    if not isinstance(row, dict):
        raise InputError(f"{where} is a {type(row).__name__}; it must be an object with instruction and output, or messages.")
    if None in row:
        raise InputError(f"{where} has the key {row[None]!r} twice; keep one of them.")
    given = {key: value for key, value in row.items() if value is not None and value == value}  # NaN is not itself
    full = [key for key, value in given.items() if value not in ("", [], {})]
    for key in MEDIA:
        if key in full:
            raise InputError(f"{where} has {key!r}, and only text can be learnt here; leave such records out by --bad-rows "
                             "skip, or take that key away if the texts do without it.")
    form, keys = _form(row, full, where, fields, answered)
    for ours, usual in BESIDES.items():
        kinds = list if ours == "history" else object if ours == "split" else (str, int, float)
        fitting = [key for key in usual if isinstance(given.get(key), kinds) and key in given and key not in keys.values()]
        if ours not in keys and fitting and not (ours == "input" and "messages" in keys):
            keys[ours] = next((key for key in fitting if key in full), fitting[0])
    record = {key: value for key, value in given.items() if key not in keys.values() and key not in OURS}
    missing = {"instruction": "", "output": "", "messages": None}  # what null becomes
    record |= {ours: _text(ours, given.get(theirs, missing.get(ours)), f"{where}: {theirs!r}") for ours, theirs in keys.items()
               if theirs in given or (theirs in row and ours in missing)}
    unused = [key for key in full if key not in keys.values()]
    if "output" in keys and isinstance(record.get("messages"), list):  # the last answer stands apart
        record["messages"] = record["messages"] + _said(record.pop("output", ""), answered)
    _converse(record, where, answered)
    if "messages" in record:
        unused += [keys[ours] for ours in ("input", "system", "history") if ours in keys and record.get(ours)]
        if isinstance(record["messages"], list):
            refuse_tools(record, where)
            unused += sorted({f"message {key}" for message in record["messages"] if isinstance(message, dict)
                              for key, value in message.items()
                              if value not in (None, "", [], {}) and key not in ("role", "from", "content", "value")})
            messages = [_message(message, f"{where}, message {number}") for number, message in enumerate(record["messages"], 1)]
            silent = messages[:1] in [[{"role": "system", "content": nothing}] for nothing in ("", None)]
            record["messages"] = messages[silent:]  # a system message may be left empty
            if answered and "output" not in keys and _first_and_last(record["messages"][-1:]) == ("user", "user") and (
                    proposed := propose(row)):
                raise InputError(f"{where}: its conversation ends with the user; say where the answer is, as in --fields "
                                 f"{' '.join(map(shlex.quote, proposed))}.")
    return Converted(form, record, unused)


def _form(row: dict, full: list[str], where: str, fields: Sequence[str] | None, answered: bool) -> tuple[str, dict[str, str]]:
    """The name of a row's form, and which key holds what: ours -> theirs."""
    own = {ours: theirs for ours, _, theirs in (pair.partition("=") for pair in fields or ())}
    for ours, theirs in own.items():
        if theirs not in row and (ours in ("instruction", "messages") or (ours == "output" and answered)):
            raise InputError(f"{where} has no {theirs!r} (it has {_names(row)}); change --fields {ours}={theirs}.")
    if own.keys() & {"instruction", "messages"}:
        return " ".join(fields or ()), own
    asked = {name: {theirs for ours, theirs in keys.items() if ours != "output"} for name, keys in FORMS.items()}
    whole = asked if "output" in own else {name: set(keys.values()) for name, keys in FORMS.items()}
    for needed in (whole,) if answered else (whole, asked):
        for keys in (set(full), set(row)):  # a form whose keys hold something comes first
            for name, those in needed.items():
                if keys >= those:
                    return " ".join([name, *(fields or ())]), FORMS[name] | own
    raise InputError(f"{where} {_no_form(row, answered)}.")


def _no_form(row: dict, answered: bool) -> str:
    """What a row of no known form is, and what can be done."""
    proposed = propose(row, answered)
    lists = [key for key, value in row.items() if isinstance(value, list) and len(value) > 1 and isinstance(value[0], dict)
             and (propose(value[0]) or any(value[0].keys() >= set(keys.values()) for keys in FORMS.values()))]
    what = f"is of no known form (its keys: {_names(row)})"
    if proposed:
        return f"{what}; say which of them hold what, as in --fields {' '.join(map(shlex.quote, proposed))}"
    if lists:
        return f"{what}; if its {lists[0]!r} are the records, save that list alone"
    for ours, other in (("instruction", "output"), ("output", "instruction")):
        if other in row:
            inner = next((key for key, value in row.items() if isinstance(value, list) and value and isinstance(value[0], dict)
                          and ours in value[0]), None)
            return (f"has no {ours!r}, but its {inner!r} hold some; make a record of each of them, with the {other}" if inner
                    else f"has no {ours!r} (it has {_names(row)}); add it"
                    + ", or ask these questions with respond.py" * (ours == "output"))
    deeper = next((key for key, value in row.items() if isinstance(value, (list, dict)) and value), None)
    return (f"{what}; a record needs {'a question and an answer' if answered else 'a question'}, each under a key of its own"
            + f" (if they lie inside {deeper!r}, write a record for each)" * (deeper is not None))


def propose(row: dict, answered: bool = True) -> list[str]:
    """Pairs for --fields with which this row can be read, as its names and texts suggest; none if it cannot."""
    parts = {key: set(re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key).lower())) for key in row
             if key is not None and key.isprintable() and key.strip()}
    said = {key: ends for key in parts if "rejected" not in parts[key] and (ends := _first_and_last(row[key]))}
    whole = next((key for key, (first, last) in said.items() if first != "assistant" and last == "assistant"), None)
    asked = next((key for key, (_, last) in said.items() if last == "user" and isinstance(row[key], list)), None)
    if whole:
        return [f"messages={whole}"]
    parts = {key: names for key, names in parts.items() if key in said or (isinstance(row[key], str) and row[key].strip())}
    texts = [key for key in parts if not parts[key] & set(LABELS)]
    answer = next((key for name in ANSWERS for key in texts if name in parts[key]), None)
    if asked:
        return [f"messages={asked}", f"output={answer}"] if answer else []
    question = next((key for name in QUESTIONS for key in texts if name in parts[key] and key != answer), None)
    others = sorted((key for key in texts if key not in (question, answer, "input")),
                    key=lambda key: len(str(row[key]).split()) < FEW_WORDS)  # sentences first
    question = question or next(iter(others), None)
    answer = answer or next((key for key in others if key != question and not parts[key] & set(QUESTIONS)), None)
    pairs = [("instruction", question), ("output", answer)][:2 if answered else 1]
    return [f"{ours}={theirs}" for ours, theirs in pairs] if all(theirs for _, theirs in pairs) else []


def _first_and_last(value: object) -> tuple[str, str] | None:
    """Who begins and who ends, if this is a message or a list of messages."""
    messages = value if isinstance(value, list) else [value]
    senders = [str(message.get("role", message.get("from"))) for message in messages if isinstance(message, dict)]
    if not messages or len(senders) < len(messages) or not {*senders} <= {*SENDERS}:
        return None
    return ROLES.get(senders[0], senders[0]), ROLES.get(senders[-1], senders[-1])


def _names(row: dict) -> str:
    names = [reprlib.repr(key) for key in row if key is not None]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "nothing"


def _text(ours: str, value: object, where: str) -> object:
    """A value as the text that it should be; what may be something else comes back as it is."""
    of_messages = isinstance(value, list) and value and isinstance(value[0], dict)
    if ours in ("messages", "history", "split") or (ours in ("instruction", "output") and of_messages) or (
            ours == "output" and _first_and_last(value)):
        return value
    if ours != "instruction" and isinstance(value, (int, float)):
        return getattr(value, "written", None) or json.dumps(value)
    if not isinstance(value, str):
        raise InputError(f"{where} is {reprlib.repr(value)}; it must be a text.")
    return value


def _converse(record: dict, where: str, answered: bool) -> None:
    """Give a record "messages" instead of instruction, input and output if those are messages, or if it has a system text or
    a history. What finds no place in the messages stays."""
    answer = record.get("output", "")
    system, history = record.get("system", ""), record.get("history", [])
    system, history = system if isinstance(system, str) else "", history if isinstance(history, list) else []
    if isinstance(record.get("instruction"), list):  # a prompt of messages
        record["messages"] = record.pop("instruction") + _said(answer, answered)
        record.pop("output", None)
    elif "messages" not in record and (system or history or isinstance(answer, (list, dict))):
        turns = []
        for turn in history:
            if isinstance(turn, list) and len(turn) == 2:
                turns += [{"role": role, "content": text} for role, text in zip(("user", "assistant"), turn)]
            elif isinstance(turn, dict):
                turns.append(turn)
            else:
                raise InputError(f"{where}: 'history' holds {reprlib.repr(turn)}; it must hold pairs of a question and an "
                                 "answer, or messages.")
        turns += [{"role": "user", "content": question_text(record)}, *_said(answer, answered)]
        for key in ("instruction", "input", "output", *["history"] * bool(history)):
            record.pop(key, None)
        record["messages"] = turns
    messages = record.get("messages")
    if system and isinstance(messages, list) and not any(
            isinstance(first, dict) and "system" in (first.get("role"), first.get("from")) for first in messages[:1]):
        record["messages"] = [{"role": "system", "content": record.pop("system")}, *messages]


def _said(answer: Any, answered: bool) -> list:
    """An answer, which may be a text, a message or a list of them, as messages. Whether there must be one says `answered`."""
    if isinstance(answer, list):
        return answer
    if isinstance(answer, dict):
        return [answer]
    return [{"role": "assistant", "content": answer}] if answered or answer.strip() else []


def refuse_tools(holder: dict, where: str) -> None:
    """Raise InputError if this record or message has tools in it."""
    used = [repr(key) + " (where no tool is called, leave out this key)" * (key in TOOLS_AT_HAND) for key in TOOLS
            if holder.get(key)]
    used += [f"'role {holder[key]}'" for key in ("role", "from") if holder.get(key) in TOOL_ROLES]
    if used:
        raise InputError(f"{where} has {used[0]}: calling tools is not taught here; leave such records out by --bad-rows skip.")


def _message(message: object, where: str) -> object:
    """A message with "role" and "content" alone, the content one text; what is no message comes back as it is."""
    if not isinstance(message, dict):
        return message
    if None in message:
        raise InputError(f"{where} has the key {message[None]!r} twice; keep one of them.")
    refuse_tools(message, where)
    kept = {ours: message[key] for ours, names in (("role", ("from", "role")), ("content", ("value", "content")))
            for key in names if key in message}
    if isinstance(kept.get("role"), str):
        kept["role"] = ROLES.get(kept["role"], kept["role"])
    parts = kept.get("content")
    if isinstance(parts, list) and parts and all(isinstance(part, dict) and "type" in part for part in parts):
        kept["content"] = "".join(_text_of_part(part, where) for part in parts)
    return kept


def _text_of_part(part: dict, where: str) -> str:
    """The text of one part of a message's content."""
    if part["type"] not in ("text", "input_text", "output_text"):
        raise InputError(f"{where} has a part of type {part['type']!r}, and only text can be learnt here; leave such records "
                         "out by --bad-rows skip.")
    text = next((part[key] for key in ("text", "value", "content") if key in part), None)
    text = text.get("value") if isinstance(text, dict) else text
    if not isinstance(text, str):
        raise InputError(f"{where} has a part of type {part['type']!r} that holds no text (its keys: {_names(part)}); give it "
                         "one as 'text'.")
    return text
