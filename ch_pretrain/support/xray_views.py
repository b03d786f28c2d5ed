"""The X-ray's views of chapter 1: a sentence as it flows, every head, the next token; two models; growing."""

from html import escape
from pathlib import Path

import torch
from torch import Tensor

from ch_pretrain.inside import Lens, attention_weights, head_effects, logit_lens, logits_of, token_losses, where_heads_look
from ch_pretrain.lab.growing import FIVE, snapshots_of, spoken
from ch_pretrain.lab.look_back import LOOKS_FILE, read_looks
from ch_pretrain.support.xray_parts import Form, Opened, View, Xray, cell, finite, picture, slider, table, visible
from common.fast.beginnings import repeated
from common.fast.cache import KVCache
from common.fast.views import run
from common.gpt2 import GPT2
from common.pretrained import load_pretrained
from common.sampling import Sampling, keep_likely, next_tokens
from common.support.files import InputError
from common.support.verify import layer_differences, likely_cause

BARS, WORDS, SAMPLES = 8, 6, 10  # likeliest tokens that are shown, words that are added, samples
MOST_HEADS = 40  # up to so many, a saved page holds each head's map and each head switched off


def type_sentence(xray: Xray, form: Form) -> str:
    """Where the sentence is typed."""
    return (f'<label class="wide">Sentence <textarea name="sentence" rows="2">{escape(form["sentence"])}</textarea></label>'
            f'<label><input type="checkbox" name="start"{" checked" * (form["start"] == "on")}>end-of-text first</label>'
            '<label><input type="checkbox" id="ids">ids</label>')


def sampling(xray: Xray, form: Form) -> str:
    """How the text goes on."""
    return (slider("temperature", "Temperature", 2, 0.1, form) + slider("top_k", "Top-k (0: all)", 40, 1, form)
            + slider("seed", "Samples drawn anew", 20, 1, form))


def loss_text(logits: Tensor, ids: Tensor) -> str:
    """The loss in words; apart for both copies of a text that is written twice. logits float [T, V], ids int64 [T]."""
    losses, L = token_losses(finite(logits), ids), len(ids) // 2
    if L > 1 and torch.equal(ids[-2 * L:-L], ids[-L:]):  # perhaps with end-of-text before it
        return f"first copy <b>{losses[:-L].mean():.2f}</b>, second copy <b>{losses[-L:].mean():.2f}</b>"
    return f"<b>{losses.mean():.2f}</b>" if len(losses) else "none, as there is one token only"


def stream(opened: Opened, ids: Tensor, lens: Lens, place: int | None = None, other: Lens | None = None) -> str:
    """The stream as a grid, layers by positions, a tick at `place`. What another model says is added where it differs."""
    words, layers, rows = opened.words(ids), len(lens.p) - 1, []
    ticks = [f'<input type="radio" name="at" value="{t if t < len(ids) - 1 else "last"}" aria-label="position {t}"'
             f'{" checked" * (t == place)}>' if place is not None else "" for t in range(len(ids))]
    for layer, (p, tokens) in enumerate(zip(lens.p, lens.tokens)):
        cells = [f"after layer {layer - 1}{' = prediction' * (layer == layers)}" if layer else "embeddings"]
        for t, said in enumerate(map(opened.words, tokens)):
            theirs = opened.words(other.tokens[layer, t, :1])[0] if other and other.tokens[layer, t, 0] != tokens[t, 0] else ""
            note = ", ".join(f"{word} {share:.0%}" for word, share in zip(said, p[t].tolist()))
            cells.append(cell(said[0] + f"<ins>≠ {theirs}</ins>" * bool(theirs), p[t, 0].item(), note, "marked" * bool(theirs)))
        rows.append(cells)
    rows.append(["comes next", *words[1:], ""])
    rows.append(["loss of that", *(f"{loss:.2f}" for loss in token_losses(finite(lens.logits), ids).tolist()), ""])
    heads = [f'<label>{tick}{word}<small class="id">{i}</small></label>' for tick, word, i in zip(ticks, words, ids.tolist())]
    return table("What each position would say next if the head were put on here (more colour: more probable)",
                 ["", *heads], rows, "grid")


def head_maps(opened: Opened, ids: Tensor, form: Form, off: list[tuple[int, int]]) -> str:
    """A small map of each head with its switch, and one of them large."""
    weights, words, parts = attention_weights(opened.model, ids), opened.words(ids), []  # [layers, H, T, T]
    looks, sizes = where_heads_look(weights, ids), opened.model.config
    heads = [(layer, head) for layer in range(sizes.n_layer) for head in range(sizes.n_head)]
    large = next((one for one in heads if "{}-{}".format(*one) == form["head"]), heads[0])
    for one in heads:
        kind, (layer, head) = max(looks, key=lambda kind: looks[kind][one].item()), one
        name, what = f"layer {layer}, head {head}", f"{kind} <b>{looks[kind][one]:.0%}</b>"
        image = f'<img alt="{name}" src="{picture(weights[one])}">'
        parts.append(
            f'<figure><label><input type="radio" name="head" value="{layer}-{head}"{" checked" * (one == large)}>{image}'
            f'</label><figcaption>{layer}.{head} {what}</figcaption><label><input type="checkbox" name="off-{layer}-{head}" '
            f'aria-label="switch {name} off"{" checked" * (one in off)}>off</label></figure>')
    rows: list[list[str]] = []
    for word, shares in zip(words, weights[large].tril().tolist()):
        cells = [cell(f"{100 * p:.0f}", p, f"{word} gives {p:.1%} to {key}" * (p >= 0.005)) for key, p in zip(words, shares)]
        rows.append([word, *cells[:len(rows) + 1]])
    return (f'<div class="heads" style="--heads:{sizes.n_head}">{"".join(parts)}</div>' + table(
        f"Layer {large[0]}, head {large[1]}: how much of its attention, in %, each token (left) gives to each before it (top)",
        ["", *words], rows, "grid map"))


def ranking(opened: Opened, ids: Tensor, token: int) -> str:
    """Which heads matter for this token."""
    effects = head_effects(opened.model, ids, opened.means, token)  # [layers, H]
    best = [divmod(i, effects.size(1)) for i in effects.flatten().topk(min(8, effects.numel())).indices.tolist()]
    return table(f"Who matters for {opened.words([token])[0]}: by how many points its probability falls without one head",
                 ["off alone", "points"], [[f"layer {one[0]}, head {one[1]}", f"{100 * effects[one]:+.1f}"] for one in best])


def go_on(opened: Opened, prompt: list[int], temperature: float, top_k: int | None, seed: int) -> list[list[int]]:
    """The likeliest continuation and SAMPLES others, of WORDS tokens at most, in one batch."""
    model, generator, eot = opened.model, torch.Generator().manual_seed(seed), opened.tokenizer.eot_id
    ids, step, cache = torch.tensor([prompt] * (1 + SAMPLES)), torch.tensor([prompt]), KVCache(len(prompt))
    for n in range(min(WORDS, model.config.n_positions - len(prompt))):
        if isinstance(model, GPT2):
            logits = model.logits(run(model, step, cache)[:, -1])  # [1, V]: the prompt is read once; then [1 + SAMPLES, V]
        else:
            logits = logits_of(model, ids if n else step)[:, -1]  # a reader's own class may have no cache of our kind
        if n == 0:
            logits, cache = logits.expand(len(ids), -1), repeated(cache, len(ids), len(prompt) + WORDS)
        step = next_tokens(logits, Sampling(temperature, top_k), (), generator)[:, None]
        step[0] = logits[0].argmax()
        ids = torch.cat([ids, step], dim=1)
    return [new[:new.index(eot)] if eot in new else new for new in ids[:, len(prompt):].tolist()]


def next_token(opened: Opened, ids: Tensor, logits: Tensor, form: Form) -> str:
    """Bars of the next token, the likeliest continuation word by word, and samples. ids int64 [T], logits float [V]."""
    temperature = form.number("temperature", 0.1, 2)
    k, seed, prompt = int(form.number("top_k", 0, 1000)) or None, int(form.number("seed", 0, 1000)), ids.tolist()
    p = keep_likely(logits[None] / temperature, k, 1.0)[0].softmax(dim=-1)
    top = p.topk(BARS)
    shares = [*top.values.tolist(), max(0.0, 1 - top.values.sum().item())]
    rows = [[word, f'<td class="bar"><i style="--p:{100 * share:.1f}"></i>{share:.1%}'] for word, share in zip(
        [*opened.words(top.indices), f"all {len(p) - BARS:,} others"], shares)]
    (new, *others), said = go_on(opened, prompt, temperature, k, seed), []
    lens = logit_lens(opened.model, torch.tensor(prompt + new)[:opened.model.config.n_positions])
    for word, tokens, found in zip(opened.words(new), lens.tokens[-1, len(prompt) - 1:], lens.p[-1, len(prompt) - 1:]):
        instead = "".join(f"<li>{other} {share:.1%}</li>" for other, share in zip(opened.words(tokens), found.tolist()))
        said.append(f"<details><summary>{word}</summary><ol>{instead}</ol></details>")
    samples = [f"<li>{escape(opened.tokenizer.decode(one)) or '(it ends)'}</li>" for one in others]
    return (table(f"What comes after {opened.words(prompt[-1:])[0]}", ["next token", "probability"], rows)
            + f'<h3>The likeliest continuation: open a word</h3><div class="said">{"".join(said) or "It ends here."}</div><h3>'
            f'{SAMPLES} samples</h3><ol class="samples">{"".join(samples)}</ol>')


def sentence_view(xray: Xray, form: Form) -> str:
    """A sentence as it flows, every head, the next token."""
    opened, ids, ranked, lost = xray.main, xray.main.sentence(form), "", ""
    sizes = opened.model.config
    off = [(layer, head) for layer in range(sizes.n_layer) for head in range(sizes.n_head) if form[f"off-{layer}-{head}"]]
    place = min(int(form.number("at", 0, 1e9)), len(ids) - 1) if form["at"].isdecimal() else len(ids) - 1
    with opened.without(off):
        lens = logit_lens(opened.model, ids)
        flow, maps = stream(opened, ids, lens, place), head_maps(opened, ids, form, off)
        after = next_token(opened, ids[:place + 1], lens.logits[place], form)
    with opened.without():
        if off:
            lost = f" with {len(off)} off; with all heads {loss_text(logit_lens(opened.model, ids, 1).logits, ids)}"
        if form["rank"]:
            ranked = ranking(opened, ids[:place + 1], int(lens.tokens[-1, place, 0]))
    return ('<h2>The sentence as it flows</h2>'
            f'<p id="loss">Loss per token, in nats: {loss_text(lens.logits, ids)}{lost}.</p>{flow}<div class="columns">'
            f'<section><h2>The next token</h2>{after}</section><section><h2>Every head</h2><p class="soft">'
            "Each row of a map is a token that looks, each column one that is looked at. A head that is off gives its mean on "
            'eight pages that no training saw.</p><button name="rank" value="1">Who matters for this token?</button>'
            f"{ranked}{maps}</section></div>")


def sentence_saved(xray: Xray) -> list[dict[str, str]]:
    """Each head enlarged, each head off."""
    sizes = xray.main.model.config
    heads = [f"{layer}-{head}" for layer in range(sizes.n_layer) for head in range(sizes.n_head)] if (
        sizes.n_layer * sizes.n_head <= MOST_HEADS) else []
    return [change for head in heads for change in ({"head": head}, {"head": head, f"off-{head}": "on"}, {f"off-{head}": "on"})]


def two_view(xray: Xray, form: Form) -> str:
    """Two models side by side."""
    one, two = xray.main, xray.other
    if two is None:
        raise InputError("There is one model only; open a second one beside it: python ch_pretrain/xray.py --other M")
    ids, theirs = one.sentence(form), two.sentence(form)
    with one.without(), two.without():
        lens, other = logit_lens(one.model, ids), logit_lens(two.model, theirs)
        intro = (f"<h2>Two models</h2><p>First <b>{escape(one.name)}</b>, loss {loss_text(lens.logits, ids)}; after ≠ "
                 f"<b>{escape(two.name)}</b>, loss {loss_text(other.logits, theirs)}.</p>")
        if not one.tokenizer.same_as(two.tokenizer) or one.model.config != two.model.config:
            return f"{intro}<p>They are not built alike.</p>{stream(one, ids, lens)}{stream(two, theirs, other)}"
        rows = layer_differences(one.model, two.model, ids[None])
    alike = [t for t, (mine, its) in enumerate(zip(lens.tokens[:, -1, 0], other.tokens[:, -1, 0])) if mine == its]
    where = ("both say the same" if len(lens.p) - 1 in alike else
             f"they part in layer {max(alike)}" if alike else "no layer says the same")
    first = next((name for name, _, agrees in rows if not agrees), "")
    found = f"The streams differ first in <b>{first}</b>." if first else "Both compute the same."
    cause = f" Likely cause: {escape(likely_cause(first))}." if first and xray.own_code else ""
    return (f'{intro}<p id="first">After the last token {where}. {found}{cause}</p>{stream(one, ids, lens, None, other)}'
            + table("The largest difference in the stream, as verify.py measures it", ["", "difference", "the same"], [
                [name, f"{difference:.1e}", "yes" if agrees else "<b>no</b>"] for name, difference, agrees in rows]))


def curve(looks: list[dict], tokens: int | None) -> str:
    """When looking back begins, as a picture and a table; a line marks where so many tokens had been read."""
    names = {"first_copy": "loss, first copy", "second_copy": "loss, second copy", "induction": "best induction score"}
    scale = {name: max(look["first_copy"] for look in looks) or 1 for name in names} | {"induction": 1}
    x = [20 + 560 * look["tokens"] / (looks[-1]["tokens"] or 1) for look in looks]
    lines = "".join(f'<polyline class="{name}" points="' + " ".join(
        f"{at:.0f},{170 - 150 * look[name] / scale[name]:.0f}" for at, look in zip(x, looks)) + '"/>' for name in names)
    mark = "" if tokens is None else f'<path class="now" d="M{20 + 560 * tokens / (looks[-1]["tokens"] or 1):.0f} 10V170"/>'
    begins = next((look["tokens"] for look in looks if look["second_copy"] < look["first_copy"] / 2), None)
    text = (f"At {begins / 1e6:.1f} million tokens the second copy of a list costs less than half of the first: it looks back."
            if begins else "The second copy of a list never costs less than half of the first: it does not look back.")
    keys = "".join(f"<span class={name}>{label}</span>" for name, label in names.items())
    return (f'<p id="begins">{text}</p><svg viewBox="0 0 600 190" role="img" aria-label="{text}"><path d="M20 10V170H590"/>'
            f'{lines}{mark}<text x="590" y="186" text-anchor="end">{looks[-1]["tokens"] / 1e6:.1f} million tokens</text></svg>'
            f'<p class="key">{keys}</p><details><summary>As a table</summary>'
            + table("Losses in nats per token", ["million tokens", *names.values()], [
                [f"{look['tokens'] / 1e6:.2f}", *(f"{look[name]:.2f}" for name in names)] for look in looks]) + "</details>")


def choose_moment(xray: Xray, form: Form) -> str:
    """The slider over snapshots, and the sentences of a recording."""
    count = len(snapshots_of(xray.run)) if xray.run else len(xray.recording or [])
    five = "".join(f'<option value="{i}"{" selected" * (str(i) == form["five"])}>{escape(one)}' for i, one in enumerate(FIVE))
    return (slider("moment", "Snapshot", count - 1, 1, form) if count else "") + (
        f'<label>One of five sentences <select name="five">{five}</select></label>' if xray.recording and not xray.run else "")


def growing_view(xray: Xray, form: Form) -> str:
    """The same sentence at each snapshot of a training."""
    looks: list[dict] = read_looks(Path(__file__).parents[1] / LOOKS_FILE)
    name, said, tokens = "the shipped base's own training", [], None
    if xray.run:
        snapshots, name = snapshots_of(xray.run), str(xray.run)
        chosen = snapshots[int(form.number("moment", 0, len(snapshots) - 1))]
        if chosen not in xray.main.kept:
            xray.main.kept[chosen] = Opened(chosen.name, *load_pretrained(chosen))
        opened = xray.main.kept[chosen]
        said, tokens = spoken(opened.model, opened.tokenizer, opened.sentence(form).tolist()), int(chosen.name)
        looks = read_looks(xray.run / LOOKS_FILE) if (xray.run / LOOKS_FILE).exists() else []
    elif xray.recording:
        looks = xray.recording
        now = looks[int(form.number("moment", 0, len(looks) - 1))]
        said, tokens = now["sentences"][int(form.number("five", 0, len(FIVE) - 1))], now["tokens"]
    rows = [[visible(word), "" if loss is None else f"{loss:.2f}", cell(f"{visible(after)} {p:.0%}", p)]
            for word, loss, after, p in said]
    below = ("<p>To see a sentence grow, keep snapshots: <code>python ch_pretrain/train.py --snapshots 20</code>, then "
             "<code>python ch_pretrain/xray.py --run FOLDER</code>.</p>" if tokens is None else
             table(f"After {tokens / 1e6:.2f} million tokens", ["token", "its loss", "what it says next"], rows))
    return f"<h2>Growing: {escape(name)}</h2>{curve(looks, tokens) if looks else ''}{below}"


def growing_saved(xray: Xray) -> list[dict[str, str]]:
    """Each snapshot, and of a recording each of the five sentences."""
    if xray.run:
        return [{"moment": str(i)} for i in range(len(snapshots_of(xray.run)))]
    return [{"moment": str(i), "five": str(five)} for i in range(len(xray.recording or [])) for five in range(len(FIVE))]


TYPED = {"sentence": FIVE[0], "start": "", "at": "last", "head": "0-0", "temperature": "1", "top_k": "0", "seed": "0"}
VIEWS = [View("sentence", 1, "A sentence", (type_sentence, sampling), TYPED, sentence_view, sentence_saved),
         View("two", 1, "Two models", (type_sentence,), {}, two_view, lambda xray: []),
         View("growing", 1, "Growing", (type_sentence, choose_moment), {"moment": "0", "five": "0"}, growing_view,
              growing_saved)]
