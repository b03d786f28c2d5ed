"""The X-ray's view of chapter 4: how much an example in front helps the model with a record."""

import random
from html import escape

import torch
from torch import Tensor

from ch_delift.utility import plain_utility, shown
from ch_instruct.encoding import encode_record
from ch_instruct.prompts import one_line
from ch_instruct.support.xray_views import NO_CODE, RECORDS, TWO_RECORDS, encode, read_record
from ch_pretrain.inside import logits_of, token_losses
from ch_pretrain.support.xray_parts import Form, View, Xray, cell, radio, table

SUGGESTED = 10  # half of them of its own family


def suggestions(record: dict[str, str]) -> list[int]:
    """Numbers of the classroom's records, the same for the same record: of its family, if it has one there, and of others."""
    family = next((r["family"] for r in RECORDS if r["instruction"] == record["instruction"]), None)
    others = [i for i, r in enumerate(RECORDS) if r["split"] == "train" and r["instruction"] != record["instruction"]]
    random.Random(record["instruction"]).shuffle(others)
    own = [i for i in others if RECORDS[i]["family"] == family][:SUGGESTED // 2]
    return own + [i for i in others if RECORDS[i]["family"] != family][:SUGGESTED - len(own)]


def example_view(xray: Xray, form: Form) -> str:
    """Every p_k without and with the example, d(i), d(i | j), the utility; the utilities of all suggestions."""
    opened, a, b = xray.main, read_record(form, "a"), read_record(form, "b")
    target, records = encode(xray, form, a), {"b": b | {"family": "record B"}} | {f"{i}": RECORDS[i] for i in suggestions(a)}
    examples, room = {"b": encode(xray, form, b, len(target.ids))}, opened.model.config.n_positions - len(target.ids)
    for pick, record in records.items():
        example = encode_record(record, opened.tokenizer, form["style"])
        if len(example.ids) <= room and example.ids != examples["b"].ids:  # B stands there once
            examples[pick] = example

    def probabilities(front: list[int]) -> Tensor:  # of the answer's tokens, [N]
        ids = torch.tensor(front + target.ids)
        return token_losses(logits_of(opened.model, ids[None])[0], ids)[-target.response_tokens:].neg().exp()

    chosen = form["pick"] if form["pick"] in examples else "b"
    with opened.without():
        alone, behind = probabilities([]), probabilities(shown(examples[chosen], opened.tokenizer))
        if (key := ("utilities", form["style"], *a.values(), *b.values())) not in opened.kept:
            opened.kept[key] = plain_utility(opened.model, opened.tokenizer, [target], [*examples.values()])[0].tolist()
    d, d_behind = ((1 - p).square().mean().sqrt().item() for p in (alone, behind))
    tries = [[radio("pick", pick, pick == chosen, f"{utility:+.3f} {escape(one_line(records[pick]))}"), records[pick]["family"]]
             for utility, pick in sorted(zip(opened.kept[key], examples), reverse=True)]
    rows = [[word, cell(f"{p:.1%}", p), cell(f"{q:.1%}", q)] for word, p, q in zip(
        opened.words(target.ids[target.prompt_length:]), alone.tolist(), behind.tolist())]
    return f"""<p id="loss">Utility for {escape(opened.name)}: <b>{d - d_behind:+.3f}</b> = d(i) − d(i | j) = {d:.3f} −
{d_behind:.3f}. Above 0, the example helps.</p><p class="soft">The utility says how much closer the probabilities of A's answer
come to 1 with the example in front. d(i) is their distance from 1 without it, d(i | j) with it: the root of the mean of
(1 − p_k)², where p_k is the probability of the answer's k-th token.</p>
{table("Which example j stands in front? The most useful is first.", ["utility and example", "family"], tries, "wrap")}
{table("p_k of each token of A's answer", ["token", "alone", "with the example"], rows)}"""


VIEWS = [View(4, "Example in front", lambda xray: TWO_RECORDS, example_view, lambda xray, form: [
    {"pick": pick} for pick in ("b", *map(str, suggestions(read_record(form, "a"))))], lambda xray: NO_CODE * xray.own_code)]
