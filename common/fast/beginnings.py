"""Texts that begin alike: what they share has to be read only once."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from common.fast.cache import KVCache

MOST_KINDS = 4  # more would make batches small


class Kind(NamedTuple):
    """Texts with the same beginning, as all prompts with an input have one, and all without."""

    rows: list[int]  # their numbers
    beginning: list[int]  # token ids


def common_beginning(texts: Sequence[Sequence[int]]) -> list[int]:
    """The ids with which all texts begin."""
    return list(os.path.commonprefix(list(map(tuple, texts))))  # of any tuples, whatever it is called


def kinds_of(texts: Sequence[Sequence[int]]) -> list[Kind]:
    """Divide texts by the first token after the beginning common to all, if that gives a few kinds; or not at all."""
    shared = len(common_beginning(texts))
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, text in enumerate(texts):
        groups.setdefault(tuple(text[shared:shared + 1]), []).append(row)
    if len(groups) > MOST_KINDS:
        groups = {(): list(range(len(texts)))}
    return [Kind(rows, common_beginning([texts[row] for row in rows])) for rows in groups.values()]


def repeated(cache: KVCache, rows: int, max_length: int) -> KVCache:
    """A cache's only text once for each of so many rows, with room for more behind it."""
    many = KVCache(max_length)
    for layer, (k, v) in cache.layers.items():  # [1, H, S, Dh] each, and room that is not in use
        many.append(layer, *(tensor[:, :, :cache.length].expand(rows, -1, -1, -1) for tensor in (k, v)))
    many.advance(cache.length)
    return many
