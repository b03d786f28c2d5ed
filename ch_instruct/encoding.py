"""From a record to token ids: prompt and response are encoded apart, so where each response begins
and ends is known."""

from itertools import accumulate, chain
from typing import NamedTuple

from ch_instruct.prompts import chatml_turns, format_turns
from ch_instruct.records import last_turn
from ch_instruct.support.prompt_style import default_system
from common.support.files import InputError
from common.tokenizer import Tokenizer

MANY = 0.1  # a larger share of records that are left out gets a warning
ENGLISH = "GPT-2's vocabulary takes about 0.25 for English, up to 3 for other scripts"
FOREIGN = ("take a model whose vocabulary was made for this language: one of the hub, or of "
           "ch_pretrain/train.py")


class Example(NamedTuple):
    """One encoded record: prompt, response, end-of-text; in a conversation, this again for every
    further turn.

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

    def targets(self, loss_on: str) -> int:
        """How many of its tokens are in the loss; see `collate`."""
        return self.response_tokens if loss_on == "response" else len(self.ids) - 1

    def behind(self, front: list[int], instead_of: int = 0) -> "Example":
        """This example with `front` before it, in the place of its first `instead_of` ids. Both are
        prompt."""
        by = len(front) - instead_of
        return Example(front + self.ids[instead_of:], self.prompt_length + by,
                       tuple((start + by, end + by) for start, end in self.turns))


def encode_turns(record: dict, tokenizer: Tokenizer, style: str = "alpaca") -> list[list[int]]:
    """Encode each prompt and each response apart. Responses end with the end-of-text token, from
    which the model learns to stop."""
    if style == "chatml":
        turns = chatml_turns(record, default_system(tokenizer.chat_template))
    else:
        turns = [[text] for text in format_turns(record, style)]
    # every second turn is a response
    return [tokenizer.encode_pieces(pieces) + [tokenizer.eot_id] * (number % 2)
            for number, pieces in enumerate(turns)]


def encode_record(record: dict, tokenizer: Tokenizer, style: str = "alpaca") -> Example:
    """Encode a record with all its responses."""
    parts = encode_turns(record, tokenizer, style)
    ends = list(accumulate(map(len, parts)))
    turns = tuple(zip(ends[::2], ends[1::2]))  # a response begins where its prompt ends
    return Example(list(chain(*parts)), ends[0], turns if len(parts) > 2 else ())


def encode_prompt(record: dict, tokenizer: Tokenizer, style: str = "alpaca") -> list[int]:
    """What the model reads before it gives the last response: the same ids as those of
    `encode_record` up to there."""
    parts = encode_turns(record, tokenizer, style)
    return list(chain(*(parts if len(parts) % 2 else parts[:-1])))


class Encoded(NamedTuple):
    """Records that were kept, and what became of them."""

    places: list[int]  # where each stood in the list that was encoded
    records: list[dict]
    examples: list[Example]
    note: str  # a sentence on lengths


def encode_records(records: list[dict], tokenizer: Tokenizer, style: str, max_length: int,
                   over_length: str, part: str = "", longest: int | None = None) -> Encoded:
    """Encode records; apply the policy to those of more than `max_length` tokens.

    Args:
        over_length: "drop" leaves them out; "truncate" cuts the response at its end (and leaves out
            those whose prompt alone is too long), in a conversation the last response that begins
            in time, and drops the turns after it; "error" stops.
        part: what the records are for, for the sentences: train, validation or test.
        longest: tokens that the model can read, if that is more.

    Raises:
        InputError: with "error", or if none is left.
    """
    examples = [encode_record(record, tokenizer, style) for record in records]
    lengths = sorted(len(example.ids) for example in examples)
    long = [i for i, example in enumerate(examples) if len(example.ids) > max_length]
    count, what = f"{len(records)} {part}".strip(), f"more than {max_length} tokens"
    up_to = f" (up to {longest})" if longest else ""
    raising = [f"raise --max-length{up_to}"] * (max_length != longest)
    cutting = sum(over_length == "drop" and examples[i].prompt_length < max_length for i in long)
    keeping = [f"keep the beginning of {cutting} by --over-length truncate"] * bool(cutting)
    if long and over_length == "error":
        raise InputError(
            f"{len(long)} of {count} examples have {what} (the longest {lengths[-1]}); "
            + ", or ".join([*raising, "choose --over-length drop or truncate."]))
    per_character = (sum(len(examples[i].ids) for i in long)
                     / max(1, sum(len("".join(format_turns(records[i], style))) for i in long)))
    foreign = [FOREIGN] * (per_character > 0.6)
    if over_length == "truncate":
        records = list(records)
        for i in long:
            records[i], examples[i] = cut(records[i], examples[i], max_length)
    kept = [i for i, example in enumerate(examples)
            if len(example.ids) <= max_length and example.prompt_length < len(example.ids)]
    shortening = "shorten or divide the texts, or take a model that reads more."
    advice = ", or ".join([*raising, *keeping, *foreign, shortening])
    if not kept:
        raise InputError(f"All {count} examples have {what} (the shortest {lengths[0]}, "
                         f"{per_character:.2f} a character); {advice}")
    note = (f"{len(records)} examples of {lengths[0]} to {lengths[-1]} tokens "
            f"(median {lengths[len(lengths) // 2]})")
    if long:
        dropped = len(records) - len(kept)
        note += (f"; {len(long)} have more than {max_length}: {dropped} left out, "
                 f"{len(long) - dropped} cut")
        if dropped > MANY * len(records):
            note += (f"\n  WARNING: {dropped / len(records):.0%} of these records are not used. "
                     f"The long ones take {per_character:.2f} tokens a character ({ENGLISH}). "
                     f"What helps: {advice}")
    return Encoded(kept, [records[i] for i in kept], [examples[i] for i in kept], note)


def cut(record: dict, example: Example, max_length: int) -> tuple[dict, Example]:
    """Make an example fit: leave out the turns whose response begins too late, cut the response
    that ends too late.

    The record loses the same turns, but keeps its last response whole: it is what an answer is
    compared with.
    """
    turns = tuple((start, min(end, max_length)) for start, end in example.turns
                  if start < max_length)
    if turns:
        kept = len(record["messages"]) - 2 * (len(example.turns) - len(turns))
        record = last_turn(record | {"messages": record["messages"][:kept]})
    length = turns[-1][1] if turns else max_length
    return record, Example(example.ids[:length], example.prompt_length, turns)
