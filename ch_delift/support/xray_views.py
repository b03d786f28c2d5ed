"""The X-ray's view of chapter 4: how much an example in front helps the model with a record."""

import random
from html import escape

from torch import Tensor

from ch_delift.utility import plain_utility, shown
from ch_instruct.collate import collate
from ch_instruct.encoding import Example, encode_record
from ch_instruct.prompts import one_line
from ch_instruct.support.xray_views import RECORDS, example_of, record_of, two_records
from ch_pretrain.support.xray_parts import Form, View, Xray, cell, choice, finite, table
from common.losses import IGNORE_INDEX

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
    inputs, targets = collate([target.behind(front)], xray.main.tokenizer.eot_id)
    with xray.main.without():
        p = finite(xray.main.model(inputs)).softmax(dim=-1)[0]  # [T, V]
    asked = targets[0] != IGNORE_INDEX
    return p[asked].gather(1, targets[0, asked][:, None])[:, 0]


def example_view(xray: Xray, form: Form) -> str:
    """Every p_k without and with the example, d(i), d(i | j), the utility; the utilities of all suggestions."""
    opened, record = xray.main, record_of(form, "a")
    target, key = example_of(xray, form, record), ("utilities", form["style"], *record.values())
    if key not in opened.kept:
        encoded = [(one, encode_record(one, opened.tokenizer, form["style"])) for one in suggestions(record)]
        fitting = [(one, example) for one, example in encoded
                   if len(example.ids) + len(target.ids) <= opened.model.config.n_positions]
        with opened.without():
            found = plain_utility(opened.model, opened.tokenizer, [target], [example for _, example in fitting])[0].tolist()
        opened.kept[key] = [one for one, _ in fitting], found
    some, utilities = opened.kept[key]
    pick = int(form.number("pick", 0, len(some)))
    front = shown(example_of(xray, form, [record_of(form, "b"), *some][pick], len(target.ids)), opened.tokenizer)
    alone, behind = probabilities(xray, target, []), probabilities(xray, target, front)
    d, d_behind = ((1 - p).square().mean().sqrt().item() for p in (alone, behind))
    rows = [[word, cell(f"{a:.1%}", a), cell(f"{b:.1%}", b)] for word, a, b in zip(
        opened.words(target.ids[target.prompt_length:]), alone.tolist(), behind.tolist())]
    tries = [("record B", "", ""), *((escape(one_line(one)), one["family"], f"{u:+.3f}") for one, u in zip(some, utilities))]
    return (f'<h2>An example in front of A</h2><p id="loss">d(i) = {d:.3f}, d(i | j) = {d_behind:.3f}: utility '
            f"<b>{d - d_behind:+.3f}</b>. Above 0, the example helps.</p>"
            + table("Which example stands in front?", ["example j", "family", "utility"], [
                [choice("pick", {str(i): text}, form), *others] for i, (text, *others) in enumerate(tries)])
            + table("p_k, the probability of each response token of A", ["token", "alone", "with the example"], rows))


VIEWS = [View("example", 4, "An example in front", (two_records,), {"pick": "0"}, example_view,
              lambda xray: [{"pick": str(i)} for i in range(SUGGESTED + 1)])]
