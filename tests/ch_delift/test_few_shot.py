import numpy as np
import pytest

from ch_delift import few_shot
from ch_delift.few_shot import answer_after, prompts_with_examples
from common.generation import Continuation


def test_the_nearest_stands_last_and_only_what_fits_is_shown():
    examples = [[1, 1], [2, 2, 2], [3]]
    prompts, counts = prompts_with_examples([[9, 9], [8]], np.array([[0, 1, 2], [2, 0, 1]]), examples, longest=6)
    assert prompts == [[1, 1, 9, 9], [1, 1, 3, 8]]  # of the first, the second example does not fit, so no further one is tried
    assert counts == [1, 2]


def test_an_answer_ends_where_the_next_example_would_begin(tiny_model, tokenizer, monkeypatch):
    said = ["red\n\n### Instruction", "blue", " green\nand more"]
    monkeypatch.setattr(few_shot, "continue_all", lambda *_: [
        Continuation(tokenizer.encode(text), stopped) for text, stopped in zip(said, (False, True, False))])
    answers = answer_after(tiny_model, tokenizer, [{"output": "red"}] * 3, [[1]] * 3, 9, 2)
    assert [(a["answer"], a["stopped"]) for a in answers] == [("red", True), ("blue", True), ("green\nand more", False)]


@pytest.mark.parametrize("longest", [2, 3])
def test_without_room_there_are_no_examples(longest):
    prompts, counts = prompts_with_examples([[9, 9]], np.array([[0]]), [[1, 1]], longest)
    assert prompts == [[9, 9]] and counts == [0]
