"""A number that stands in several places is the same in all of them."""

import re

import pytest

from tests.conftest import ROOT

DELIFT = ("ch_delift/README.md", "ch_delift/lab/first_map.md")
SFTMIX = ("ch_sftmix/README.md", "README.md", "ch_instruct/recipe.md")
FIRST = ("ch_sftmix/README.md", "ch_sftmix/lab/first_map.md")
QUOTED = {  # as it is written -> where it has to stand
    "| skewed | +12.2 ± 8.5 | 0.012 | 0.058 | -3.4 ± 8.5 | 0.376 | 0.376 |": DELIFT,
    "| redundant | **+11.2 ± 5.2** | 0.001 | 0.008 | -2.7 ± 3.4 | 0.105 | 0.211 |": DELIFT,
    "| target | +15.4 ± 10.7 | 0.012 | 0.058 | -9.9 ± 9.2 | 0.038 | 0.115 |": DELIFT,
    "11 to 15 points": (*DELIFT, "README.md", "ch_instruct/recipe.md", "notebooks/04_delift.ipynb"),
    "+12.2 on skewed data becomes about +1.4": DELIFT[:1], "+12.2 becomes about +1.4": DELIFT[1:],
    "+1.7": FIRST, "+1.8": FIRST, "-5.7": FIRST,
    "+2.8 ± 1.1": SFTMIX, "+3.0 ± 0.7": SFTMIX, "2.2 ± 1.2": SFTMIX,
    "94.6": ("README.md", "ch_instruct/README.md")}


@pytest.mark.parametrize("number", QUOTED)
def test_a_number_is_the_same_wherever_it_is_quoted(number):
    texts = {place: " ".join((ROOT / place).read_text(encoding="utf-8").split()) for place in QUOTED[number]}
    assert [place for place, text in texts.items() if number not in text] == []


def test_sftmixs_readme_quotes_its_results():
    results = (ROOT / "ch_sftmix/lab/RESULTS.md").read_text(encoding="utf-8")
    text = " ".join((ROOT / "ch_sftmix/README.md").read_text(encoding="utf-8").split())
    bounds = re.search(r"excluded: \+(\S+)% .*, \+(\S+)% .*, \+(\S+)% ", results).groups()
    assert "Their upper ends, before rounding, are {}, {} and {} points".format(*bounds) in text
    for name in ("sftmix - ntp", "relative tenth left out - tenth left out"):
        rows = re.findall(rf"^{name}, noise \S+ +(\S+)% ± (\S+)% +\S+ +(\S+)$", results, flags=re.M)
        cells = " | ".join(f"{mean} ± {half} | {p}" for mean, half, p in rows)
        assert len(rows) == 3
        assert f"{name.replace('sftmix', 'SFTMix').replace('ntp', 'NTP')} | {cells} |" in text.replace("**", "")
    [ours] = re.findall(r"^relative tenth left out - ntp +(.*)$", results, flags=re.M)[:1]
    assert re.findall(r"(\S+)% ± (\S+)%", ours) == [("-2.2", "1.2"), ("+2.8", "1.1"), ("+3.0", "0.7")]  # as QUOTED has them
    wrong = {name: re.findall(r"(\S+)% ±", row)[1] for name, row in re.findall(
        r"^(tenth left out|relative tenth left out) +(\S+% ± .*)$", results.partition("Wrong answers among")[2], flags=re.M)}
    assert f"{float(wrong['tenth left out']):.0f} % are wrong" in text
    assert f"{float(wrong['relative tenth left out']):.0f} % are wrong" in text
