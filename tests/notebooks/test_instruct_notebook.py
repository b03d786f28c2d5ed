"""Notebook 02, run with small sizes: its outputs are there, and they say what the text claims.

A few steps teach no answers, so only what they can show is asserted: losses, tables, and how the batch is made.
"""

import re
from math import log

import pytest

from notebooks.execute import find_notebooks, read_notebook
from tests.notebooks.small import pictures, printed, run_small

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def told() -> str:
    return printed(run_small("02"))


def test_every_idea_has_its_picture(told):
    assert pictures(run_small("02")) == 6


def test_both_formats_are_shown_and_measured(told):
    assert "### Response:\n" in told and "<|Assistant|>\n" in told
    tokens = {style: int(n) for style, n in re.findall(r"(alpaca|phi3): (\d+) tokens a prompt", told)}
    assert tokens["phi3"] < tokens["alpaca"]


def test_the_batch_by_hand_is_that_of_collate(told):
    assert "Your inputs and targets and those of ch_instruct.collate are the same: yes" in told


def test_an_ignored_target_leaves_the_mean_as_it_was(told):
    two, three, ignored = map(float, re.findall(r"^targets .* mean loss (\S+)$", told, flags=re.M))
    assert two == ignored == pytest.approx(1.5 * log(2), abs=1e-4) and three == pytest.approx(2 * log(2), abs=1e-4)


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


def test_each_comparison_of_answers_has_its_interval(told):
    names = re.findall(r"^response only minus (.*): \S+% ± \S+% exact match$", told, flags=re.M)
    assert names == ["prompt too", "response only, asked in phi3 style"]
    assert re.search(r"^best minus last: \S+% ± \S+% exact match", told, flags=re.M)


def test_the_text_says_what_the_stored_outputs_say():
    notebook = read_notebook(find_notebooks(["02"])[0])
    stored = printed(notebook)
    shares = {name: [float(x) for x in re.findall(r"([\d.]+)%", row)] for name, row in re.findall(
        r"^(base|response only|no end|prompt too|response only, asked in phi3 style)((?: +\S+%){3})$", stored, flags=re.M)}
    matches, stopped = ({name: row[column] for name, row in shares.items()} for column in (0, 2))
    assert matches["base"] == stopped["base"] == 0  # "it never stops", and no bar in the picture
    assert matches["response only"] > 90 and min(matches["prompt too"], matches["response only, asked in phi3 style"]) > 85
    assert stopped["no end"] == 0 < 99 < min(stopped["prompt too"], stopped["response only, asked in phi3 style"])
    cut, = re.search(r"first line break, (\d+)% of them are right", stored).groups()
    assert 50 < int(cut) < matches["response only"]  # "most ... are right, but fewer than of the other one"
    masked, whole = (float(re.search(rf"^{arm} +(\d\.\d+) ", stored, flags=re.M)[1]) for arm in ("response only", "prompt too"))
    assert masked < whole  # "the test loss on responses is lower with the mask"
    text = " ".join(" ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown").split())
    assert f"Cut at the first line break, {cut} % of its answers are right" in text
    prompts, = re.search(r"without, (\d+)% of them tokens of prompts", stored).groups()
    assert f"Without the mask, {prompts} % of the targets are tokens of prompts" in text
    points = dict(re.findall(r"^response only minus (.*): \+([\d.]+)% ±", stored, flags=re.M))
    assert f"and {points['prompt too']} points more answers are right" in text
    assert f"but {points['prompt too']} points fewer answers are right" in text
    phi3, half = re.search(r"asked in phi3 style: \+([\d.]+)% ± ([\d.]+)%", stored).groups()
    assert float(phi3) < float(half)
    assert f"{phi3} points fewer answers are right, but the interval (± {half}) includes 0" in text
    asked, place, country = re.search(
        r"continent: (\d+) questions; .* right in (\d+) answers, the country in (\d+)", stored).groups()
    assert f"Of {asked} answers about continents, {place} name the right continent and {country} the right country" in text
    ranked, = re.search(r"lower loss in ([\d.]+)% of all pairs", stored).groups()
    worse, = re.search(r"^(\d+) right answers have a higher loss", stored, flags=re.M).groups()
    assert float(ranked) > 90 and int(worse) > 0  # "ranks answers well", "no line in the picture"
    assert f"in {ranked} % of all pairs the right answer has the lower loss" in text
    assert f"The {worse} right answers are compared with one of them" in text


def test_the_text_says_which_wrong_answers_are_only_cut_off():
    notebook = read_notebook(find_notebooks(["02"])[0])
    text = " ".join(" ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown").split())
    wrong = re.findall(r"^loss (\S+)  .*\n    expected: (.*)  given: (.*)$", printed(notebook), flags=re.M)
    assert [expected.startswith(given) for _, expected, given in wrong[:4]] == [True, True, False, False]  # "cut off"
    assert all(0.03 <= float(loss) < 0.04 for loss, *_ in wrong[:2])  # "the two orange tops near 0.03 and 0.04"
    assert wrong[3][2] == "The past tense of drive is dropped." and f"So it is only {wrong[3][0]}" in text


def test_the_text_says_where_overfitting_begins():
    notebook = read_notebook(find_notebooks(["02"])[0])
    stored = printed(notebook)
    text = " ".join(" ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown").split())
    epoch, lowest, end = re.search(r"validation loss is lowest after epoch (\d+), (\S+), and (\S+) at the end", stored).groups()
    trained, stop = re.search(r"last ten steps is (\S+)\.\n.*: after epoch (\d+)\.", stored).groups()
    assert f"lowest after epoch {epoch}, {lowest}, and {end} at the end" in text and 0 < int(epoch) < 15
    assert float(end) > 1.05 * float(lowest) and f"the training loss falls on to {trained}" in text
    assert f"It would have ended this training after epoch {stop}" in text


def test_wrong_answers_are_shown_with_their_losses(told):
    losses = [float(loss) for loss in re.findall(r"^loss (\S+)  ", told, flags=re.M)]
    assert len(losses) == 4 and losses == sorted(losses)
