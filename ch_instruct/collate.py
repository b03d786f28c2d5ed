"""From records to batches: encode, pad, shift by one, and hide from the loss what is not to be learnt.

All masks come from positions. The prompt and the response are encoded apart, so where the response begins is known;
nothing is searched for in token ids, and a token that looks like padding inside a text is left alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ch_instruct.prompts import format_prompt
from common.losses import IGNORE_INDEX
from common.tokenizer import Tokenizer


class Example(NamedTuple):
    """One encoded record: prompt, response, end-of-text. `ids[prompt_length:]` is what the model should say."""

    ids: list[int]
    prompt_length: int


def encode_record(record: dict[str, str], tokenizer: Tokenizer, style: str = "alpaca") -> Example:
    """Encode prompt and response apart and end with the end-of-text token, from which the model learns to stop."""
    prompt = tokenizer.encode(format_prompt(record, style))
    return Example(prompt + tokenizer.encode(record["output"]) + [tokenizer.eot_id], len(prompt))


def collate(examples: Sequence[Example], pad_id: int = 0, loss_on: str = "response") -> tuple[Tensor, Tensor]:
    """Turn examples into one batch.

    Position t of the inputs is asked for token t + 1 of the example:

        example   p0 p1 p2 r0 r1 end          prompt_length = 3
        inputs    p0 p1 p2 r0 r1
        targets    .  . r0 r1 end             with loss_on="all": p1 p2 r0 r1 end

    The first end-of-text after the response is a target. Everything after it, in rows shorter than the longest, is
    padding: `pad_id` in the inputs, IGNORE_INDEX in the targets. Padding stands to the right, where causal attention
    never looks, so it changes nothing for the rest.

    Args:
        examples: (ids, prompt_length) each, with at least two ids.
        pad_id: what fills the inputs; any valid id will do.
        loss_on: "response" hides prompt tokens from the loss, "all" does not.

    Returns:
        inputs and targets, int64 [B, T], T = longest example - 1.

    Raises:
        ValueError: for another `loss_on`.
    """
    if loss_on not in ("response", "all"):
        raise ValueError(f"loss_on is {loss_on!r}; use 'response' or 'all'.")
    T = max(len(ids) for ids, _ in examples) - 1
    inputs = torch.full((len(examples), T), pad_id)
    targets = torch.full((len(examples), T), IGNORE_INDEX)
    for row, (ids, prompt_length) in enumerate(examples):
        tokens = torch.tensor(ids)
        first = max(prompt_length - 1, 0) if loss_on == "response" else 0  # the input position asked for ids[first + 1]
        inputs[row, :len(ids) - 1] = tokens[:-1]
        targets[row, first:len(ids) - 1] = tokens[first + 1:]
    return inputs, targets


def show_batch(inputs: Tensor, targets: Tensor, tokenizer: Tokenizer, row: int = 0) -> str:
    """One row of a batch as a table of position, input, target and whether the target is in the loss."""
    lines = [("position", "input", "target", "in loss")]
    for t, (given, asked) in enumerate(zip(inputs[row].tolist(), targets[row].tolist())):
        in_loss = asked != IGNORE_INDEX
        target = repr(tokenizer.decode([asked])) if in_loss else str(IGNORE_INDEX)
        lines.append((str(t), repr(tokenizer.decode([given])), target, "yes" if in_loss else "-"))
    _, wide, wider, _ = (max(map(len, column)) for column in zip(*lines))
    return "\n".join(f"{t:>8}  {given:<{wide}}  {target:<{wider}}  {in_loss}" for t, given, target, in_loss in lines)
