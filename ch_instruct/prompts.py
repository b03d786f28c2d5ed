"""Prompt styles. One function serves training and answering, so the two can never differ."""

import json

STYLES = ("alpaca", "phi3")


def format_prompt(record: dict[str, str], style: str = "alpaca") -> str:
    """The text before the response, ending with the response header and a line break.

    Args:
        record: has "instruction" and, optionally, "input".
        style: "alpaca" (Taori et al., 2023: a preamble and ### headings) or "phi3" (<|User|> and <|Assistant|>).

    Raises:
        ValueError: for another style.
    """
    instruction, context = record["instruction"], record.get("input", "")
    if style == "alpaca":
        given = ", paired with an input that provides further context" if context else ""
        preamble = (f"Below is an instruction that describes a task{given}. "
                    "Write a response that appropriately completes the request.")
        context = f"### Input:\n{context}\n\n" if context else ""
        return f"{preamble}\n\n### Instruction:\n{instruction}\n\n{context}### Response:\n"
    if style == "phi3":
        context = f"\n{context}" if context else ""
        return f"<|User|>\n{instruction}{context}\n\n<|Assistant|>\n"
    raise ValueError(f"There is no prompt style {style!r}; use {' or '.join(STYLES)}.")


# A system message takes the preamble's place. Each answer ends with end-of-text; the generation prompt asks for the next.
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


def chat_template(style: str = "alpaca") -> str:
    """The style as a Jinja template, which other tools read from tokenizer_config.json and then ask as in training.

    The texts in it are cut from `format_prompt`, so the two can never differ. A chat knows no "input"; whoever has one
    writes it into the message, below the instruction.
    """
    before, after = format_prompt({"instruction": "\0"}, style).split("\0")
    preamble, gap, request = before.rpartition("\n\n")  # phi3 has no preamble
    texts = {"PREAMBLE": preamble + gap, "REQUEST": request, "RESPONSE": after.lstrip("\n"),
             "SYSTEM": "<|System|>\n" if style == "phi3" else ""}
    template = CHAT
    for name, text in texts.items():
        template = template.replace(name, json.dumps(text))
    return template
