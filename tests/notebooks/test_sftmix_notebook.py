"""Notebook 03: a small run learns and compares; the stored outputs are what the text says."""

import re

import pytest

from notebooks.execute import find_notebooks, read_notebook
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
def test_every_arm_learns(stored):
    for notebook in (run_small("03"), stored):
        rows = re.findall(r"^(\w.*?)  +([\d.]+) ± [\d.]+ .*%", printed(notebook), flags=re.M)
        losses = {name: float(loss) for name, loss in rows}
        assert losses.keys() == {"base", "NTP", *ARMS}
        assert all(loss < losses["base"] for name, loss in losses.items() if name != "base")


def test_the_text_says_what_the_outputs_say(stored):
    told = printed(stored)
    text = " ".join(" ".join(cell.source for cell in stored.cells if cell.cell_type == "markdown").split())
    assert "**A null result.**" in text
    seen = dict(re.findall(r"^(.*) minus NTP: .* points of exact match; 0 lies (\w+):", told, flags=re.M))
    assert seen == {"SFTMix": "within", "random halves": "within", "NTP, twice as long": "outside"}
    assert re.search(r"^SFTMix minus NTP, with noise: .* 0 lies within: no difference seen$", told, flags=re.M)
    assert "No difference is seen here either" in text and "The control of equal time beats the method" in text
    ntp, mixed = (float(x) for x in re.search(r"from λ: NTP ([\d.]+), SFTMix ([\d.]+)", told).groups())
    assert "The curves lie on top of each other" in text and abs(ntp - mixed) < 0.01
    wrong, found, chance = (int(x) for x in re.search(
        r"Among the (\d+) examples the model is least sure of: (\d+) \(by chance: (\d+)\)", told).groups())
    assert "the wrong answers float on top" in text and found > wrong / 2 > 2 * chance
