"""Notebook 04: a small run computes, chooses and compares; the stored outputs are what the text says."""

import re

import pytest

from notebooks.execute import find_notebooks, read_notebook
from tests.notebooks.small import pictures, printed, run_small


@pytest.fixture(scope="module")
def stored():
    return read_notebook(find_notebooks(["04"])[0])


def numbers(pattern: str, told: str) -> list[float]:
    """What the pattern's groups hold."""
    return [float(found.replace(",", "")) for found in re.search(pattern, told).groups()]


@pytest.mark.slow
def test_every_idea_has_its_picture(stored):
    assert pictures(run_small("04")) == pictures(stored) == 9


@pytest.mark.slow
def test_the_matrix_agrees_with_the_hand(stored):
    for notebook in (run_small("04"), stored):
        form = r"by hand: ([+-][\d.]+), plain_utility: ([+-][\d.]+), utility_matrix: ([+-][\d.]+)"
        hand, plain, fast = numbers(form, printed(notebook))
        assert fast == pytest.approx(hand, abs=2e-4) and plain == pytest.approx(hand, abs=2e-4)


@pytest.mark.slow
def test_choices_and_scores_are_printed():
    told = printed(run_small("04"))
    assert "the same choice: True" in told
    assert re.search(r"^task: of \d+ chosen, from the wanted families: \d by utility, \d by hidden states", told, flags=re.M)
    assert re.search(r"^30%, \d+ records: DELIFT [\d.]+%, random [\d.]+%", told, flags=re.M)


def test_the_text_says_what_the_outputs_say(stored):
    told = printed(stored)
    target, example, pair = numbers(r"due to the target: (\d+)%, to the example: (\d+)%, to the pair: (\d+)%", told)
    assert pair > 50 > target + example  # "here they are most of it", "most lies in the pairs"
    itself, own, other = (numbers(rf"Mean utility of {of}: (-?[\d.]+)", told)[0] for of in (
        "the target itself", "another record of its family", "a record of another family"))
    # "nearly as much as the answer itself, ... another family hardly"
    assert itself > own > 0.8 * itself and other < 0.1 * itself
    known, copied = numbers(r"U\[i, j\] = ([+-][\d.]+)[\s\S]*U\[i, i\] = ([+-][\d.]+)", told)
    assert known < copied < 1.1 * known  # "helps hardly more than another country's"
    assert re.search(r"^maximize\(\) chooses 0, which adds 1\.2, then 2, which adds 0\.4\.$", told, flags=re.M)
    palest = re.search(r"three lowest and the highest: (\S+) [\d.-]+, (\S+) [\d.-]+, (\S+) ", told).groups()
    assert set(palest) == {"kind", "past_tense", "continent"}  # "the diagonal is pale"
    chosen = {stage: dict((f, int(n)) for f, n in re.findall(r"(\w+) (\d+)", row))
              for stage, row in re.findall(r"^(\w+), by utility: (.*)$", told, flags=re.M)}
    assert chosen["task"].keys() == {"past_tense", "plural", "home", "job", "opposite"}  # "Their other six are of ..."
    assert chosen["continual"]["continent"] + chosen["continual"]["kind"] > 8  # "more than half"
    assert not chosen["instruction"].keys() & {"job", "opposite", "plural"} and chosen["instruction"]["continent"] == 3
    found = r": of 16 chosen, .*: (\d+) by utility, (\d+) by hidden states; by chance (\d+)"
    by_utility, by_states, chance = numbers("task" + found, told)
    assert (by_utility, by_states) == (10, 12) and by_utility >= 4 * chance  # "all twelve", "ten, far more than chance would"
    by_utility, by_states, chance = numbers("continual" + found, told)
    assert chance < by_utility < by_states <= chance + 3  # "both are only a little ahead of chance"
    better = [int(n) for n in re.findall(r"as good as DELIFT or better: (\d) of 6 random subsets", told)]
    assert len(better) == 2 and 2 <= better[0] <= 4 and better[1] == 6  # "in the middle of the random ones, at 30 % below all"
    before, after = numbers(r"one of each family: ([+-][\d.]+) before fine-tuning, ([+-][\d.]+) after", told)
    assert after < 0 < before  # "after fine-tuning, an example in front mostly does harm"
    choosing, = numbers(r"utilities: (\d+) s", told)
    training, = numbers(r"training and test on everything: (\d+) s", told)
    assert 2.5 < choosing / training < 4.5  # "choosing cost about three times what training on everything cost"
    naive, lazy = numbers(r"naive greedy computes ([\d,]+) gains, lazy greedy ([\d,]+); the same choice: True", told)
    assert lazy < naive / 2
