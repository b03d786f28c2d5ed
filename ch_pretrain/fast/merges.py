"""The merges of byte-pair encoding, fast: what a merge changes is counted anew, and nothing else.

A merge touches few words. So the count of every pair is kept up to date (`pair_counts`), each pair knows the words that may
hold it (`where`), and a heap gives the most frequent one. `bpe.plain_merges` counts everything again for each merge.
"""

import heapq
from collections import Counter, defaultdict

from ch_pretrain.bpe import Pair, join


class _Candidate:
    """A pair in the heap. The most frequent comes first; among equals, the lexicographically greater."""

    __slots__ = ("count", "pair")

    def __init__(self, count: int, pair: Pair):
        self.count, self.pair = count, pair

    def __lt__(self, other: "_Candidate") -> bool:
        return (self.count, self.pair) > (other.count, other.pair)


def fast_merges(counts: Counter[bytes], room: int) -> list[Pair]:
    """What `bpe.plain_merges` gives for these words and so many merges."""
    words = [tuple(bytes([byte]) for byte in word) for word in counts]  # each word as its tokens so far
    weights = list(counts.values())

    pair_counts: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # pair -> the words that may hold it
    for w, word in enumerate(words):
        for pair in zip(word, word[1:]):
            pair_counts[pair] += weights[w]
            where[pair].add(w)
    heap = [_Candidate(count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)

    merges: list[Pair] = []
    while len(merges) < room and heap:
        best = heapq.heappop(heap)
        if best.count != pair_counts[best.pair]:
            continue  # an outdated entry: the pair's present count stands in a later one
        if best.count == 0:
            break
        merges.append(best.pair)

        changed: set[Pair] = set()
        for w in where.pop(best.pair):
            for pair in zip(words[w], words[w][1:]):
                pair_counts[pair] -= weights[w]
                changed.add(pair)
            words[w] = join(words[w], best.pair)
            for pair in zip(words[w], words[w][1:]):
                pair_counts[pair] += weights[w]
                where[pair].add(w)
                changed.add(pair)
        for pair in changed:
            heapq.heappush(heap, _Candidate(pair_counts[pair], pair))
    return merges
