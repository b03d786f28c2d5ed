"""A number that stands in several places is the same in all of them."""

import json
import re
from pathlib import Path

import pytest

from ch_delift.lab import real_language as real_delift
from ch_sftmix.lab import real_language as real_sftmix
from tests.conftest import ROOT

DELIFT = ("ch_delift/README.md", "README.md")
SFTMIX = ("ch_sftmix/README.md", "README.md", "ch_instruct/recipe.md")
FOUND = "ch_delift/lab/findings.md"
PAGES, CHOOSING = ("ch_delift/README.md", FOUND), (*DELIFT, FOUND)
FOUND_BY_SFTMIX = ("ch_sftmix/README.md", "ch_sftmix/lab/findings.md")
FIRST = ("ch_sftmix/lab/findings.md", "ch_sftmix/lab/first_map.md")
QUOTED = {  # as it is written -> where it has to stand
    "11 to 15 points": (FOUND, "ch_delift/lab/first_map.md"), "270 and 294": DELIFT,
    "8 to 17 points": DELIFT, "6.7 ± 7.2": CHOOSING, "0.8 ± 3.5": CHOOSING,
    "17 to 28 points": (FOUND, "ch_instruct/recipe.md"), "5.7 ± 2.2": CHOOSING, "8.0 ± 2.1": CHOOSING,
    "3.6 ± 2.6": (*PAGES, "ch_instruct/recipe.md"), "84.9": (*PAGES, "ch_instruct/recipe.md"),
    "0.0080 ± 0.0081": ("README.md", "ch_sftmix/README.md", "ch_sftmix/lab/findings.md"),
    "+1.7": FIRST, "+1.8": FIRST, "-5.7": FIRST,
    "+2.8 ± 1.1": SFTMIX, "+3.0 ± 0.7": SFTMIX, "2.2 ± 1.2": SFTMIX,
    "13.3 ± 4.9": (*CHOOSING, "ch_instruct/recipe.md"), "8.7 ± 2.9": (*CHOOSING, "ch_instruct/recipe.md"),
    "+2.5 ± 1.4": FOUND_BY_SFTMIX, "+1.5 ± 1.1": (*SFTMIX, FOUND_BY_SFTMIX[1]),
    "3.1 ± 1.7": (*SFTMIX, FOUND_BY_SFTMIX[1]), "83.4 ± 8.5": PAGES, "6.4 ± 3.9": PAGES, "5.6 ± 3.5": PAGES,
    "94.6": ("README.md", "ch_instruct/README.md")}


@pytest.mark.parametrize("number", QUOTED)
def test_a_number_is_the_same_wherever_it_is_quoted(number):
    texts = {place: " ".join((ROOT / place).read_text(encoding="utf-8").split()) for place in QUOTED[number]}
    assert [place for place, text in texts.items() if number not in text] == []


def test_sftmixs_pages_quote_its_results():
    results = (ROOT / "ch_sftmix/lab/RESULTS.md").read_text(encoding="utf-8")
    before, _, second = results.partition("## Primary comparisons on a second base")
    second, _, rest = second.partition("## All others")
    results = before + rest
    readme, found = (" ".join((ROOT / "ch_sftmix" / page).read_text(encoding="utf-8").split())
                     for page in ("README.md", "lab/findings.md"))
    text = readme + found
    bounds = re.search(r"itself: \+(\S+)% .*, \+(\S+)% .*, \+(\S+)% ", results).groups()
    assert "Their upper ends are {}, {} and {} points".format(*bounds) in found
    assert "gains of more than {}, {} and {} points".format(*bounds) in readme
    bounds = re.search(r"itself: \+(\S+)% .*, \+(\S+)% .*, \+(\S+)% ", second).groups()
    assert "of more than {}, {} and {} on the second".format(*bounds) in readme
    for name in ("sftmix - ntp", "relative tenth left out - tenth left out"):
        rows = re.findall(rf"^{name}, noise \S+ +(\S+)% ± (\S+)% +\S+ +(\S+)$", results, flags=re.M)
        cells = " | ".join(f"{mean} ± {half} | {p}" for mean, half, p in rows)
        assert len(rows) == 3
        told = f"{name.replace('sftmix', 'SFTMix').replace('ntp', 'NTP')} | {cells} |"
        assert told in readme.replace("**", "") and told in found.replace("**", "")
        rows = re.findall(rf"^{name}, noise \S+ +(\S+)% ± (\S+)% +\S+ +(\d\S+)$", second, flags=re.M)
        cells = " | ".join(f"{mean} ± {half} | {p}" for mean, half, p in rows)
        assert len(rows) == 3 and f" | {cells} |" in found.replace("**", "")
    [ours] = re.findall(r"^relative tenth left out - ntp +(.*)$", results, flags=re.M)[:1]
    assert re.findall(r"(\S+)% ± (\S+)%", ours) == [("-2.2", "1.2"), ("+2.8", "1.1"), ("+3.0", "0.7")]  # as QUOTED has them
    wrong = {name: re.findall(r"(\S+)% ±", row)[1] for name, row in re.findall(
        r"^(tenth left out|relative tenth left out) +(\S+% ± .*)$", results.partition("Wrong answers among")[2], flags=re.M)}
    assert f"{float(wrong['tenth left out']):.0f} % are wrong" in text
    assert f"{float(wrong['relative tenth left out']):.0f} % are wrong" in text
    for name, before in (("neftune - ntp", "(not tested): "), ("sftmix - mu = 0", "(μ = 0) is "),
                         ("random tenth left out - ntp", "random "), ("highest loss left out - ntp", "highest loss ")):
        [row] = re.findall(rf"^{name} +(.*)$", results.partition("Test loss, difference")[0], flags=re.M)
        told = [f"{mean} ± {half}" for mean, half in re.findall(r"(\S+)% ± (\S+)%", row)]
        assert before + ", ".join(told) in text or f"{before}{told[0]}, {told[1]} and {told[2]}" in text


def test_delifts_pages_quote_its_results():
    results = (ROOT / "ch_delift/lab/RESULTS.md").read_text(encoding="utf-8")
    pages = [(ROOT / "ch_delift" / page).read_text(encoding="utf-8") for page in ("README.md", "lab/findings.md")]
    text = " ".join(" ".join(pages).split())
    tested = results.partition("p after Holm")[2].partition("Weighted as the pool")[0]
    for minus in ("DELIFT-ρ - DELIFT", "DELIFT-ρ - SE", "DELIFT - SE"):
        cells = re.findall(rf": {minus} +(\S+)% ± (\S+)% +(\S+) +(\S+)$", tested, flags=re.M)
        told = " | ".join(f"{mean} ± {half} | {p} | {after}" for mean, half, p, after in cells)
        assert len(cells) == 2 and f"| {minus} | {told} |" in text
    second = results.partition("## Primary comparisons on a second base")[2].partition("Weighted as the pool")[0]
    for minus in ("DELIFT-ρ - DELIFT", "DELIFT-ρ - SE", "DELIFT - SE"):
        cells = re.findall(rf": {minus} +(\S+)% ± (\S+)% +(\S+) +(\S+)$", second, flags=re.M)
        told = " | ".join(f"{mean} ± {half} | {p} | {after}" for mean, half, p, after in cells)
        assert len(cells) == 2 and f"| {minus} | {told} |" in text.replace("**", "")
    for condition in ("Skewed", "Redundant"):
        here = results.partition(f"## {condition} data")[2].partition("## ")[0]
        arms = dict(re.findall(r"^(\S+) +16 of 16 +(\S+)% ±", here, flags=re.M))
        assert all(arms[arm] in text for arm in ("random", "DELIFT", "DELIFT-ρ", "SE", "oracle"))
        by_arm = {row.split("  ")[0]: re.findall(r"([+-]\S+)% ± (\S+)%", row) for row in here.splitlines() if " of 16 " in row}
        for arm, minus in (("DELIFT", 0), ("DELIFT-ρ", 0), ("SE", 0), ("SE-ρ", 1), ("SE-ρ", 3), ("oracle", 2), ("full", 1)):
            assert "{} ± {}".format(*by_arm[arm][minus]).lstrip("+") in text, (condition, arm, minus)
    target = results.partition("## Target data")[2].partition("## ")[0]
    reached = re.findall(r"^(random|SE|DELIFT|RDS\+|full|LESS) +16 of 16 +(\S+)% ± (\S+)%", target, flags=re.M)
    assert len(reached) == 6 and all(f"| {mean} ± {half} % |" in text for _, mean, half in reached)


@pytest.mark.parametrize("chapter", [real_delift, real_sftmix])
def test_results_on_real_language_are_those_of_the_journal_beside_them(chapter):
    folder = Path(chapter.__file__).parent
    journal = [json.loads(line) for line in (folder / "real_language.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (folder / "real_results.md").read_text(encoding="utf-8") == chapter.page(journal)
