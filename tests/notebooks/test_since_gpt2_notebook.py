"""Notebook 05: a small run builds and trains all variants; the stored outputs are what the text says."""

import re

import pytest

from notebooks.execute import find_notebooks, read_notebook
from tests.notebooks.small import pictures, printed, run_small


@pytest.fixture(scope="module")
def stored():
    return read_notebook(find_notebooks(["05"])[0])


def differences(notebook) -> dict[str, tuple[float, float]]:
    """What is compared -> the mean difference of losses, and half of its interval."""
    return {name: (float(mean), float(half)) for name, mean, half in re.findall(
        r"^(.* minus .*): ([-+][\d.]+) ± ([\d.]+) nats", printed(notebook), flags=re.M)}


@pytest.mark.slow
def test_every_idea_has_its_picture(stored):
    small = run_small("05")
    assert pictures(small) == pictures(stored) == 5
    assert differences(small).keys() == differences(stored).keys() and len(differences(small)) == 6
    assert "NOTEBOOK_MODERN is not set, so no public model is loaded here.\n" in printed(small)


def test_each_part_is_that_of_the_project(stored):
    parts = re.findall(r"^(.*): yours and common\.llama differ by (\S+)$", printed(stored), flags=re.M)
    assert [name for name, _ in parts] == ["RMSNorm", "SwiGLU", "Turned queries", "Rotary attention with grouped heads",
                                           "Logits"]
    assert max(float(difference) for _, difference in parts) < 2e-4


def test_only_the_distance_counts(stored):
    rows = re.findall(r"q·k = (\S+) +query at .*: (\S+)$", printed(stored), flags=re.M)
    assert len(rows) == 3 and len(set(rows)) == 1 and rows[0][0] != rows[0][1]


def test_the_text_says_what_the_outputs_say(stored):
    told, found = printed(stored), differences(stored)
    text = " ".join(" ".join(cell.source for cell in stored.cells if cell.cell_type == "markdown").split())
    mean, half = found["rotary minus no biases"]
    assert "Only one change shows" in text
    assert [name for name, (m, h) in found.items() if abs(m) > h] == ["rotary minus no biases"]
    assert f"rotary positions lower the loss by {-mean:.3f} ± {half:.3f} nats, and in each of the three seeds" in text
    seeds = {name: [float(d) for d in row.split(", ")] for name, row in re.findall(
        r"^(.* minus .*): .*\(seed by seed: (.*)\)$", told, flags=re.M)}
    assert max(seeds["rotary minus no biases"]) < 0
    swiglu = seeds["SwiGLU minus GPT-2"]
    assert f"SwiGLU minus GPT-2 goes from {min(swiglu):+.2f} to {max(swiglu):+.2f}" in text
    for name, form in (("all four minus GPT-2", "all four together ({:+.3f} ± {:.3f})"),
                       ("grouped, G = 2 minus no biases", "price for it in the loss ({:+.3f} ± {:.3f})")):
        assert form.format(*found[name]) in text
    assert re.search(r"3 seeds, 153,600 tokens each", told) and "three seeds and 153,600 tokens" in text
    times = [float(x) for x in re.findall(r" ([\d.]+) x\s*$", told, flags=re.M)]
    assert f"a step takes {min(times):.2f} to {max(times):.2f} times as long" in text
    assert "(largest difference 9e-05)" in text and "Logits: yours and common.llama differ by 9e-05\n" in told
    assert "Your model: The capital of Norway is Oslo.\n" in told and "and it answers" in text
