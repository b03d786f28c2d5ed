"""From records to batches: encode, pad, shift by one, and hide from the loss what is not to be learnt.

All masks come from positions. Prompts and responses are encoded apart, so where each response begins and ends is known;
nothing is searched for in token ids, and a token that looks like padding inside a text is left alone.
"""

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import NamedTuple

import torch
from torch import Tensor

from ch_instruct.prompts import format_turns
from common.losses import IGNORE_INDEX
from common.tokenizer import Tokenizer


class Example(NamedTuple):
    """One encoded record: prompt, response, end-of-text; in a conversation, this again for every further turn.

    What the model should say is `ids[start:end]` for each of `spans`.
    """

    ids: list[int]
    prompt_length: int  # tokens before the first response
    turns: tuple[tuple[int, int], ...] = ()  # start and end of each response, if there are several

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Start and end of each response, its end-of-text token included."""
        return self.turns or ((self.prompt_length, len(self.ids)),)

    @property
    def response_tokens(self) -> int:
        """How many tokens the model should say, in all responses together."""
        return sum(end - start for start, end in self.spans)

    def behind(self, front: list[int], instead_of: int = 0) -> "Example":
        """This example with `front` in the place of its first ids, as many as `instead_of`, all of them prompt."""
        by = len(front) - instead_of
        return Example(front + self.ids[instead_of:], self.prompt_length + by,
                       tuple((start + by, end + by) for start, end in self.turns))


def encode_turns(record: dict, tokenizer: Tokenizer, style: str = "alpaca") -> list[list[int]]:
    """Encode each prompt and each response apart. Responses end with the end-of-text token, from which the model learns
    to stop."""
    return [tokenizer.encode(text) + [tokenizer.eot_id] * (number % 2)  # every second text is a response
            for number, text in enumerate(format_turns(record, style))]


def encode_record(record: dict, tokenizer: Tokenizer, style: str = "alpaca") -> Example:
    """Encode a record with all its responses."""
    parts = encode_turns(record, tokenizer, style)
    ends = list(accumulate(map(len, parts)))
    turns = tuple(zip(ends[::2], ends[1::2]))  # a response begins where its prompt ends
    return Example(list(chain(*parts)), ends[0], turns if len(turns) > 1 else ())


def encode_prompt(record: dict, tokenizer: Tokenizer, style: str = "alpaca") -> list[int]:
    """What the model reads before it gives the last response: the same ids as those of `encode_record` up to there."""
    parts = encode_turns(record, tokenizer, style)
    return list(chain(*(parts if len(parts) % 2 else parts[:-1])))


def collate(examples: Sequence[Example], pad_id: int = 0, loss_on: str = "response") -> tuple[Tensor, Tensor]:
    """Turn examples into one batch.

    Position t of the inputs is asked for token t + 1 of the example:

        example   p0 p1 p2 r0 r1 end          prompt_length = 3
        inputs    p0 p1 p2 r0 r1
        targets    .  . r0 r1 end             with loss_on="all": p1 p2 r0 r1 end

    The end-of-text after each response is a target. What follows the last one, in rows shorter than the longest, is
    padding: `pad_id` in the inputs, IGNORE_INDEX in the targets. Padding stands to the right, where causal attention
    never looks, so it changes nothing for the rest.

    Args:
        examples: with at least two ids each; plain tuples of ids and prompt_length will do.
        pad_id: what fills the inputs; any valid id will do.
        loss_on: "response" hides from the loss what the user and the system say, "all" does not.

    Returns:
        inputs and targets, int64 [B, T], T = longest example - 1.

    Raises:
        ValueError: for another `loss_on`.
    """
    if loss_on not in ("response", "all"):
        raise ValueError(f"loss_on is {loss_on!r}; use 'response' or 'all'.")
    examples = [Example(*example) for example in examples]
    T = max(len(example.ids) for example in examples) - 1
    inputs = torch.full((len(examples), T), pad_id)
    targets = torch.full((len(examples), T), IGNORE_INDEX)
    for row, example in enumerate(examples):
        tokens = torch.tensor(example.ids)
        inputs[row, :len(tokens) - 1] = tokens[:-1]
        for start, end in example.spans if loss_on == "response" else [(0, len(tokens))]:
            start = max(start, 1)  # nothing comes before the first token, so nothing is asked for it
            targets[row, start - 1:end - 1] = tokens[start:end]
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
