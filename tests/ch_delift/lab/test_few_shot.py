import numpy as np
import pytest

from ch_delift.lab import few_shot
from ch_delift.lab.few_shot import answer_after, prompts_with_examples, same_family
from common.fast.answering import Continuation
from common.pretrained import save_pretrained
from common.support.files import InputError, write_json
from tests.conftest import assert_refused, run_here
from tests.models import make_model


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


def test_examples_of_the_same_family_are_of_it_and_fewer_are_the_first_of_more():
    pool = [{"family": "ab"[i % 2]} for i in range(20)]
    questions = [{"family": "a"}, {"family": "b"}, {"family": "a"}]
    three, one = same_family(questions, pool, 3, seed=1), same_family(questions, pool, 1, seed=1)
    assert three.shape == (3, 3) and one.tolist() == three[:, :1].tolist()
    assert [[pool[i]["family"] for i in row] for row in three.tolist()] == [["a"] * 3, ["b"] * 3, ["a"] * 3]
    assert same_family(questions, pool, 0, seed=1).shape == (3, 0)
    assert same_family(questions, pool, 3, seed=2).tolist() != three.tolist()


@pytest.mark.parametrize(("questions", "pool"), [([{"family": "a"}], [{}]), ([{"family": "a"}], [{"family": "b"}])])
def test_families_must_be_named_and_large_enough(questions, pool):
    with pytest.raises(InputError):
        same_family(questions, pool, 1, seed=0)


@pytest.mark.slow
def test_command_with_examples_of_the_same_family(tmp_path, tokenizer):
    save_pretrained(make_model(n_positions=600, n_embd=8, n_layer=1, n_head=1), tokenizer, tmp_path / "tiny")
    rows = [{"instruction": f"{i}?", "input": "", "output": f"{i}!", "family": "ab"[i % 2], "split": split}
            for i, split in enumerate(["train"] * 8 + ["validation"] * 2 + ["test"] * 4)]
    write_json(tmp_path / "r.json", rows)
    given = ["--model", "tiny", "--data", "r.json", "--same-family", 0, 2, "--max-new-tokens", 4]
    told = run_here("ch_delift/lab/few_shot.py", *given, "--out", "a.json", folder=tmp_path).stdout
    assert "2 of its family: 8 examples, 2 to 2 in a prompt" in told and "4 test questions" in told
    assert_refused(run_here("ch_delift/lab/few_shot.py", *given[:5], 5, "--out", "b.json", folder=tmp_path, check=False),
                   "the training part holds fewer records of a, b")
    assert_refused(run_here("ch_delift/lab/few_shot.py", "--out", "b.json", folder=tmp_path, check=False), "--same-family")
