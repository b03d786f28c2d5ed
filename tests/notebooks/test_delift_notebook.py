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
    assert pair > 50 > target + example  # "most of it is due to the pair"
    itself, own, other = (numbers(rf"Mean utility of {of}: (-?[\d.]+)", told)[0] for of in (
        "the target itself", "another record of its family", "a record of another family"))
    # "nearly as much as the answer itself, ... another family hardly"
    assert itself > own > 0.8 * itself and other < 0.1 * itself
    known, copied = numbers(r"U\[i, j\] = ([+-][\d.]+)[\s\S]*U\[i, i\] = ([+-][\d.]+)", told)
    assert known < copied < 1.1 * known  # "helps hardly more than the example about Vietnam"
    assert re.search(r"^greedy chooses 0, which adds 1\.2, then 2, which adds 0\.4\.$", told, flags=re.M)
    assert "ρ = [4, 4, 4, 4, 1]" in told
    second = {rows: int(pick) for rows, pick in re.findall(r"^(plain rows|divided by ρ): .* then (\d),", told, flags=re.M)}
    assert second["plain rows"] in (1, 2, 3) and second["divided by ρ"] == 4  # "one more of the four", "record 4"
    assert re.findall(r"^Your .*: (yes|NO)$", told, flags=re.M) == ["yes", "yes"]
    palest = re.search(r"three lowest and the highest: (\S+) [\d.-]+, (\S+) [\d.-]+, (\S+) ", told).groups()
    assert set(palest) == {"kind", "past_tense", "continent"}  # "the diagonal is pale"
    text = " ".join(" ".join(cell.source for cell in stored.cells if cell.cell_type == "markdown").split())
    assert f"the example about Vietnam ({copied:+.4f} and {known:+.4f})" in text
    chosen = {stage: dict((f, int(n)) for f, n in re.findall(r"(\w+) (\d+)", row))
              for stage, row in re.findall(r"^(\w+), by utility: (.*)$", told, flags=re.M)}
    *others, last = (f.replace("_", " ") for f in chosen["task"] if f not in ("past_tense", "plural"))
    assert f"The other choices by utility are of {', '.join(others)} and {last}" in text
    assert f"{chosen['continual']['continent']} of the records that utilities choose are about continents" in text
    found = r": of 16 chosen, .*: (\d+) by utility, (\d+) by hidden states; by chance (\d+)"
    by_utility, by_states, chance = map(int, numbers("task" + found, told))
    assert f"choose {by_states} records of the two families and utilities {by_utility}; " \
        f"a random choice would have {chance}" in text
    by_utility, by_states, chance = map(int, numbers("continual" + found, told))
    assert chance < by_utility < by_states <= chance + 3  # "both are only a little better"
    assert f"({by_states} and {by_utility} of 16; random: {chance})" in text
    rows = re.findall(
        r"^\d+%, (\d+) records: DELIFT (\S+)%, random (\S+)% \((\S+)% to (\S+)%\)\n.*better: (\d) of 6", told, flags=re.M)
    small, large = rows
    lowest, highest = map(float, small[3:5])
    assert f"With {small[0]} records, {small[5]} of 6 random subsets are as good or better" in text and 1 <= int(small[5]) <= 5
    assert f"With {large[0]} records, all {large[5]} are better" in text and large[5] == "6"
    assert f"DELIFT is {float(large[2]) - float(large[1]):.0f} points below their mean" in text
    assert float(large[1]) < float(small[1])  # "Its 32 records are even worse than its 10"
    assert f"Random subsets of 10 records differ by {highest - lowest:.0f} points ({lowest} to {highest} %)" in text
    held = {int(count): int(found) for count, found in re.findall(r"first (\d+) records hold (\d+) of 18 families", told)}
    assert held == {10: 10, 32: 18} and "Its 32 records hold all 18 families, and its first 10 hold only 10" in text
    before, after = numbers(r"one of each family: ([+-][\d.]+) before fine-tuning, ([+-][\d.]+) after", told)
    assert after < 0 < before  # "after fine-tuning, an example in front mostly does harm"
    choosing, = numbers(r"utilities: (\d+) s", told)
    training, = numbers(r"training and test on everything: (\d+) s", told)
    assert f"the utilities cost {choosing:.0f} s and training and test on *everything* {training:.0f} s" in text
    naive, lazy = numbers(r"naive greedy computes ([\d,]+) gains, lazy greedy ([\d,]+); the same choice: True", told)
    assert lazy < naive / 2
