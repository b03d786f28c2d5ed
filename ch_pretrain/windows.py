"""From documents to windows: how running text becomes examples of next-token prediction."""

from collections.abc import Sequence

import torch
from torch import Tensor

from common.tokenizer import Tokenizer
from common.training import Dataset


def encode_documents(documents: Sequence[str], tokenizer: Tokenizer) -> Tensor:
    """All documents in one row of tokens, each followed by end-of-text. int64 [tokens]."""
    return torch.cat([torch.tensor([*tokenizer.encode(document), tokenizer.eot_id])
                      for document in documents])


def window_starts(tokens: int, context: int) -> list[int]:
    """Where windows of `context` tokens begin so that each has a next token for its last position.

    Every token but the first is a target at least once. The last window is moved back to end with
    the text, so it may overlap the one before. A text shorter than a window has one window that is
    shorter too.
    """
    last = max(tokens - 1 - context, 0)
    return [*range(0, last, context), last]


def collate_windows(starts: list[int], row: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """Cut windows out of a row of tokens: inputs, and the same shifted by one as targets.

    A window may span documents; the end-of-text token between them is the only border.

        row      The  goose  lives  in  the  meadow
        inputs   The  goose  lives  in  the
        targets  goose  lives  in  the  meadow

    int64 [B, T] each.
    """
    T = min(context, row.size(0) - 1)
    inputs = torch.stack([row[start:start + T] for start in starts])
    targets = torch.stack([row[start + 1:start + 1 + T] for start in starts])
    return inputs, targets


def window_dataset(row: Tensor, context: int, seed: int = 0) -> Dataset:
    """All windows of a row of tokens, as the training loop takes them."""
    return Dataset(window_starts(row.numel(), context),
                   lambda starts: collate_windows(starts, row, context),
                   lambda start: min(context, row.numel() - 1), seed)


def page_starts(row: Tensor, context: int, eot_id: int) -> list[int]:
    """Where windows begin if each starts where a page starts. If a window ends within a page, the
    rest of that page is left out.

    A page in which one has to look back is of no use without its beginning.
    """
    beginnings = [0, *(torch.nonzero(row == eot_id).flatten() + 1).tolist()]
    starts: list[int] = []
    end = 0  # of the last window
    for start in beginnings:
        if start >= end and (start + context < row.numel() or not starts):
            starts.append(start)
            end = start + context
    return starts


class InOrder(Dataset):
    """Items that are read in their own order, so that what comes first is learned
    first."""

    def order(self, epoch: int) -> list:
        """All items, as they are."""
        return list(self.items)


def page_dataset(row: Tensor, context: int, eot_id: int) -> InOrder:
    """Windows that begin with pages, in the pages' order."""
    return InOrder(page_starts(row, context, eot_id),
                   lambda starts: collate_windows(starts, row, context),
                   lambda start: min(context, row.numel() - 1))
