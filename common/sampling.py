"""Choosing the next token: how sure, how varied, and how free of loops a text is to be."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.gpt2 import GPT2
from common.support.options import SamplingOptions


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. As it stands: greedily, the likeliest.

    The likeliest token, again and again, often ends in a loop: each repetition makes the next one
    likelier (Holtzman et al., 2020). Chance leaves a loop; the last two discourage or forbid it.
    """

    temperature: float = 0.0  # 0: the likeliest; else p = softmax(logits / temperature)
    top_k: int | None = None  # draw among the k likeliest tokens only
    top_p: float = 1.0  # draw among the fewest likeliest tokens that together are this probable
    repetition_penalty: float = 1.0  # above 1: every token that is in the text becomes less likely
    no_repeat_ngram: int | None = None  # no run of so many tokens may come twice

    @property
    def looks_back(self) -> bool:
        """Whether the choice depends on the text so far, and not on the logits alone."""
        return self.repetition_penalty != 1 or self.no_repeat_ngram is not None


GREEDY = Sampling()


def asked_for(args: SamplingOptions) -> Sampling:
    """What the options of a command ask for."""
    return Sampling(0.0 if args.greedy else args.temperature, args.top_k, args.top_p,
                    args.repetition_penalty, args.no_repeat_ngram)


def next_logits(model: GPT2, hidden: Tensor) -> Tensor:
    """Logits [B, V] after hidden states [B, D]; -inf for ids that no token has, so that none of
    them is chosen. (A vocabulary may be padded; see `load_pretrained`.)"""
    logits, unused = model.logits(hidden), getattr(model, "without_token", None)
    return logits if unused is None else logits.masked_fill(unused, -torch.inf)


def next_tokens(logits: Tensor, how: Sampling = GREEDY, before: Sequence[Sequence[int]] = (),
                generator: torch.Generator | None = None) -> Tensor:
    """Choose one token per row.

    Args:
        logits: float [B, V].
        before: the ids of each row's text so far, its prompt included, without end-of-text (another
            answer may end as an earlier one did); needed if `how.looks_back`.

    Returns:
        int64 [B].
    """
    if how.looks_back:
        logits = discourage_repetition(logits.float(), how, before)
    if how.temperature == 0:
        return logits.argmax(dim=-1)
    kept = keep_likely(logits.float() / how.temperature, how.top_k, how.top_p)
    return torch.multinomial(kept.softmax(dim=-1), 1, generator=generator).squeeze(1)


def discourage_repetition(logits: Tensor, how: Sampling, before: Sequence[Sequence[int]]) -> Tensor:
    """Logits [B, V] after the repetition penalty (Keskar et al., 2019) and the ban on n-grams.

    The penalty divides a logit above 0 and multiplies one below: either way the token becomes less
    likely. How often the token came does not matter.
    """
    logits = logits.clone()
    for row, text in zip(logits, before):  # row: [V], a view
        seen = torch.tensor(sorted(set(text)), device=row.device)
        penalty = torch.where(row[seen] < 0, how.repetition_penalty, 1 / how.repetition_penalty)
        row[seen] *= penalty
        row[banned_tokens(text, how.no_repeat_ngram)] = -torch.inf
    return logits


def banned_tokens(text: Sequence[int], n: int | None) -> list[int]:
    """What followed where the last n - 1 tokens came before: each would repeat n tokens."""
    if n is None:
        return []
    end = list(text[len(text) - n + 1:])  # of n = 1, nothing: every token is one that came before
    return [text[i + n - 1] for i in range(len(text) - n + 1) if list(text[i:i + n - 1]) == end]


def keep_likely(logits: Tensor, top_k: int | None, top_p: float) -> Tensor:
    """Logits [B, V] with -inf for all but the k likeliest and for what lies outside the nucleus.

    The nucleus (Holtzman et al., 2020): the fewest likeliest tokens whose probabilities add up to
    `top_p`: many where the model is unsure, one where it is sure.
    """
    if top_k is not None and top_k < logits.size(-1):
        likely = logits.topk(top_k, dim=-1).indices  # [B, k]: of equal logits, some
        unlikely = torch.ones_like(logits, dtype=torch.bool).scatter(1, likely, False)  # [B, V]
        logits = logits.masked_fill(unlikely, -torch.inf)
    if top_p < 1:
        ascending, ids = logits.sort(dim=-1)  # both [B, V]
        outside = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p  # [B, V]: it and all below
        outside[:, -1] = False  # the likeliest stays
        logits = logits.masked_fill(outside.scatter(1, ids, outside), -torch.inf)
    return logits
