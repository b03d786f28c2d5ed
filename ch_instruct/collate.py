"""From examples to a batch: pad, shift by one, and hide from the loss what is not to be learnt.

All masks come from positions. Nothing is searched for in token ids, and a token that looks like
padding inside a text is left alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ch_instruct.encoding import Example
from common.losses import IGNORE_INDEX
from common.tokenizer import Tokenizer


def collate(examples: Sequence[Example], pad_id: int = 0,
            loss_on: str = "response") -> tuple[Tensor, Tensor]:
    """Turn examples into one batch.

    The target of position t is token t + 1 of the example:

        example   p0 p1 p2 r0 r1 end          prompt_length = 3
        inputs    p0 p1 p2 r0 r1
        targets    .  . r0 r1 end             with loss_on="all": p1 p2 r0 r1 end

    The end-of-text after each response is a target. What follows the last one, in rows shorter than
    the longest, is padding: `pad_id` in the inputs, IGNORE_INDEX in the targets. Padding stands to
    the right, where causal attention never looks, so it changes nothing for the rest.

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
            start = max(start, 1)  # nothing comes before the first token, so it is no target
            targets[row, start - 1:end - 1] = tokens[start:end]
    return inputs, targets


def show_batch(inputs: Tensor, targets: Tensor, tokenizer: Tokenizer, row: int = 0) -> str:
    """One row of a batch as a table of position, input, target and whether the target is in the
    loss."""
    lines = [("position", "input", "target", "in loss")]
    for t, (given, target) in enumerate(zip(inputs[row].tolist(), targets[row].tolist())):
        has_target = target != IGNORE_INDEX
        shown = repr(tokenizer.decode([target])) if has_target else str(IGNORE_INDEX)
        lines.append((str(t), repr(tokenizer.decode([given])), shown, "yes" if has_target else "-"))
    _, wide, wider, _ = (max(map(len, column)) for column in zip(*lines))
    return "\n".join(f"{t:>8}  {given:<{wide}}  {target:<{wider}}  {in_loss}"
                     for t, given, target, in_loss in lines)
