"""Texts as vectors: the mean of their hidden states. Cheap (one pass per text), symmetric, blind to
what helps."""

from collections.abc import Sequence

import numpy as np
import torch

from common.fast.views import run
from common.gpt2 import GPT2
from common.support import distributed
from common.support.console import Progress
from common.support.device import evaluating


def mean_hidden_states(model: GPT2, texts: Sequence[list[int]], precision: str = "fp32",
                       batch_size: int = 32, later_more: bool = False) -> np.ndarray:
    """The mean over each text's tokens of the hidden state after the final LayerNorm.

    Args:
        texts: token ids; of a text longer than the context, the beginning is read.
        later_more: the t-th token counts t times, as it has read t tokens (SGPT, arXiv 2202.08904).

    Returns:
        float32 [texts, D].
    """
    ids = [text[:model.config.n_positions] for text in texts]
    order = distributed.my_share(sorted(range(len(ids)), key=lambda i: len(ids[i])))
    found: list[tuple[int, list[float]]] = []
    with Progress("hidden states", len(ids), "text") as progress, evaluating(model, precision):
        for batch in (order[i:i + batch_size] for i in range(0, len(order), batch_size)):
            lengths = torch.tensor([len(ids[i]) for i in batch])  # [B]
            T = int(lengths.max())
            inputs = torch.tensor([ids[i] + [0] * (T - len(ids[i])) for i in batch],
                                  device=model.device)  # [B, T]
            real = torch.arange(T) < lengths[:, None]  # [B, T], false at padding
            hidden = run(model, inputs, needed=real).float()  # [B, T, D], 0 at padding
            weights = torch.arange(1, T + 1) * real if later_more else real  # [B, T]
            summed = (hidden * weights[:, :, None].to(hidden.device)).sum(dim=1)  # [B, D]
            means = summed.cpu() / weights.sum(dim=1)[:, None]
            found += zip(batch, means.tolist())
            progress.advance(len(batch) * distributed.world_size())
    vectors = dict(distributed.put_together(found))
    return np.array([vectors[i] for i in range(len(ids))], dtype=np.float32)


def cosine(a: np.ndarray, b: np.ndarray, centre: np.ndarray | None = None) -> np.ndarray:
    """Cosine of the angle between every row of a [M, D] and every row of b [N, D]: float32 [M, N],
    between -1 and 1.

    `centre` [D], by default the mean of b, is subtracted first: hidden states of one model lie in a
    narrow cone, where all angles are small.
    """
    centre = b.mean(axis=0) if centre is None else centre
    return unit(a - centre) @ unit(b - centre).T


def unit(x: np.ndarray) -> np.ndarray:
    """Every row of x [..., D] with length 1."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def nearest(a: np.ndarray, b: np.ndarray, k: int, rows_at_once: int = 1024,
            centre: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of b [N, D] with the largest cosine for every row of a [M, D], nearest first;
    `centre` as for `cosine`.

    Equal cosines come in any order. A part of a is compared at a time, so memory grows with M · k.

    Returns:
        Their numbers, int64 [M, k], and their cosines, float32 [M, k]; with fewer than k rows in b,
        all of them.
    """
    centre, found = b.mean(axis=0) if centre is None else centre, []
    columns = torch.from_numpy(unit(b - centre).T)
    with Progress("neighbours", len(a), "text") as progress:
        for rows in torch.from_numpy(unit(a - centre)).split(rows_at_once):
            found.append((rows @ columns).topk(min(k, len(b))))  # does not sort the whole row
            progress.advance(len(rows))
    cosines, ids = (torch.cat(parts).numpy() for parts in zip(*found))
    return ids, cosines
