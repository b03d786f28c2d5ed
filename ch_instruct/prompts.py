"""Prompt styles. One function serves training and answering, so the two can never differ."""

import json

from common.support.console import shorten

STYLES = ("alpaca", "phi3")  # that any model can learn
EVERY_STYLE = (*STYLES, "chatml")  # the last needs control tokens, which instruct models have
START, END = "<|im_start|>", "<|im_end|>"  # chatml's control tokens


def format_prompt(record: dict, style: str = "alpaca") -> str:
    """The text before the (last) response, ending with the response header and a line break.

    Args:
        record: has "instruction" and, optionally, "input"; or has "messages", see `format_turns`.
        style: "alpaca" (Taori et al., 2023: a preamble and ### headings), "phi3" (after
            Phi-3's: <|User|> and <|Assistant|>, and no <|end|>), or "chatml" (that of SmolLM2 and
            Qwen: control tokens around each turn).

    Raises:
        ValueError: for another style.
    """
    turns = format_turns(record, style)
    return "".join(turns if len(turns) % 2 else turns[:-1])  # odd: the last one asks for an answer


def format_turns(record: dict, style: str = "alpaca") -> list[str]:
    """The record as a list of texts that take turns: prompt, response, prompt, response, ...

    Every prompt ends with the response header. Only the first holds what opens the whole: the
    preamble, which a system message replaces. A record of "instruction" and "input" is a
    conversation of one turn.

    Args:
        record: "messages" is a list of {"role", "content"}: perhaps one of role system, then user
            and assistant in turn. If the last one is the user's, the list ends with the prompt that
            asks for an answer; likewise if a record of "instruction" has no "output".
        style: "alpaca", "phi3" or "chatml".

    Raises:
        ValueError: for another style.
    """
    if style not in EVERY_STYLE:
        raise ValueError(f"There is no prompt style {style!r}; use {' or '.join(EVERY_STYLE)}.")
    if style == "chatml":
        return ["".join(pieces) for pieces in chatml_turns(record)]
    if "messages" not in record:
        instruction, context = record["instruction"], record.get("input", "")
        responses = [record["output"]] if "output" in record else []
        return [_opening(style, context) + _request(style, instruction, context), *responses]

    turns, before = [], _opening(style)
    for message in record["messages"]:
        if message["role"] == "system":
            header = "" if style == "alpaca" else "<|System|>\n"
            before = f"{header}{message['content']}\n\n"
        elif message["role"] == "user":
            turns.append(before + _request(style, message["content"]))
            before = "\n\n"  # between a response and the next request
        else:
            turns.append(message["content"])
    return turns


def _opening(style: str, context: str = "") -> str:
    if style != "alpaca":
        return ""
    given = ", paired with an input that provides further context" if context else ""
    return (f"Below is an instruction that describes a task{given}. "
            "Write a response that appropriately completes the request.\n\n")


def _request(style: str, instruction: str, context: str = "") -> str:
    if style == "alpaca":
        context = f"### Input:\n{context}\n\n" if context else ""
        return f"### Instruction:\n{instruction}\n\n{context}### Response:\n"
    context = f"\n{context}" if context else ""
    return f"<|User|>\n{instruction}{context}\n\n<|Assistant|>\n"


def chatml_turns(record: dict, system: str = "") -> list[list[str]]:
    """`format_turns` in the style chatml, each turn in pieces: text, control token, ..., text.

    What a user writes is part of a text, so whoever types "<|im_end|>" types letters.

    Args:
        system: the system message of a record that has none; "" for none.
    """
    messages = record.get("messages") or [
        {"role": "user", "content": question_text(record)},
        *({"role": "assistant", "content": record[key]} for key in ("output",) if key in record)]
    if system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    turns, pieces = [], [""]
    for message in messages:
        if message["role"] == "assistant":
            turns.append([message["content"]])
            pieces = ["\n"]  # behind the control token that ends the response
        else:
            pieces += [START, f"{message['role']}\n{message['content']}", END, "\n"]
        if message["role"] == "user":
            turns.append([*pieces, START, "assistant\n"])
    return turns


def question_text(record: dict[str, str], between: str = "\n\n") -> str:
    """A record's question as people and judges see it: the instruction and its input, if any, an
    empty line `between` them."""
    return between.join(filter(None, (record["instruction"], record.get("input"))))


def one_line(record: dict[str, str]) -> str:
    """A record in short, for lists on the screen: question -> answer."""
    return f"{shorten(question_text(record, ' | '), 60)} -> {shorten(record['output'], 40)}"


# A system message takes the preamble's place. Each answer ends with end-of-text; the generation
# prompt asks for the next.
CHAT = """\
{%- for message in messages %}
  {%- if message.role == "system" %}
    {{- SYSTEM + message.content + "\\n\\n" }}
  {%- elif message.role == "user" %}
    {%- if loop.first %}
      {{- PREAMBLE }}
    {%- elif messages[loop.index0 - 1].role == "assistant" %}
      {{- "\\n\\n" }}
    {%- endif %}
    {{- REQUEST + message.content + "\\n\\n" }}
  {%- else %}
    {{- RESPONSE + message.content + eos_token }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- RESPONSE }}
{%- endif %}
"""


# A response ends with the end-of-text token, whatever its name.
CHATML = """\
{%- for message in messages %}
  {{- "<|im_start|>" + message.role + "\n" + message.content }}
  {{- (eos_token if message.role == "assistant" else "<|im_end|>") + "\n" }}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- "<|im_start|>assistant\n" }}
{%- endif %}
"""


def chat_template(style: str = "alpaca", own: str | None = None) -> str:
    """The style as a Jinja template, which other tools read from tokenizer_config.json and then ask
    as in training.

    The texts in it are cut from `format_prompt`, so the two can never differ. A chat knows no
    "input"; whoever has one writes it into the message, below the instruction.

    Args:
        own: the template that the model came with; one of chatml stays, with its system message.
    """
    if style == "chatml":
        return own if own and START in own else CHATML
    before, after = format_prompt({"instruction": "\0"}, style).split("\0")
    preamble, gap, request = before.rpartition("\n\n")  # phi3 has no preamble
    texts = {"PREAMBLE": preamble + gap, "REQUEST": request, "RESPONSE": after.lstrip("\n"),
             "SYSTEM": "<|System|>\n" if style == "phi3" else ""}
    template = CHAT
    for name, text in texts.items():
        template = template.replace(name, json.dumps(text))
    return template
