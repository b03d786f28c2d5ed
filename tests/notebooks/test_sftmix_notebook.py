"""Notebook 03: a small run learns and compares; the stored outputs are what the text says."""

import re

import pytest

from notebooks.execute import find_notebooks, read_notebook
from tests.conftest import ROOT
from tests.notebooks.small import pictures, printed, run_small

ARMS = ("SFTMix", "random halves", "NTP, twice as long")


@pytest.fixture(scope="module")
def stored():
    return read_notebook(find_notebooks(["03"])[0])


@pytest.mark.slow
def test_every_idea_has_its_picture(stored):
    assert pictures(run_small("03")) == pictures(stored) == 9


def test_the_model_grows_surer(stored):
    """In the full run; the small one is too short for it to be certain."""
    medians = [float(x) for x in re.findall(r"median perplexity ([\d.]+)", printed(stored))]
    assert len(medians) > 1 and medians[-1] < medians[0]


@pytest.mark.slow
def test_every_arm_is_trained_and_learns(stored):
    small, whole = ({name: float(loss) for name, loss in re.findall(r"^(\w.*?)  +([\d.]+) ± [\d.]+ .*%", printed(notebook),
                                                                    flags=re.M)} for notebook in (run_small("03"), stored))
    assert small.keys() == whole.keys() == {"base", "NTP", *ARMS}
    assert all(loss < whole["base"] for name, loss in whole.items() if name != "base")
    assert all(loss != small["base"] for name, loss in small.items() if name != "base")  # two steps of a tiny model


def prose(notebook):
    return " ".join(" ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown").split())


def test_the_text_says_what_the_outputs_say(stored):
    told, text = printed(stored), prose(stored)
    assert "**A null result.**" in text
    seen = dict(re.findall(r"^(.*) minus NTP: .* points of exact match; 0 lies (\w+):", told, flags=re.M))
    assert seen == {"SFTMix": "within", "random halves": "outside", "NTP, twice as long": "outside"}
    found = re.findall(r"^(.*) minus NTP: ([-+][\d.]+) ± ([\d.]+) points", told, flags=re.M)
    assert [name for name, _, _ in found] == list(ARMS)
    _, lots, twice = ((float(mean), float(half)) for _, mean, half in found)
    assert f"**Random halves** look worse than NTP: {lots[0]} ± {lots[1]} points, so 0 lies just outside the interval." in text
    assert 0 < abs(lots[0]) - lots[1] < 0.2
    assert f"exact match rises by {twice[0]:.1f} ± {twice[1]:.1f} points" in text
    paired = {name: (float(mean), float(half)) for name, mean, half in re.findall(
        r"^(.* minus (?:SFTMix|random halves)): ([-+][\d.]+) ± ([\d.]+) points", told, flags=re.M)}
    assert list(paired) == ["NTP, twice as long minus SFTMix", "SFTMix minus random halves"]
    gain, half = paired["NTP, twice as long minus SFTMix"]
    assert f"This control, with equal time, beats SFTMix by {gain} ± {half} points." in text
    assert gain > half
    seeds = [[float(x) for x in row.split(", ")] for row in re.findall(r"^    seed by seed: (.*)$", told, flags=re.M)][:2]
    span = f"{max(map(max, seeds)):+.1f} and {min(map(min, seeds)):+.1f} points"
    assert f"Single seeds' differences to NTP lie between {span}" in text
    losses = {name: float(loss) for name, loss in re.findall(r"^(\w.*?)  +([\d.]+) ± [\d.]+  .*%$", told, flags=re.M)}
    assert "the test loss falls to less than half" in text and losses["NTP, twice as long"] < losses["NTP"] / 2


def test_the_text_repeats_the_results_of_the_lab(stored):
    before, _, after = (ROOT / "ch_sftmix/lab/RESULTS.md").read_text(encoding="utf-8").partition("## Primary comparisons on a")
    lab, text = before + after.partition("## All others")[2], prose(stored)
    [same] = re.findall(r"^sftmix - ntp, noise 0.2 +(\S+)% ± (\S+)%", lab, flags=re.M)
    assert "SFTMix minus NTP is {} ± {} points of exact match".format(*same) in text
    *clean, gain, half = re.search(
        r"^relative tenth left out - ntp +-(\d\S+)% ± (\S+)% +\+(\S+)% ± (\S+)%", lab, flags=re.M).groups()
    assert f"and the mean is {gain} ± {half} points above NTP" in text
    assert "Without noise it is {} ± {} points below".format(*clean) in text


def test_the_text_says_what_mixup_leaves_as_it_was(stored):
    told, text = printed(stored), prose(stored)
    ntp, mixed = (float(x) for x in re.search(r"from λ: NTP ([\d.]+), SFTMix ([\d.]+)", told).groups())
    assert "The curves lie on top of each other" in text and abs(ntp - mixed) < 0.01
    apart = re.search(r"curves further apart than ([\d.]+)\.", told)[1]
    assert f"they are nowhere further apart than {apart}" in text and float(apart) < 0.03
    halfway = re.search(r"Halfway they have ([\d.]+) and ([\d.]+), and all other tokens ([\d.]+)\.", told).groups()
    assert "Halfway the two tokens have {} and {}, and all others have {} together".format(*halfway) in text
    rows = re.findall(r"^('.*?')  +([\d.]+)  +[\d.]+  +('.*?')(  +[\d.]+  +[\d.]+)?$", told, flags=re.M)
    assert "have the same target (the full stop and the end-of-text of this pair)" in text and len(rows) > 2
    assert [(c, share, more) for c, share, u, more in rows if c == u] == [("'.'", "1.00", ""), ("'<|endoftext|>'", "1.00", "")]
    assert all(more for c, _, u, more in rows if c != u)


def test_the_text_says_what_the_dynamics_tell(stored):
    told, text = printed(stored), prose(stored)
    medians, highest = ([float(x) for x in row] for row in zip(*re.findall(
        r"median perplexity ([\d.]+), highest ([\d.]+)", told)))
    assert "some stay doubtful to the end" in text and highest[-1] > 2  # not even between two equally good tokens
    assert "falls most between the first two checkpoints" in text
    assert all(row[0] - row[1] > row[1] - row[2] > 0 for row in (medians, highest))
    assert f"after the last epoch half of the responses have a perplexity above {medians[-1]:.3f}" in text
    assert "The points lie nearly on a line" in text and float(re.search(r"as logarithms\): ([\d.]+)", told)[1]) > 0.9
    assert "Every record of seven kinds falls into the unconfident half" in text
    assert len(re.findall(r"\w+ 100%", told.partition("Share of each kind")[2].partition("λ =")[0])) == 7

    half, by_chance = (int(x) for x in re.search(r"In the unconfident half: (\d+) of them \(by chance: (\d+)\)", told).groups())
    wrong, found, chance = (int(x) for x in re.search(
        r"Among the (\d+) examples the model is least sure of: (\d+) \(by chance: (\d+)\)", told).groups())
    assert "Not one wrong answer is in the confident half" in text and half == wrong > by_chance
    assert "training dynamics put every wrong answer into the unconfident half" in text
    assert f"of the {wrong} examples the model is least sure of, {found} are wrong" in text and 2 * chance < found
    assert "But these do not lie apart" in text and found < wrong / 2
    in_ten = re.search(r"Among the ten least sure: (\d+)", told)[1]
    assert f"Of the ten least sure examples, {in_ten} are wrong." in text
    assert f"192 other records of the same kinds; {wrong} are wrong ({wrong / 192:.0%})".replace("%)", " %)") in text
