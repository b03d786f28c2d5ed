"""Prompt styles. One function serves training and answering, so the two can never differ."""

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


def question_text(record: dict[str, str]) -> str:
    """A record's question as people and judges see it: the instruction and, after an empty line, its input if any."""
    return "\n\n".join(filter(None, (record["instruction"], record.get("input"))))
