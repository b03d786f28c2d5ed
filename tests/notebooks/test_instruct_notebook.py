"""Notebook 02, run with small sizes: its outputs are there, and they say what the text claims.

A few steps teach no answers, so only what they can show is asserted: losses, tables, and how the batch is made.
"""

import re

import pytest

from tests.notebooks.small import pictures, printed, run_small

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def told() -> str:
    return printed(run_small("02"))


def test_every_idea_has_its_picture(told):
    assert pictures(run_small("02")) == 8


def test_both_formats_are_shown_and_measured(told):
    assert "### Response:\n" in told and "<|Assistant|>\n" in told
    tokens = {style: int(n) for style, n in re.findall(r"(alpaca|phi3): (\d+) tokens a prompt", told)}
    assert tokens["phi3"] < tokens["alpaca"]


def test_the_five_steps_end_where_collate_does(told):
    assert "collate() gives the same inputs and targets: yes" in told


def test_an_ignored_target_leaves_the_mean_as_it_was(told):
    two, three, ignored = re.findall(r"^targets .* mean loss (\S+)$", told, flags=re.M)
    assert two == ignored != three


def test_all_arms_are_in_the_table(told):
    names = ("base", "response only", "no end", "prompt too", "response only, asked in phi3 style")
    assert [name for name in names if not re.search(rf"^{name}( +\S+%){{3}}$", told, flags=re.M)] == []


def test_fine_tuning_lowers_the_loss(told):
    before, after = re.search(r"validation loss (\S+) before training, (\S+) after", told).groups()
    assert float(after) < float(before) - 0.2


def test_most_targets_are_prompts_without_the_mask(told):
    masked, whole = re.search(r"^([\d,]+) targets with the mask; ([\d,]+) without", told, flags=re.M).groups()
    assert int(masked.replace(",", "")) < 0.5 * int(whole.replace(",", ""))
    arms = {name: float(loss) for name, loss in re.findall(r"^(response only|prompt too) +(\d\.\d{4}) ", told, flags=re.M)}
    assert arms["response only"] < arms["prompt too"]


def test_the_best_checkpoint_is_compared_with_the_last(told):
    assert re.search(r"the validation loss is lowest after epoch \d+, \S+, and \S+ at the end", told)
    best, last = (float(re.search(rf"^{row} +(\S+)", told, flags=re.M)[1]) for row in ("best validation loss", "last epoch"))
    assert best <= last


def test_wrong_answers_are_shown_with_their_losses(told):
    losses = [float(loss) for loss in re.findall(r"^loss (\S+)  ", told, flags=re.M)]
    assert len(losses) == 4 and losses == sorted(losses)
