"""Byte-pair encoding, trained by hand: how a vocabulary is made.

Start with the 256 bytes. Count which two neighbours occur together most often, join them into a new
token, and repeat until the vocabulary is full (Sennrich et al., 2016; on bytes: Radford et al.,
2019). Text is first cut into words by GPT-2's pattern, and no token ever crosses a cut.
`plain_merges` is that in code; `fast/merges.py` gives the same, fast.
"""

from collections import Counter
from pathlib import Path

import regex

from common.tokenizer import SPLIT_PATTERN

Pair = tuple[bytes, bytes]
LONGEST = 1000  # characters of a word


def count_words(text: str, special_tokens: list[str]) -> Counter[bytes]:
    """Cut text at the special tokens, then by GPT-2's pattern; count each distinct piece as
    bytes."""
    parts = [text]
    if special_tokens:
        # The longest first, so that of two special tokens that start alike the whole one is taken.
        longest_first = sorted(special_tokens, key=len, reverse=True)
        parts = regex.split("|".join(map(regex.escape, longest_first)), text)
    words = (word.group() for part in parts for word in regex.finditer(SPLIT_PATTERN, part))
    # Of a word without end, each merge would look at all its pairs again. No language has such; a
    # line of emoji is one.
    return Counter(
        word[i : i + LONGEST].encode() for word in words for i in range(0, len(word), LONGEST)
    )


def join(word: tuple[bytes, ...], pair: Pair) -> tuple[bytes, ...]:
    """One merge step in one word: every (left, right) becomes left + right, from left to right."""
    joined, i = [], 0
    while i < len(word):
        if word[i:i + 2] == pair:
            joined.append(pair[0] + pair[1])
            i += 2
        else:
            joined.append(word[i])
            i += 1
    return tuple(joined)


def plain_merges(counts: Counter[bytes], room: int) -> list[Pair]:
    """Byte-pair encoding by its definition: join the most frequent pair of neighbours, again and
    again.

    Args:
        counts: how often each word occurs; no pair crosses the end of a word.
        room: how many merges to make. Fewer come back when no pair is left.

    Returns:
        The merges in the order in which they were made. Ties go to the lexicographically greater
        pair.
    """
    words = {tuple(bytes([byte]) for byte in word): count for word, count in counts.items()}
    merges: list[Pair] = []
    while len(merges) < room:
        pairs: Counter[Pair] = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        if not pairs:
            break
        merges.append(max(pairs, key=lambda pair: (pairs[pair], pair)))
        words = {join(word, merges[-1]): count for word, count in words.items()}
    return merges


def train_bpe(input_path: str | Path, vocab_size: int,
              special_tokens: list[str]) -> tuple[dict[int, bytes], list[Pair]]:
    """Learn a byte-level BPE vocabulary from a UTF-8 text file.

    Args:
        input_path: the text.
        vocab_size: entries in all: 256 bytes, the merges, and the special tokens. Fewer come back
            when the text has no pair left to join.
        special_tokens: strings that stay whole and are never counted, such as "<|endoftext|>".

    Returns:
        vocab, id -> bytes (first the 256 bytes, then one per merge, the special tokens last), and
        the merges in the order in which they were made. Ties go to the lexicographically greater
        pair.

    Raises:
        ValueError: if vocab_size leaves no room for the bytes and the special tokens.
    """
    room = vocab_size - 256 - len(special_tokens)
    if room < 0:
        raise ValueError(
            f"A vocabulary of {vocab_size} cannot hold 256 bytes and {len(special_tokens)} special "
            "tokens."
        )

    from ch_pretrain.fast.merges import fast_merges  # what `plain_merges` gives; it needs this file

    counts = count_words(Path(input_path).read_bytes().decode("utf-8-sig"), special_tokens)
    merges = fast_merges(counts, room)
    tokens = [bytes([byte]) for byte in range(256)] + [left + right for left, right in merges]
    tokens += [token.encode() for token in special_tokens]
    return dict(enumerate(tokens)), merges
