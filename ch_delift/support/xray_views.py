"""The X-ray's view of chapter 4: how much an example in front helps the model with a record."""

import random
from html import escape

import torch
from torch import Tensor

from ch_delift.utility import plain_utility, shown
from ch_instruct.encoding import Example, encode_record
from ch_instruct.prompts import one_line
from ch_instruct.support.xray_views import RECORDS, TWO_RECORDS, encode, read_record
from ch_pretrain.inside import logits_of, token_losses
from ch_pretrain.support.xray_parts import Form, View, Xray, cell, radio, table

SUGGESTED = 10  # half of them of its own family


def suggestions(record: dict[str, str]) -> list[dict[str, str]]:
    """Records of the classroom, the same ones for the same record: of its family, if it has one there, and of others."""
    family = next((r["family"] for r in RECORDS if r["instruction"] == record["instruction"]), None)
    others = [r for r in RECORDS if r["split"] == "train" and r["instruction"] != record["instruction"]]
    random.Random(record["instruction"]).shuffle(others)
    own = [r for r in others if r["family"] == family][:SUGGESTED // 2]
    return own + [r for r in others if r["family"] != family][:SUGGESTED - len(own)]


def probabilities(xray: Xray, target: Example, front: list[int]) -> Tensor:
    """p_k of each response token with these ids in front: float [N]."""
    ids = torch.tensor(front + target.ids)
    with xray.main.without():
        return token_losses(logits_of(xray.main.model, ids[None])[0], ids)[-target.response_tokens:].neg().exp()


def example_view(xray: Xray, form: Form) -> str:
    """Every p_k without and with the example, d(i), d(i | j), the utility; the utilities of all suggestions."""
    opened, record = xray.main, read_record(form, "a")
    target, key = encode(xray, form, record), ("utilities", form["style"], *record.values())
    if key not in opened.kept:
        encoded = [(one, encode_record(one, opened.tokenizer, form["style"])) for one in suggestions(record)]
        fitting = [pair for pair in encoded if len(pair[1].ids) + len(target.ids) <= opened.model.config.n_positions]
        with opened.without():
            found = plain_utility(opened.model, opened.tokenizer, [target], [example for _, example in fitting])[0].tolist()
        opened.kept[key] = [(one, utility) for (one, _), utility in zip(fitting, found)]
    tries = [("record B", "", ""), *((escape(one_line(one)), one["family"], cell(f"{utility:+.3f}", max(0.0, utility)))
                                     for one, utility in opened.kept[key])]
    pick = int(form.number("pick", 0, len(tries) - 1))
    example = opened.kept[key][pick - 1][0] if pick else read_record(form, "b")
    alone = probabilities(xray, target, [])
    behind = probabilities(xray, target, shown(encode(xray, form, example, len(target.ids)), opened.tokenizer))
    d, d_behind = ((1 - p).square().mean().sqrt().item() for p in (alone, behind))
    rows = [[word, cell(f"{a:.1%}", a), cell(f"{b:.1%}", b)] for word, a, b in zip(
        opened.words(target.ids[target.prompt_length:]), alone.tolist(), behind.tolist())]
    return (f'<h2>An example in front of A</h2><p id="loss">d(i) = {d:.3f}, d(i | j) = {d_behind:.3f}: utility '
            f"<b>{d - d_behind:+.3f}</b>. Above 0, the example helps.</p>"
            + table("Which example stands in front?", ["example j", "family", "utility"], [
                [radio("pick", f"{i}", i == pick, text), *others] for i, (text, *others) in enumerate(tries)])
            + table("p_k, the probability of each response token of A", ["token", "alone", "with the example"], rows))


VIEWS = [View("example", 4, "An example in front", TWO_RECORDS, example_view,
              lambda xray: [{"pick": f"{i}"} for i in range(SUGGESTED + 1)])]
