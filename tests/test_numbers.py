"""A number that stands in several places is the same in all of them."""

import pytest

from tests.conftest import ROOT

DELIFT, SFTMIX = ("ch_delift/README.md", "ch_delift/lab/first_map.md"), ("ch_sftmix/README.md", "ch_sftmix/lab/first_map.md")
QUOTED = {  # as it is written -> where it has to stand
    "| skewed | +12.2 ± 8.5 | 0.012 | 0.058 | -3.4 ± 8.5 | 0.376 | 0.376 |": DELIFT,
    "| redundant | **+11.2 ± 5.2** | 0.001 | 0.008 | -2.7 ± 3.4 | 0.105 | 0.211 |": DELIFT,
    "| target | +15.4 ± 10.7 | 0.012 | 0.058 | -9.9 ± 9.2 | 0.038 | 0.115 |": DELIFT,
    "11 to 15 points": (*DELIFT, "README.md", "ch_instruct/recipe.md", "notebooks/04_delift.ipynb"),
    "+12.2 on skewed data becomes about +1.4": DELIFT[:1], "+12.2 becomes about +1.4": DELIFT[1:],
    "+1.7": (*SFTMIX, "README.md", "ch_instruct/recipe.md"), "+1.8": (*SFTMIX, "README.md", "ch_instruct/recipe.md"),
    "-5.7": (*SFTMIX, "README.md", "ch_instruct/recipe.md"),
    "94.6": ("README.md", "ch_instruct/README.md")}


@pytest.mark.parametrize("number", QUOTED)
def test_a_number_is_the_same_wherever_it_is_quoted(number):
    texts = {place: (ROOT / place).read_text(encoding="utf-8") for place in QUOTED[number]}
    assert [place for place, text in texts.items() if number not in text] == []


def test_sftmixs_bounds_are_the_ends_of_its_intervals():
    """"Gains above 0.1, 0.9 and 0.6 points are excluded" is mean plus half of the interval, of the line above it."""
    text = (ROOT / "ch_sftmix/README.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| SFTMix - NTP |"))
    ends = [sum(map(float, cell.split(" ± "))) for cell in row.split(" | ")[1::2]]
    assert f"Gains above {ends[0]:.1f}, {ends[1]:.1f} and {ends[2]:.1f} points are excluded" in text
