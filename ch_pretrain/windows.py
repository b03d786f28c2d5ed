"""From documents to windows: how running text becomes examples of next-token prediction."""

from collections.abc import Sequence

import torch
from torch import Tensor

from common.tokenizer import Tokenizer
from common.training import Dataset


def encode_documents(documents: Sequence[str], tokenizer: Tokenizer) -> Tensor:
    """All documents in one row of tokens, each followed by end-of-text. int64 [tokens]."""
    return torch.tensor([token for document in documents for token in [*tokenizer.encode(document), tokenizer.eot_id]])


def window_starts(tokens: int, context: int, stride: int | None = None) -> list[int]:
    """Where windows of `context` tokens begin so that each has a next token for its last position.

    With stride = context (the default) every token is a target once; with a smaller one windows overlap. The last
    window is moved back to end with the text; a text shorter than a window has one window that is shorter too.
    """
    last = max(tokens - 1 - context, 0)
    starts = list(range(0, last + 1, stride or context))
    return starts if starts[-1] == last else [*starts, last]


def collate_windows(starts: list[int], row: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """Cut windows out of a row of tokens: inputs, and the same shifted by one as targets. int64 [B, T] each."""
    inputs = torch.stack([row[start:start + context] for start in starts])
    length = min(context, row.size(0) - 1)
    targets = torch.stack([row[start + 1:start + 1 + length] for start in starts])
    return inputs[:, :length], targets


def window_dataset(row: Tensor, context: int, seed: int = 0) -> Dataset:
    """All windows of a row of tokens, as the training loop takes them."""
    return Dataset(window_starts(row.numel(), context), lambda starts: collate_windows(starts, row, context),
                   lambda start: min(context, row.numel() - 1), seed)
