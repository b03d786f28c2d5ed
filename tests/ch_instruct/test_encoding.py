"""Records as token ids, and what happens to those that are too long."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ch_instruct.encoding import Example, encode_prompt, encode_record, encode_records
from ch_instruct.prompts import format_prompt
from ch_instruct.records import load_records
from common.support.files import InputError
from tests.ch_instruct.test_records import BYTES, GOOD, TALK, assert_one_sentence, said, save

PROMPT = len(format_prompt(GOOD, "phi3").encode())
SHORT, LONG = GOOD, GOOD | {"output": "r" * 50}  # PROMPT + 3 + 1 and PROMPT + 50 + 1 tokens
NO_ROOM = GOOD | {"instruction": "i" * 200}


def encode(records: list[dict], max_length: int, over_length: str) -> tuple[list[dict], list[Example], str]:
    places, kept, examples, note = encode_records(records, BYTES, "phi3", max_length, over_length)
    assert len(places) == len(kept) == len(examples)
    assert over_length == "truncate" or kept == [records[place] for place in places]
    return kept, examples, note


def test_examples_that_fit_stay_whole():
    kept, examples, note = encode([SHORT, LONG, SHORT], PROMPT + 51, "error")
    assert kept == [SHORT, LONG, SHORT]
    assert [len(ids) for ids, _, _ in examples] == [PROMPT + 4, PROMPT + 51, PROMPT + 4]
    assert note == f"3 examples of {PROMPT + 4} to {PROMPT + 51} tokens (median {PROMPT + 4})"


def test_drop_leaves_long_examples_out():
    kept, examples, note = encode([LONG, SHORT, NO_ROOM], PROMPT + 50, "drop")
    assert kept == [SHORT] and len(examples) == 1
    assert note.startswith("3 examples") and f"2 have more than {PROMPT + 50}: 2 left out, 0 cut" in note


def test_truncate_cuts_the_response():
    kept, examples, note = encode([LONG, SHORT, NO_ROOM], PROMPT + 10, "truncate")
    assert kept == [LONG, SHORT]
    assert BYTES.decode(examples[0].ids) == format_prompt(LONG, "phi3") + "r" * 10
    assert examples[0].prompt_length == PROMPT
    assert note.startswith("3 examples") and f"2 have more than {PROMPT + 10}: 1 left out, 1 cut" in note


def test_truncated_example_does_not_end():
    """The answer was not over, so there is nothing to stop for."""
    _, [cut, whole], _ = encode([LONG, SHORT], PROMPT + 10, "truncate")
    assert BYTES.eot_id not in cut.ids and whole.ids[-1] == BYTES.eot_id


@pytest.mark.parametrize(("room", "left"), [(0, []), (1, ["r"]), (2, ["rr"])])
def test_truncation_needs_room_for_a_response(room, left):
    kept, examples, _ = encode([LONG, SHORT | {"instruction": ""}], PROMPT + room, "truncate")
    cut = [BYTES.decode(e.ids[e.prompt_length:]) for e, record in zip(examples, kept) if record == LONG]
    assert cut == left


def test_error_stops():
    with pytest.raises(InputError) as refused:
        encode([LONG, SHORT, NO_ROOM], PROMPT + 50, "error")
    assert_one_sentence(str(refused.value), "2 of 3", f"more than {PROMPT + 50} tokens", "--max-length", "--over-length")


@pytest.mark.parametrize("over_length", ["drop", "truncate"])
def test_all_too_long(over_length):
    with pytest.raises(InputError) as refused:
        encode([NO_ROOM, NO_ROOM], PROMPT, over_length)
    assert_one_sentence(str(refused.value), "All 2 examples", f"more than {PROMPT} tokens", "--max-length")


def test_advice_on_long_records_can_be_followed():
    """--max-length is only proposed where the model reads more, cutting only where a prompt fits; the part is named."""
    def refusal(records, max_length, over_length, longest):
        with pytest.raises(InputError) as refused:
            encode_records(records, BYTES, "phi3", max_length, over_length, "test", longest)
        assert_one_sentence(str(refused.value))
        return str(refused.value)

    rows, limit = [LONG, SHORT, NO_ROOM], PROMPT + 20
    assert refusal(rows, limit, "error", 500) == (
        f"2 of 3 test examples have more than {limit} tokens (the longest {PROMPT + 200 - len(GOOD['instruction']) + 4}); "
        "raise --max-length (up to 500), or choose --over-length drop or truncate.")
    assert "--max-length" not in refusal(rows, limit, "error", limit)
    alone = refusal([LONG, NO_ROOM], limit, "drop", limit)
    assert "All 2 test examples" in alone and "--max-length" not in alone
    assert "keep the beginning of 1 by --over-length truncate" in alone
    assert len(encode([LONG, NO_ROOM], limit, "truncate")[0]) == 1  # followed
    for over_length in ("drop", "truncate"):
        assert "--over-length" not in refusal([NO_ROOM], limit, over_length, limit)
    assert encode([LONG, NO_ROOM, SHORT], 500, "error")[0]  # followed


def test_many_records_left_out_get_a_warning_with_the_reason():
    russian = [GOOD | {"instruction": "Почему небо голубое?" * 9, "output": "Свет"}] * 3
    note = encode_records([*[SHORT] * 5, *russian], BYTES, "phi3", PROMPT + 20, "drop", "train", PROMPT + 20).note
    first, warning = note.splitlines()
    assert first.endswith("3 left out, 0 cut") and "38% of these records are not used" in warning
    assert "take 1.7" in warning and "vocabulary was made for this language" in warning and "--max-length" not in warning
    few = encode_records([*[SHORT] * 30, LONG], BYTES, "phi3", PROMPT + 20, "drop", "train", PROMPT + 50).note
    assert "1 left out" in few and "WARNING" not in few


def test_records_and_examples_belong_together():
    records = [GOOD | {"output": "r" * n} for n in (3, 60, 5, 70, 8)]
    for over_length, lengths in (("drop", [3, 5, 8]), ("truncate", [3, 60, 5, 70, 8])):
        kept, examples, _ = encode(records, PROMPT + 20, over_length)
        assert [len(record["output"]) for record in kept] == lengths
        assert [len(e.ids) - e.prompt_length for e in examples] == [min(n + 1, 20) for n in lengths]


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8), limit=st.integers(2, 41),
       over_length=st.sampled_from(["drop", "truncate"]))
def test_no_example_is_longer_than_allowed_and_none_is_without_response(lengths, limit, over_length):
    records = [GOOD, *(GOOD | {"output": "r" * n} for n in lengths)]
    kept, examples, note = encode(records, PROMPT + max(limit, 4), over_length)
    left_out = re.search(r": (\d+) left out", note)
    assert len(kept) == len(examples) == len(records) - (int(left_out.group(1)) if left_out else 0)
    assert all(e.prompt_length < len(e.ids) <= PROMPT + max(limit, 4) for e in examples)


@pytest.mark.parametrize(("lengths", "median"), [((3, 20), 20), ((3, 8, 20), 8), ((20, 3, 8, 9), 9)])
def test_the_note_names_shortest_longest_and_median(lengths, median):
    _, _, note = encode([GOOD | {"output": "r" * n} for n in lengths], 500, "error")
    start = PROMPT + 1
    assert note == (f"{len(lengths)} examples of {start + min(lengths)} to {start + max(lengths)} tokens "
                    f"(median {start + median})")


def test_all_targets_are_all_tokens_but_the_first():
    one, talk = Example([1] * 9, 4), Example([1] * 12, 2, ((2, 4), (6, 12)))
    assert [example.targets("response") for example in (one, talk)] == [5, 8]
    assert [example.targets("all") for example in (one, talk)] == [8, 11]


def test_what_comes_in_front_is_prompt_and_moves_the_rest():
    one, talk = Example([1, 2, 3, 4], 2), Example([1, 2, 3, 4, 5, 6], 1, ((1, 3), (4, 6)))
    assert one.behind([7, 8, 9]) == Example([7, 8, 9, 1, 2, 3, 4], 5)
    assert one.behind([7, 8, 9], instead_of=1) == Example([7, 8, 9, 2, 3, 4], 4)
    assert talk.behind([7, 8]) == Example([7, 8, 1, 2, 3, 4, 5, 6], 3, ((3, 5), (6, 8)))
    assert talk.behind([], instead_of=1) == Example([2, 3, 4, 5, 6], 0, ((0, 2), (3, 5)))


# Conversations


def conversation(tmp_path: Path) -> tuple[dict, list[tuple[int, int]]]:
    """A conversation of three turns, as loaded, and the spans of its answers."""
    messages = [*TALK, *said("user: And a third?", "assistant: " + "g" * 30)]
    [record] = load_records(save(tmp_path / "a.json", [{"messages": messages}])).records
    return record, list(encode_record(record, BYTES, "phi3").spans)


def test_truncating_a_conversation_cuts_its_last_response(tmp_path):
    record, spans = conversation(tmp_path)
    [kept], [example], note = encode([record], spans[2][0] + 10, "truncate")
    assert kept == record
    assert example.ids == encode_record(record, BYTES, "phi3").ids[:spans[2][0] + 10]
    assert list(example.spans) == [*spans[:2], (spans[2][0], spans[2][0] + 10)]
    assert note.endswith("0 left out, 1 cut")


@pytest.mark.parametrize("room", [0, -1, -20])
def test_truncating_a_conversation_drops_turns_that_begin_too_late(tmp_path, room):
    """The record is asked its second question then, and the prompt is still the one that was trained on."""
    record, spans = conversation(tmp_path)
    [kept], [example], _ = encode([record], spans[2][0] + room, "truncate")
    assert kept["messages"] == TALK and kept["instruction"] == "One more?" and kept["output"] == "blue"
    assert example.ids == encode_record({"messages": TALK}, BYTES, "phi3").ids and list(example.spans) == spans[:2]
    assert encode_prompt(kept, BYTES, "phi3") == example.ids[:spans[1][0]]


def test_conversation_whose_first_prompt_is_too_long_is_left_out(tmp_path):
    record, spans = conversation(tmp_path)
    kept, examples, _ = encode([record, SHORT], spans[0][0], "truncate")
    assert kept == [SHORT] and len(examples) == 1


def test_drop_and_error_take_conversations_too(tmp_path):
    record, spans = conversation(tmp_path)
    kept, _, note = encode([record, SHORT], spans[2][1] - 1, "drop")
    assert kept == [SHORT] and "1 left out" in note
    with pytest.raises(InputError, match="1 of 2"):
        encode([record, SHORT], spans[2][1] - 1, "error")
