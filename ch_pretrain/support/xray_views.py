"""The X-ray's views of chapter 1: a sentence as it flows, every head, the next token; two models; growing."""

from collections.abc import Sequence
from html import escape
from typing import Any

import torch
from torch import Tensor

from ch_pretrain.inside import Lens, attention_weights, head_effects, logit_lens, logits_of, token_losses, where_heads_look
from ch_pretrain.lab.growing import FIVE, snapshots_of, spoken
from ch_pretrain.lab.look_back import LOOKS_FILE, read_looks
from ch_pretrain.support.xray_parts import Form, Opened, View, Xray, box, cell, choice, picture, radio, slider, table, tag, tick
from common.fast.beginnings import repeated
from common.fast.cache import KVCache
from common.fast.views import run
from common.gpt2 import GPT2
from common.pretrained import load_pretrained
from common.sampling import Sampling, keep_likely
from common.support.files import InputError
from common.support.verify import layer_differences, likely_cause
from common.tokenizer import visible

BARS, WORDS, SAMPLES = 8, 6, 10  # likeliest tokens that are shown, words that are added, samples
LINE = 10  # tokens that each of two models adds
MOST_HEADS = 40  # up to so many, a saved page holds each head's map and each head switched off
SENTENCE = box("sentence", "Sentence", FIVE[0]), tick("start", "end-of-text first"), tick("ids", "token ids")
NEXT = slider("temperature", "Temperature", 0.1, 2, 0.1, "1"), slider("top_k", "Top-k (0: all)", 0, 40, 1, "0")
RECORDED = choice("five", "Recorded sentence", {f"{i}": text for i, text in enumerate(FIVE)})


def read_sentence(opened: Opened, form: Form) -> tuple[Tensor, int]:
    """The ids of the sentence in the form, int64 [T], and its chosen position; if none is chosen, or it has fewer, the last."""
    text, most = form["sentence"].replace("\r\n", "\n"), opened.model.config.n_positions - 1
    pieces = form["pieces"].split("\0") if form["pieces"] else [text]  # of a question: texts and control tokens in turn
    ids = [opened.tokenizer.eot_id] * (form["start"] == "on") + opened.tokenizer.encode_pieces(pieces)
    if not 0 < len(ids) <= most:
        raise InputError(f"The sentence has {len(ids)} tokens; {opened.name} reads 1 to {most} and says what comes next. "
                         f"{'Shorten it.' if ids else 'Type something.'}")
    return torch.tensor(ids), min(len(ids) - 1, int(form.number("at", 0, 1e9) if form["at"].isdecimal() else 1e9))


def loss_text(logits: Tensor, ids: Tensor) -> str:
    """The loss in words; apart for both copies of a text that is written twice. logits float [T, V], ids int64 [T]."""
    losses, L = token_losses(logits, ids), len(ids) // 2
    if L > 1 and torch.equal(ids[-2 * L:-L], ids[-L:]):  # perhaps with end-of-text before it
        return f"first copy <b>{losses[:-L].mean():.2f}</b>, second copy <b>{losses[-L:].mean():.2f}</b>"
    return f"<b>{losses.mean():.2f}</b>" if len(losses) else "none, as there is one token only"


def stream(opened: Opened, ids: Tensor, lens: Lens, place: int | None = None, other: Lens | None = None) -> str:
    """The stream as a grid, layers by positions, a tick at `place`. What another model says is added where it differs."""
    words, layers, T, rows = opened.words(ids), len(lens.p) - 1, len(ids), []
    for layer, both in enumerate(zip(lens.tokens.tolist(), lens.p.tolist())):
        cells = [f"after layer {layer - 1}{' = prediction' * (layer == layers)}" if layer else "embeddings"]
        for t, (tokens, p) in enumerate(zip(*both)):
            said = opened.words(tokens)
            theirs = opened.word(other.tokens[layer, t, 0].item()) if other else said[0]
            differs, note = theirs != said[0], ", ".join(f"{word} {share:.0%}" for word, share in zip(said, p))
            cells.append(cell(said[0] + differs * f"<ins>≠ {theirs}</ins>", p[0], note, "marked" * differs))
        rows.append(cells)
    rows.append(["comes next", *words[1:], ""])
    rows.append(["loss of that", *(f"{loss:.2f}" for loss in token_losses(lens.logits, ids).tolist()), ""])
    labels = [word + tag("small", f"{i}", class_="id") for word, i in zip(words, ids.tolist())]
    if place is not None:
        labels = [radio("at", f"{t}" if t < T - 1 else "last", t == place, label) for t, label in enumerate(labels)]
    return table("The residual stream is the list of numbers at each position to which every layer adds. A row shows what the "
                 "model would say next if it stopped here (more colour: more probable). ␣ is a space, ↵ a line break.",
                 ["", *labels], rows, "grid")


def head_maps(opened: Opened, ids: Tensor, form: Form, off: list[tuple[int, int]]) -> tuple[str, dict[tuple[int, int], str]]:
    """A small map of each head with its switch, and one of them large; and in words where each head looks."""
    weights, words, maps, spoken = attention_weights(opened.model, ids), opened.words(ids), "", {}  # [layers, H, T, T]
    looks, large = where_heads_look(weights, ids), opened.heads.get(form["head"], (0, 0))
    for name, one in opened.heads.items():
        kind = max(looks, key=lambda kind: looks[kind][one].item())
        habit = "off" if one in off else f"{kind}, {looks[kind][one]:.0%}"
        spoken[one] = "layer {}, head {}: {}".format(*one, habit)
        image = tag("img", alt=spoken[one], src=picture(weights[one]))
        switch = tag("input", type="checkbox", name=f"off-{name}", checked=one in off, aria_label=f"switch head {name} off")
        maps += tag("figure", radio("head", name, one == large, image) + tag("figcaption", f"{name} {habit}") + tag(
            "label", switch + "off"))
    rows = [[word, *(cell(f"{100 * p:.0f}", p, f"{word} gives {p:.1%} to {key}" * (p >= 0.005))
                     for p, key in zip(weights[large][t, :t + 1].tolist(), words))] for t, word in enumerate(words)]
    style = f"--heads:{opened.model.config.n_head}"
    return tag("div", maps, class_="heads", role="group", aria_label="Heads", style=style) + table(
        "Layer {}, head {}: how much of its attention, in %, each token (left) gives to each before it (top)".format(*large),
        ["", *words], rows, "grid map"), spoken


def go_on(opened: Opened, prompt: list[int], how: Sampling, seed: int = 0, samples: int = SAMPLES,
          words: int = WORDS) -> tuple[list[list[int]], Tensor]:
    """The likeliest continuation and `samples` others, of `words` tokens at most; the first one's logits [words, V]."""
    model, generator, eot = opened.model, torch.Generator().manual_seed(seed), opened.tokenizer.eot_id
    ids, step, cache, first = torch.tensor([prompt] * (1 + samples)), torch.tensor([prompt]), KVCache(len(prompt)), []
    for n in range(min(words, model.config.n_positions - len(prompt))):
        if isinstance(model, GPT2):
            logits = model.logits(run(model, step, cache)[:, -1])  # [1, V]: the prompt is read once; then [1 + samples, V]
        else:
            logits = logits_of(model, ids if n else step)[:, -1]  # a reader's own class may have no cache of our kind
        if n == 0:
            logits, cache = logits.expand(len(ids), -1), repeated(cache, len(ids), len(prompt) + words)
        first.append(logits[0])
        below = keep_likely(logits / how.temperature, how.top_k, 1.0).softmax(dim=1).cumsum(dim=1)  # multinomial is far slower
        step = (below < torch.rand(len(ids), 1, generator=generator)).sum(dim=1, keepdim=True).clamp(max=logits.size(1) - 1)
        step[0] = logits[0].argmax()
        ids = torch.cat([ids, step], dim=1)
    texts = [new[:new.index(eot)] if eot in new else new for new in ids[:, len(prompt):].tolist()]
    return texts, torch.stack(first)


def next_token(opened: Opened, ids: Tensor, logits: Tensor, form: Form) -> str:
    """Bars of the next token, the likeliest continuation word by word, and samples. ids int64 [T], logits float [V]."""
    how = Sampling(form.number("temperature", 0.1, 2), int(form.number("top_k", 0, 1000)) or None)
    p = keep_likely(logits[None] / how.temperature, how.top_k, 1.0)[0].softmax(dim=-1)
    top, tokens = p.topk(BARS)
    prompt, said, rest = ids.tolist(), "", (f"all {len(p) - BARS:,} others", 1 - float(top.sum()))
    bars = [*zip(opened.words(tokens), top.tolist()), rest]
    rows = [[word, tag("td", f'<i style="--p:{100 * share:.1f}"></i>{abs(share):.1%}', class_="bar")] for word, share in bars]
    seed = int(form.number("seed", 0, 1e6)) + (form["again"] == "on")
    (new, *others), first = go_on(opened, prompt, how, seed)
    for word, shares, tokens in zip(opened.words(new), *first.softmax(dim=-1).topk(5)):
        instead = "".join(tag("li", f"{other} {share:.1%}") for other, share in zip(opened.words(tokens), shares.tolist()))
        said += tag("details", tag("summary", word) + tag("ol", instead))
    samples = "".join(tag("li", escape(opened.tokenizer.decode(one)) or "(it ends)") for one in others)
    return (table(f"What comes after {opened.words(prompt[-1:])[0]}", ["next token", "probability"], rows)
            + tag("h3", "The likeliest continuation: open a word") + tag("div", said or "It ends here.", class_="said")
            + tag("h3", f"{SAMPLES} samples") + tag("ol", samples, class_="samples")
            + tag("input", type="hidden", name="seed", value=f"{seed}") + tag("button", "Draw again", name="again", value="on"))


def sentence_view(xray: Xray, form: Form) -> str:
    """A sentence as it flows, every head, the next token."""
    opened, lost, ranked, (ids, place) = xray.main, "", "", read_sentence(xray.main, form)
    off = [one for name, one in opened.heads.items() if form[f"off-{name}"]]
    own = " Your own class's maps are made of its queries and keys, with the right mask." * xray.own_code
    with opened.without(off):
        lens = logit_lens(opened.model, ids)
        if opened.kept.get("shown", [None])[0] != (key := {**form, "rank": ""}):  # else only the ranking is new
            opened.kept["shown"] = [key, stream(opened, ids, lens, place), head_maps(opened, ids, form, off),
                                    next_token(opened, ids[:place + 1], lens.logits[place], form)]
        _, flow, (maps, spoken), after = opened.kept["shown"]
        token = int(lens.tokens[-1, place, 0])
        here, said, p = *opened.words([int(ids[place]), token]), lens.p[-1, place, 0]
        if form["rank"]:
            effects = head_effects(opened.model, ids[:place + 1], opened.means, token)  # [layers, H]
            best = sorted(spoken, key=lambda one: -effects[one].item())[:BARS]
            ranked = table(f"By how many points {said} changes if one more head is off; the {len(best)} of {len(spoken)} heads "
                           "where it falls most", ["head, and what gets most of its attention", "points"],
                           [[spoken[one], f"{100 * -effects[one]:+.1f}"] for one in best], "wrap")
    if off:
        with opened.without():
            lost = f" with {len(off)} off; with all heads {loss_text(logits_of(opened.model, ids[None])[0], ids)}"
    return f"""<p id="loss">After {here}: {said} {p:.0%}. Loss per token (minus the natural logarithm of its probability, in
nats): {loss_text(lens.logits, ids)}{lost}.</p>
{flow}<div class="columns"><section><h3>The next token</h3>{after}</section><section><h3>Every head</h3><p class="soft">2-0 is
layer 2, head 0; then comes what gets most of its attention, and the share of its attention. Each row of a map is a token that
looks, each column one that is looked at. Which head looks back? Write a list of words twice. A head that is off gives its mean
on eight pages that no training saw.{own}</p>
{tick("rank", f"Which heads make the prediction {said} after {here}?").draw(form["rank"])}{ranked}{maps}</section></div>"""


def two_view(xray: Xray, form: Form) -> str:
    """Two models side by side."""
    one, two, said, lines = xray.main, xray.other or xray.main, [], []
    (ids, place), (theirs, their_place) = read_sentence(one, form), read_sentence(two, form)
    built_alike = one.tokenizer.same_as(two.tokenizer) and one.model.config == two.model.config
    with one.without(), two.without():
        rows = layer_differences(one.model, two.model, ids[None]) if built_alike else []
        first = next((name for name, _, agrees in rows if not agrees), "")
        found = f"The streams differ first in {first}." if first else "Both compute the same."
        found += f" Likely cause: {likely_cause(first)}." if first and xray.own_code else ""
        try:
            lens, other = logit_lens(one.model, ids), logit_lens(two.model, theirs)
        except InputError as error:  # NaN
            raise InputError(f"{error} {found}") from error
        for opened, read, at, seen, mark in (one, ids, place, lens, ""), (two, theirs, their_place, other, " (marked ≠)"):
            [line], _ = go_on(opened, read[:at + 1].tolist(), Sampling(1.0), 0, 0, LINE)
            said.append(f"{escape(opened.name)}{mark}: {opened.word(int(seen.tokens[-1, at, 0]))} {seen.p[-1, at, 0]:.0%}")
            text = escape(opened.tokenizer.decode(line).replace("\n", "↵")) or "(it ends)"
            lines.append([escape(opened.name), text, loss_text(seen.logits, read)])
    intro = f"After {one.word(int(ids[place]))}, {'; '.join(said)}."
    models = table("The likeliest continuation, and the loss per token in nats", ["model", "goes on", "loss"], lines, "wrap")
    if not built_alike:
        return f"<p>{intro} They are not built alike.</p>{models}{stream(one, ids, lens)}{stream(two, theirs, other)}"
    alike = (lens.tokens[:, place, 0] == other.tokens[:, place, 0]).nonzero()[:, 0].tolist()  # rows that say the same
    row = max(alike, default=-1) + 1
    where = ("Both have the same likeliest word" if row == len(lens.p) else
             f"Their likeliest words there differ from {f'layer {row - 1}' if row else 'the embeddings'} on")
    return (f'<p id="first">{intro} {where}. {found}</p>{models}{stream(one, ids, lens, place, other)}'
            + table("The largest difference in the stream, as verify.py measures it", ["", "difference", "the same"], [
                [name, f"{difference:.1e}", "yes" if agrees else "<b>no</b>"] for name, difference, agrees in rows]))


def amount(tokens: float) -> str:
    """How many tokens, in words."""
    return f"{tokens / 1e6:.2f} million" if tokens >= 1e5 else f"{tokens / 1e3:.3g} thousand" if tokens else "0"


def curve(looks: Sequence[dict], tokens: int) -> str:
    """When looking back begins, as a picture and a table; a line marks where so many tokens had been read."""
    names = {"first_copy": "loss, first copy", "second_copy": "loss, second copy", "induction": "best induction score (right)"}
    end, top = looks[-1]["tokens"] or 1, max(look["first_copy"] for look in looks) or 1
    begins = next((look["tokens"] for look in looks if look["second_copy"] < look["first_copy"] / 2), None)
    text = ("There is one measurement only, so this cannot show when the model begins to look back." if len(looks) == 1 else
            "The second copy of a list never costs less than half of the first: it does not look back." if begins is None else
            f"At {begins / 1e6:.1f} million tokens the second copy of a list costs less than half of the first: it looks back.")

    def at(tokens: float, share: float) -> str:
        return f"{40 + 520 * tokens / end:.0f} {170 - 150 * share:.0f}"

    drawn = tag("path", class_="begins", d=f"M{at(begins, 0)}V10") if begins else ""
    for name in names:
        spots = [at(look["tokens"], look[name] / (1 if name == "induction" else top)) for look in looks]
        drawn += tag("polyline", class_=name, points=" ".join(spots)) + tag(
            "path", class_=f"{name} spots", d="".join(f"M{spot}h0" for spot in spots))
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = at(share * end, share).split()
        drawn += (f'<text x="{x}" y="188" text-anchor="middle">{amount(share * end)}</text>'
                  f'<text x="34" y="{y}" text-anchor="end">{share * top:.1f}</text><text x="568" y="{y}">{share:g}</text>')
    key = "".join(tag("span", label, class_=name) for name, label in names.items())
    return f"""<p id="begins">{text}</p><svg viewBox="0 0 610 194" role="img" aria-label="{text}">{drawn}
<path d="M40 10V170H560V10"/><path class="now" d="M{at(tokens, 0)}V10"/></svg><p class="key">{key}</p><p class="soft">Left:
loss in nats. Below: tokens read. The induction score is the share of attention that a head gives, in the second copy, to the
token that followed last time. A thin broken line marks where looking back begins.</p>""" + tag(
        "details", tag("summary", "As a table") + table("Losses in nats", ["tokens", *names.values()], [
            [amount(look["tokens"]), *(f"{look[name]:.2f}" for name in names)] for look in looks]))


def moments(xray: Xray) -> Sequence[Any]:
    """The moments of a training that can be shown: snapshots of a run, else a recording."""
    return snapshots_of(xray.run) if xray.run else xray.recording


def growing_view(xray: Xray, form: Form) -> str:
    """The same sentence at each snapshot of a training, or one of five sentences of the recorded training."""
    found = moments(xray)
    looks: Sequence[dict] = found
    number = int(form.number("moment", 1, len(found)))
    now = found[number - 1]
    if xray.run:
        if now not in xray.main.kept:
            xray.main.kept[now] = Opened(now.name, *load_pretrained(now))
        opened, tokens, name = xray.main.kept[now], int(now.name), escape(str(xray.run))
        said = spoken(opened.model, opened.tokenizer, read_sentence(opened, form)[0].tolist())
        looks = read_looks(xray.run / LOOKS_FILE) if (xray.run / LOOKS_FILE).exists() else []
    else:
        tokens, name = now["tokens"], "A second training by the command that made the shipped base"
        said = now["sentences"][int(form.number("five", 0, len(FIVE) - 1))]
    return f"""<p>{name}: snapshot {number} of {len(found)}, after {amount(tokens)} tokens.</p>
{curve(looks, tokens) if looks else ""}""" + table(
        f"After {amount(tokens)} tokens", ["token", "its loss in nats", "what it says next"], [
            [escape(visible(word)), "" if loss is None else f"{loss:.2f}", cell(f"{escape(visible(after))} {p:.0%}", p)]
            for word, loss, after, p in said])


ONE_ONLY = "There is one model only; open a second one beside it: python ch_pretrain/xray.py --other M"
TWO = View(1, "Two models", lambda xray: SENTENCE, two_view, lambda xray, form: [], lambda xray: ONE_ONLY * (not xray.other))
VIEWS = [
    View(1, "Sentence", lambda xray: SENTENCE + NEXT, sentence_view, lambda xray, form: [
        {"head": large} | off for head in xray.main.heads if len(xray.main.heads) <= MOST_HEADS for large, off in (
            (head, {}), (head, {f"off-{head}": "on"}), ("0-0", {f"off-{head}": "on"}))]),
    TWO,
    View(1, "Growing", lambda xray: (slider("moment", "Snapshot", 1, len(moments(xray)), 1, "1"), *(
        SENTENCE if xray.run else (RECORDED,))), growing_view, lambda xray, form: [
            {"moment": f"{number + 1}"} | one for number in range(len(moments(xray)))
            for one in ([{}] if xray.run else [{"five": f"{n}"} for n in range(len(FIVE))])])]
