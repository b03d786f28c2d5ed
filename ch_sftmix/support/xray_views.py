"""The X-ray's view of chapter 3: what a model says between two records."""

from html import escape

import torch

from ch_instruct.collate import collate
from ch_instruct.support.xray_views import NO_CODE, TWO_RECORDS, encode, read_record
from ch_pretrain.inside import finite
from ch_pretrain.support.xray_parts import Form, View, Xray, cell, slider, table
from ch_sftmix.mixup import mixup_loss, shared_positions


def between_view(xray: Xray, form: Form) -> str:
    """What the mixed state says at each shared position, beside the soft target."""
    opened, lam, rows = xray.main, form.number("lam", 0, 1), []
    inputs, targets = collate([encode(xray, form, read_record(form, name)) for name in "ab"], opened.tokenizer.eot_id)
    with opened.without():
        hidden = opened.model.hidden_states(inputs)  # [2, T, D]
        pair = hidden[:1], targets[:1], hidden[1:], targets[1:]
        z_a, y_a, z_b, y_b, _ = shared_positions(*pair)
        p = finite(opened.model.logits(lam * z_a + (1 - lam) * z_b)).softmax(dim=-1)  # [S, V]
        total, count = mixup_loss(opened.model, *pair, torch.tensor([lam]))
    for n, (a, b, best) in enumerate(zip(*map(opened.words, (y_a, y_b, p.argmax(dim=-1))))):
        both = float(a == b)  # where both want the same token, λ and 1 - λ add up
        parts = a, max(lam, both), p[n, y_a[n]].item(), b, max(1 - lam, both), p[n, y_b[n]].item(), best, p[n].max().item()
        rows.append([f"{n + 1}", *(part if isinstance(part, str) else cell(f"{part:.0%}", part) for part in parts)])
    return f"""<p id="loss">λ = {lam:g}: mixup loss of {escape(opened.name)} <b>{total / count:.3f}</b> nats at
each of {count} mixed positions.</p><p class="soft">Before the head, the last hidden states of A and B are mixed, λ to 1 − λ.
The soft target asks for A's token with the share λ and for B's with 1 − λ. The mixup loss adds −ln p of both by these shares
(in nats).</p>
{table("At each position of both responses: the soft target, and what the mixed state says",
       ["", "A's token", "target", "model", "B's token", "target", "model", "says", ""], rows)}"""


LAM = slider("lam", "λ (1: only A, 0: only B)", 0, 1, 0.1, "0.5")
VIEWS = [View(3, "Between two records", lambda xray: (LAM, *TWO_RECORDS), between_view,
              lambda xray, form: [{"lam": f"{step / 10:g}"} for step in range(11)], lambda xray: NO_CODE * xray.own_code)]
