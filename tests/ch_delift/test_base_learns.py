"""What the shipped base model must be able to do: learn from an example in its prompt. Thresholds lie a little below what was
measured (`ch_pretrain/README.md`)."""

from collections import defaultdict

import pytest

from ch_delift.lab import ask_first
from ch_delift.lab.few_shot import answer_after, prompts_with_examples, same_family
from ch_delift.utility import shown
from ch_instruct.encoding import encode_prompt, encode_record
from ch_instruct.scoring import score
from ch_pretrain import classroom
from ch_pretrain.pages import HELD_OUT
from common.pretrained import load_pretrained
from tests.ch_delift.test_utility import matrix

pytestmark = pytest.mark.slow
TRAINING = [record for record in classroom.records() if record["split"] == "train"]


@pytest.fixture(scope="module")
def base():
    return load_pretrained("classroom")


def summary(base, *chosen) -> dict[str, float]:
    targets, others = ask_first.choose_records(TRAINING, 2, *chosen)
    found = ask_first.summary(matrix(*base, targets, targets + others), targets, targets + others)
    return {what.removeprefix("mean utility of "): value for what, value in found.items()}


def test_an_example_of_the_same_family_helps_and_others_hardly(base):
    found = summary(base)
    assert found["the target itself"] > found["its family"] > 0.10
    assert found["its family"] > 6 * found["other families"]
    assert found["targets whose best example is of their family"] >= 0.8


def test_so_it_does_in_families_that_stood_in_no_interview(base):
    """Else utility would be a family's label, learnt by heart."""
    found = summary(base, HELD_OUT, 4)
    assert found["the target itself"] > found["its family"] > max(0.03, 3 * found["other families"])


def test_examples_show_the_form_of_an_answer(base):
    model, tokenizer = base
    by_family = defaultdict(list)
    for record in classroom.records():
        by_family[record["split"], record["family"]].append(record)
    asked = [record for (split, _), rows in by_family.items() if split == "test" for record in rows[:4]]
    pool = [record for (split, _), rows in by_family.items() if split == "train" for record in rows]
    questions = [encode_prompt(record, tokenizer, "alpaca") for record in asked]
    examples, found = [shown(encode_record(record, tokenizer), tokenizer) for record in pool], {}
    longest = model.config.n_positions - 24
    for shots in (0, 1):
        prompts, _ = prompts_with_examples(questions, same_family(asked, pool, shots, 0), examples, longest)
        found[shots] = score(answer_after(model, tokenizer, asked, prompts, 24, 32))["exact_match"]
    assert found[0] < 0.25 and found[1] > 0.6
