"""Notebook 01, run with small sizes: its outputs are there, and they say what the text claims."""

import re
from math import exp

import pytest

from ch_pretrain.lab.look_back import read_looks
from common.support.runs import ROOT
from notebooks.execute import find_notebooks, read_notebook
from tests.notebooks.small import pictures, printed, run_small

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def told() -> str:
    return printed(run_small("01"))


def test_every_idea_has_its_picture(told):
    assert pictures(run_small("01")) == 17


def test_more_merges_make_longer_tokens(told):
    lengths = [float(value) for value in re.findall(r"merges: (\S+) bytes per token", told)]
    assert len(lengths) == 5 and lengths[0] == 1.0 and lengths == sorted(lengths) and lengths[-1] > 3


def test_the_world_is_shown_before_the_first_riddle(told):
    assert told.index("Task: continent of") < told.index("bytes per token") and "Norway" in told


def test_each_part_of_the_model_is_that_of_the_project(told):
    assert float(re.search(r"yours and PyTorch's scaled_dot_product_attention differ by (\S+)", told)[1]) < 1e-5
    found = {part: float(number) for part, number in re.findall(
        r"^(.*): yours and common\.gpt2 differ by (\S+)$", told, flags=re.M)}
    assert list(found) == ["Embeddings", "Attention", "LayerNorm", "MLP", "Block", "The whole model, logits",
                           "Mean loss of 16 windows"]
    assert max(found.values()) < 1e-4
    assert told.count("the same: yes") == 2  # merges and windows
    assert "Your model: The capital of Norway is Oslo.\n" in told
    assert "class Attention(nn.Module):" in told and "view.attend(qkv, self)" in told  # shown from the source


def test_the_loss_is_cross_entropy(told):
    assert float(re.search(r"mean of -ln p and F\.cross_entropy differ by (\S+)\.\n", told)[1]) < 1e-5


def test_the_loss_of_a_text_is_the_mean_surprise_of_its_tokens(told):
    tokens = {token: float(loss) for token, loss in re.findall(r"^'(.*?)' +0\.\d{4} +(\S+)$", told, flags=re.M)}
    loss, perplexity = map(float, re.search(r"loss is (\S+) nats per token, its perplexity (\S+)\.\n", told).groups())
    assert sum(tokens.values()) / len(tokens) == pytest.approx(loss, abs=0.01)
    assert exp(loss) == pytest.approx(perplexity, rel=0.01)
    assert tokens[" capital"] + tokens[" Norway"] > 0.9 * sum(tokens.values())  # "nearly all of the surprise"


def test_a_step_can_be_too_long(told):
    start, lowest, end = map(float, re.search(
        r"From (\S+) nats the loss falls to (\S+) at .* and is (\S+) at 4.0", told).groups())
    assert lowest < end - 0.1 and lowest < start - 0.5


def test_a_head_looks_at_the_country(told):
    share, evenly = re.search(r"gives (\d+)% of its attention .* evenly spread it would be (\d+)%", told).groups()
    assert int(share) > 2 * int(evenly)


def test_the_loss_falls_from_blind_guessing(told):
    blind, start = map(float, re.search(r"blind guessing: .* = (\S+) nats; your new model: (\S+)", told).groups())
    assert abs(blind - start) < 0.2
    before, after = (float(re.search(rf"^{row}\s+\S+\s+(\S+)", told, flags=re.M)[1])
                     for row in ("your new model", r"after \d+ steps"))
    assert before == start and after < before - 0.5


def test_all_of_the_probability_is_in_the_bars(told):
    shares = [tuple(map(int, row)) for row in re.findall(r"(\d+)% for the likeliest, (\d+)% for all", told)]
    assert len(shares) == 3 and all(likeliest + rest <= 100 for likeliest, rest in shares)
    assert shares[0][0] > 90 and shares[2][1] > 80  # at 2, nearly all of it is in the other tokens


def test_truth_falls_and_variety_rises_with_the_temperature(told):
    rows = [tuple(map(int, row)) for row in re.findall(r"^\d\.\d +(\d+)% +(\d+)%", told, flags=re.M)]
    right, variety = zip(*rows)
    assert len(rows) == 7 and right[0] > 90 > 50 > right[-1] and variety[0] < variety[-1]


def test_the_second_copy_is_known_and_by_which_heads(told):
    first, second, share = map(float, re.search(
        r"loss per token (\S+) nats in the first copy, (\S+) in the second \((\d+)%\)", told).groups())
    assert second < first / 2 and share == pytest.approx(100 * second / first, abs=1)
    whole, one, together, control = map(int, re.search(
        r"copy's loss is (\d+)% of the first's; without the strongest induction head (\d+)%, without all \d+\s"
        r"(\d+)%, without the other heads of their layers (\d+)%", told).groups())
    assert whole < one < together and control < together / 2  # "the other two do most of the work"
    without, place, lowest = map(int, re.search(
        r"puts (\d+)% of its attention on its token, instead of\s(\d+)%; without another head of that layer, (\d+)%",
        told).groups())
    assert without < lowest < place  # "the score falls most"


def test_looking_back_begins_at_some_tokens_and_never_without_such_pages(told):
    before, after = map(float, re.search(r"below half of the first's between (\S+) and (\S+) million tokens", told).groups())
    assert 0 < before < after
    shares = [int(share) for share in re.findall(r"million: (\d+)% of the first's, best induction score", told)]
    assert len(shares) == 3 and shares[1] < 50 < 80 < min(shares[0], shares[2])  # "at first nearly as hard"; the control
    plain = read_looks(ROOT / "ch_pretrain" / "looking_back_plain.csv")
    assert all(row["second_copy"] > 0.9 * row["first_copy"] and row["induction"] < 0.03 for row in plain)  # "it never comes"


def test_the_layers_agree_and_the_fault_is_named(told):
    pytest.importorskip("transformers", reason="transformers is not installed (requirements-dev.txt)")
    assert len(re.findall(r"\de[+-]\d+ +yes$", told, flags=re.M)) == 7
    assert "The first difference is in layer 1 attention.\nLikely cause: c_attn or c_proj is not transposed" in told


def test_the_text_says_what_the_stored_outputs_say():
    notebook = read_notebook(find_notebooks(["01"])[0])
    told = printed(notebook)
    text = " ".join(" ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown").split())
    losses = dict(re.findall(r"^'(.*?)' +0\.\d{4} +(\S+)$", told, flags=re.M))
    assert f'" Norway" costs {losses[" Norway"]} nats' in text and f'" capital" costs {losses[" capital"]} nats' in text
    rises, steps, held_out = re.search(
        r"training loss rose at (\d+) of (\d+) steps, the held-out loss (\d+) times", told).groups()
    assert f"It rose at {rises} of {steps} steps." in text and "their loss never rose" in text and held_out == "0"
    seen, unseen = re.search(r"After the last step: (\S+) on pages it was trained on, (\S+) on held-out pages", told).groups()
    assert f"{seen} on pages that the model was trained on, and {unseen} on held-out pages" in text
    assert "The two are about equal" in text and abs(float(seen) - float(unseen)) < 0.2
    seconds, way = re.search(r"Training took (\d+) s", told)[1], re.search(r"It went (\d+)% of the way", told)[1]
    start, full = (re.search(rf"^{row} +\S+ +(\S+)", told, flags=re.M)[1] for row in ("your new model", "classroom weights"))
    assert int(seconds) <= 190  # three minutes
    assert f"In {seconds} s on one processor core, the loss fell from {start} to {unseen}." in text
    assert f"That is {way} % of the way to the classroom model's {full}." in text
    free, = re.search(r"^(\d+) completions and as many free texts", told, flags=re.M).groups()
    assert f'the word "The" by five tokens, {free} times' in text and f"among these {free}" in text
    rows = {t: (right, variety) for t, right, variety in re.findall(r"^(\d\.\d) +(\d+)% +(\d+)%", told, flags=re.M)}
    assert f"Up to a temperature of 0.5, at least {rows['0.5'][0]} % of the capitals are right." in text
    assert int(rows["0.2"][0]) >= int(rows["0.5"][0]) >= 95 > int(rows["0.8"][0])
    assert f"At 0.5, the variety is {rows['0.5'][1]} %. At 1.0, {rows['1.0'][0]} % of the capitals" in text
    assert f"at 2.0 only {rows['2.0'][0]} %" in text
    first_copy = re.search(r"At the end-of-text: (\d+)% in the first copy", told)[1]
    assert f"In the first copy, the induction head gives {first_copy} % to the first token" in text
    whole, one, together = re.search(
        r"copy's loss is (\d+)% of the first's; .* head (\d+)%, without all 3\n(\d+)%", told).groups()
    assert f"loss is {whole} % of the first's. Without the strongest induction head it is {one} %," in text
    assert f"without all three {together} %." in text
    fed, score = re.search(r"head puts (\d+)% of its attention on its token, instead of\n(\d+)%", told).groups()
    assert f"falls most, from 0.{score} to 0.{fed}" in text
    last = re.search(r"^control: head 3 of layer 1 +\S+ +\S+ +(\d+)%", told, flags=re.M)[1]
    assert f"without it the second copy's loss also rises to {last} %" in text
    where = re.search(r"below half of the first's between (\S+) and (\S+) million tokens", told).groups()
    assert f"between {where[0]} and {where[1]} million tokens" in text
