"""Scores of answers whose right wording is known: exact match, ROUGE-L, and the share that
stopped."""

import re
import unicodedata
from collections import defaultdict
from statistics import fmean

import regex

# typographic ones -> the plain one
APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u02bc"), "'")
# Latin and most others, Chinese and Japanese, Hindi, Urdu
FULL_STOP = re.compile("[.\u3002\u0964\u06d4]$")
# no spaces between words
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\u30fc\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
# A character of these with its marks, or a run of letters, marks and digits of the others.
WORD = regex.compile(rf"(?V1)[[{UNSPACED}]&&[\p{{L}}\p{{N}}]]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]+")


def normalise(text: str) -> str:
    """What exact match compares: case, spacing, the kind of apostrophe, the way in which accents
    are stored (Unicode's NFC) and a full stop at the end do not matter."""
    text = unicodedata.normalize("NFC", _fold(text)).translate(APOSTROPHES)
    text = " ".join(text.split())
    return FULL_STOP.sub("", text).rstrip() or text


def _fold(text: str) -> str:
    return unicodedata.normalize("NFD", text).casefold()


def exact_match(answer: str, expected: str) -> bool:
    """Whether the answer is the expected one, up to what `normalise` leaves out."""
    return normalise(answer) == normalise(expected)


def rouge_l(answer: str, expected: str) -> float:
    """ROUGE-L (Lin, 2004): the F1 of the longest common subsequence of words, from 0 to 1.

    Words are runs of letters and digits, whatever their case; for a-z and 0-9 it equals the
    `rouge-score` package without stemming, which knows no other letters. Scripts that put no spaces
    between words count by characters.
    """
    a, b = (WORD.findall(_fold(text)) for text in (answer, expected))
    if not a or not b:
        return 0.0
    # row[j]: longest common subsequence of the words of `a` so far and b[:j]
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for j, other in enumerate(b, 1):
            diagonal, row[j] = row[j], diagonal + 1 if word == other else max(row[j], row[j - 1])
    precision, recall = row[-1] / len(a), row[-1] / len(b)
    return 2 * precision * recall / (precision + recall) if row[-1] else 0.0


def score(responses: list[dict]) -> dict:
    """Means over responses that have "answer", "output" (the expected one), "stopped" and maybe
    "family".

    Returns:
        exact_match, rouge_l and stopped, shares between 0 and 1, and families, family -> exact
        match (None if the records name no families).
    """
    matches = [exact_match(r["answer"], r["output"]) for r in responses]
    by_family = defaultdict(list)
    for response, match in zip(responses, matches):
        if "family" in response:
            by_family[response["family"]].append(match)
    return {
        "exact_match": fmean(matches),
        "rouge_l": fmean([rouge_l(r["answer"], r["output"]) for r in responses]),
        "stopped": fmean([r["stopped"] for r in responses]),
        "families": {family: fmean(found) for family, found in sorted(by_family.items())} or None}

