"""The X-ray's views of chapter 1: a sentence as it flows, every head, the next token; two models; growing."""

from html import escape
from pathlib import Path

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
MOST_HEADS = 40  # up to so many, a saved page holds each head's map and each head switched off
CURVE = Path(__file__).parents[1] / LOOKS_FILE  # of the shipped base
STEPS = [f"{percent / 2:g}" for percent in range(0, 201, 5)]  # of the slider over a training, in percent
SENTENCE = box("sentence", "Sentence", FIVE[0]), tick("start", "end-of-text first"), tick("ids", "token ids")
NEXT = (slider("temperature", "Temperature", 0.1, 2, 0.1, "1"), slider("top_k", "Top-k (0: all)", 0, 40, 1, "0"),
        slider("seed", "Samples drawn anew", 0, 20, 1, "0"))


def read_sentence(opened: Opened, form: Form) -> Tensor:
    """The ids of the sentence in the form, int64 [T]."""
    text, most = form["sentence"].replace("\r\n", "\n"), opened.model.config.n_positions - 1
    ids = [opened.tokenizer.eot_id] * (form["start"] == "on") + opened.tokenizer.encode(text)
    if not 0 < len(ids) <= most:
        raise InputError(f"The sentence has {len(ids)} tokens; {opened.name} reads 1 to {most} and says what comes next. "
                         f"{'Shorten it.' if ids else 'Type something.'}")
    return torch.tensor(ids)


def loss_text(logits: Tensor, ids: Tensor) -> str:
    """The loss in words; apart for both copies of a text that is written twice. logits float [T, V], ids int64 [T]."""
    losses, L = token_losses(logits, ids), len(ids) // 2
    if L > 1 and torch.equal(ids[-2 * L:-L], ids[-L:]):  # perhaps with end-of-text before it
        return f"first copy <b>{losses[:-L].mean():.2f}</b>, second copy <b>{losses[-L:].mean():.2f}</b>"
    return f"<b>{losses.mean():.2f}</b>" if len(losses) else "none, as there is one token only"


def stream(opened: Opened, ids: Tensor, lens: Lens, place: int | None = None, other: Lens | None = None) -> str:
    """The stream as a grid, layers by positions, a tick at `place`. What another model says is added where it differs."""
    words, layers, T, rows = opened.words(ids), len(lens.p) - 1, len(ids), []
    tokens, shares = lens.tokens.tolist(), lens.p.tolist()
    for layer in range(layers + 1):
        cells = [f"after layer {layer - 1}{' = prediction' * (layer == layers)}" if layer else "embeddings"]
        for t in range(T):
            said, p = opened.words(tokens[layer][t]), shares[layer][t]
            theirs = opened.word(other.tokens[layer, t, 0].item()) if other else said[0]
            differs, note = theirs != said[0], ", ".join(f"{word} {share:.0%}" for word, share in zip(said, p))
            cells.append(cell(said[0] + differs * f"<ins>≠ {theirs}</ins>", p[0], note, "marked" * differs))
        rows.append(cells)
    rows.append(["comes next", *words[1:], ""])
    rows.append(["loss of that", *(f"{loss:.2f}" for loss in token_losses(lens.logits, ids).tolist()), ""])
    labels = [word + tag("small", f"{i}", class_="id") for word, i in zip(words, ids.tolist())]
    if place is not None:
        labels = [radio("at", f"{t}" if t < T - 1 else "last", t == place, label) for t, label in enumerate(labels)]
    return table("What each position would say next if the head were put on here (more colour: more probable)",
                 ["", *labels], rows, "grid")


def head_maps(opened: Opened, ids: Tensor, form: Form, off: list[tuple[int, int]]) -> str:
    """A small map of each head with its switch, and one of them large."""
    weights, words, maps = attention_weights(opened.model, ids), opened.words(ids), ""  # [layers, H, T, T]
    looks, names = where_heads_look(weights, ids), {"{}-{}".format(*one): one for one in opened.heads}
    large = names.get(form["head"], (0, 0))
    for name, one in names.items():
        kind, spoken = max(looks, key=lambda kind: looks[kind][one].item()), "layer {}, head {}".format(*one)
        image = tag("img", alt=spoken, src=picture(weights[one]))
        switch = tag("input", type="checkbox", name=f"off-{name}", checked=one in off, aria_label=f"switch {spoken} off")
        maps += tag("figure", radio("head", name, one == large, image) + tag("figcaption", (
            f"{name} {kind} <b>{looks[kind][one]:.0%}</b>")) + tag("label", switch + "off"))
    rows = [[word, *(cell(f"{100 * p:.0f}", p, f"{word} gives {p:.1%} to {key}" * (p >= 0.005))
                     for p, key in zip(weights[large][t, :t + 1].tolist(), words))] for t, word in enumerate(words)]
    return tag("div", maps, class_="heads", style=f"--heads:{opened.model.config.n_head}") + table(
        "Layer {}, head {}: how much of its attention, in %, each token (left) gives to each before it (top)".format(*large),
        ["", *words], rows, "grid map")


def go_on(opened: Opened, prompt: list[int], how: Sampling, seed: int) -> tuple[list[list[int]], Tensor]:
    """The likeliest continuation and SAMPLES others, of WORDS tokens at most; the first one's logits [WORDS, V]."""
    model, generator, eot = opened.model, torch.Generator().manual_seed(seed), opened.tokenizer.eot_id
    ids, step, cache, first = torch.tensor([prompt] * (1 + SAMPLES)), torch.tensor([prompt]), KVCache(len(prompt)), []
    for n in range(min(WORDS, model.config.n_positions - len(prompt))):
        if isinstance(model, GPT2):
            logits = model.logits(run(model, step, cache)[:, -1])  # [1, V]: the prompt is read once; then [1 + SAMPLES, V]
        else:
            logits = logits_of(model, ids if n else step)[:, -1]  # a reader's own class may have no cache of our kind
        if n == 0:
            logits, cache = logits.expand(len(ids), -1), repeated(cache, len(ids), len(prompt) + WORDS)
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
    (new, *others), first = go_on(opened, prompt, how, int(form.number("seed", 0, 1000)))
    for word, shares, tokens in zip(opened.words(new), *first.softmax(dim=-1).topk(5)):
        instead = "".join(tag("li", f"{other} {share:.1%}") for other, share in zip(opened.words(tokens), shares.tolist()))
        said += tag("details", tag("summary", word) + tag("ol", instead))
    samples = "".join(tag("li", escape(opened.tokenizer.decode(one)) or "(it ends)") for one in others)
    return (table(f"What comes after {opened.words(prompt[-1:])[0]}", ["next token", "probability"], rows)
            + tag("h3", "The likeliest continuation: open a word") + tag("div", said or "It ends here.", class_="said")
            + tag("h3", f"{SAMPLES} samples") + tag("ol", samples, class_="samples"))


def sentence_view(xray: Xray, form: Form) -> str:
    """A sentence as it flows, every head, the next token."""
    opened, ids, lost, ranked = xray.main, read_sentence(xray.main, form), "", ""
    off = [one for one in opened.heads if form["off-{}-{}".format(*one)]]
    place = min(int(form.number("at", 0, 1e9)), len(ids) - 1) if form["at"].isdecimal() else len(ids) - 1
    own = " Your own class's maps are made of its queries and keys, with the right mask." * xray.own_code
    with opened.without(off):
        lens = logit_lens(opened.model, ids)
        if opened.kept.get("shown", [None])[0] != (key := {**form, "rank": ""}):  # else only the ranking is new
            opened.kept["shown"] = [key, stream(opened, ids, lens, place), head_maps(opened, ids, form, off),
                                    next_token(opened, ids[:place + 1], lens.logits[place], form)]
    _, flow, maps, after = opened.kept["shown"]
    with opened.without():
        if off:
            lost = f" with {len(off)} off; with all heads {loss_text(logits_of(opened.model, ids[None])[0], ids)}"
        if form["rank"]:
            token = int(lens.tokens[-1, place, 0])
            effects = head_effects(opened.model, ids[:place + 1], opened.means, token)  # [layers, H]
            best = sorted(opened.heads, key=lambda one: -effects[one].item())[:8]
            ranked = table(f"Who matters for {opened.word(token)}: points that its probability falls without one head", [
                "off alone", "points"], [["layer {}, head {}".format(*one), f"{100 * effects[one]:+.1f}"] for one in best])
    return f"""<h2>The sentence as it flows</h2><p id="loss">Loss per token, in nats: {loss_text(lens.logits, ids)}{lost}.</p>
{flow}<div class="columns"><section><h2>The next token</h2>{after}</section><section><h2>Every head</h2><p class="soft">Each row
of a map is a token that looks, each column one that is looked at. Which head looks back? Write a list of words twice. A head
that is off gives its mean on eight pages that no training saw.{own}</p>
<button name="rank" value="1">Who matters for this token?</button>{ranked}{maps}</section></div>"""


def sentence_saved(xray: Xray) -> list[dict[str, str]]:
    """Each head enlarged, each head off while it or the first one is enlarged."""
    names = ["{}-{}".format(*one) for one in xray.main.heads if len(xray.main.heads) <= MOST_HEADS]
    return [{"head": large} | off for head in names for large, off in (
        (head, {}), (head, {f"off-{head}": "on"}), (names[0], {f"off-{head}": "on"}))]


def two_view(xray: Xray, form: Form) -> str:
    """Two models side by side."""
    one, two = xray.main, xray.other
    if two is None:
        raise InputError("There is one model only; open a second one beside it: python ch_pretrain/xray.py --other M")
    ids, theirs = read_sentence(one, form), read_sentence(two, form)
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
    intro = (f"<h2>Two models</h2><p>First <b>{escape(one.name)}</b>, loss {loss_text(lens.logits, ids)}; after ≠ "
             f"<b>{escape(two.name)}</b>, loss {loss_text(other.logits, theirs)}.</p>")
    if not built_alike:
        return f"{intro}<p>They are not built alike.</p>{stream(one, ids, lens)}{stream(two, theirs, other)}"
    alike = (lens.tokens[:, -1, 0] == other.tokens[:, -1, 0]).nonzero()[:, 0].tolist()  # layers that say the same
    where = ("both say the same" if len(lens.p) - 1 in alike else
             f"they part in layer {max(alike)}" if alike else "no layer says the same")
    return (f'{intro}<p id="first">After the last token {where}. {found}</p>{stream(one, ids, lens, None, other)}'
            + table("The largest difference in the stream, as verify.py measures it", ["", "difference", "the same"], [
                [name, f"{difference:.1e}", "yes" if agrees else "<b>no</b>"] for name, difference, agrees in rows]))


def curve(looks: list[dict], tokens: int) -> str:
    """When looking back begins, as a picture and a table; a line marks where so many tokens had been read."""
    names = {"first_copy": "loss, first copy", "second_copy": "loss, second copy", "induction": "best induction score"}
    end, top = looks[-1]["tokens"] or 1, max(look["first_copy"] for look in looks) or 1
    lines = "".join(tag("polyline", class_=name, points=" ".join(
        f"{20 + 560 * look['tokens'] / end:.0f},{170 - 150 * look[name] / (1 if name == 'induction' else top):.0f}"
        for look in looks)) for name in names)
    begins = next((look["tokens"] for look in looks if look["second_copy"] < look["first_copy"] / 2), None)
    text = (f"At {begins / 1e6:.1f} million tokens the second copy of a list costs less than half of the first: it looks back."
            if begins else "The second copy of a list never costs less than half of the first: it does not look back.")
    key = "".join(tag("span", label, class_=name) for name, label in names.items())
    return f"""<p id="begins">{text}</p><svg viewBox="0 0 600 190" role="img" aria-label="{text}">{lines}
<path d="M20 10V170H590"/><path class="now" d="M{20 + 560 * tokens / end:.0f} 10V170"/>
<text x="590" y="186" text-anchor="end">{end / 1e6:.1f} million tokens</text></svg><p class="key">{key}</p>""" + tag(
        "details", tag("summary", "As a table") + table("Losses in nats", ["million tokens", *names.values()], [
            [f"{look['tokens'] / 1e6:.2f}", *(f"{look[name]:.2f}" for name in names)] for look in looks]))


def growing_view(xray: Xray, form: Form) -> str:
    """The same sentence at each snapshot of a training, or one of five in the recording of another."""
    share = form.number("moment", 0, 100) / 100
    if xray.run:
        snapshots = snapshots_of(xray.run)
        chosen = snapshots[round(share * (len(snapshots) - 1))]
        if chosen not in xray.main.kept:
            xray.main.kept[chosen] = Opened(chosen.name, *load_pretrained(chosen))
        opened, tokens, name, five = xray.main.kept[chosen], int(chosen.name), str(xray.run), ""
        said = spoken(opened.model, opened.tokenizer, read_sentence(opened, form).tolist())
        looks: list[dict] = read_looks(xray.run / LOOKS_FILE) if (xray.run / LOOKS_FILE).exists() else []
    else:
        looks, number = list(xray.recording) or read_looks(CURVE), int(form.number("five", 0, len(FIVE) - 1))
        now: dict = looks[round(share * (len(looks) - 1))]
        name = "the shipped base's own training"
        said, tokens = now["sentences"][number] if xray.recording else [], now["tokens"]
        five = tag("p", "Recorded sentences (for your own, train with --snapshots and open --run FOLDER): " + choice(
            "five", {f"{i}": text for i, text in enumerate(FIVE)}).draw(f"{number}"))
    above = f"<h2>Growing: {escape(name)}</h2>{curve(looks, tokens) if looks else ''}"
    if not said:
        return (f"{above}<p>The line marks {tokens / 1e6:.1f} million tokens. To see sentences, train with --snapshots, and "
                "open it by --run FOLDER.</p>")
    return above + five + table(
        f"After {tokens / 1e6:.2f} million tokens", ["token", "its loss", "what it says next"], [
            [escape(visible(word)), "" if loss is None else f"{loss:.2f}", cell(f"{escape(visible(after))} {p:.0%}", p)]
            for word, loss, after, p in said])


def growing_saved(xray: Xray) -> list[dict[str, str]]:
    """Each moment, in a recording for each of its sentences."""
    recorded = [{"five": f"{number}"} for number in range(len(FIVE))] if xray.recording and not xray.run else [{}]
    return [{"moment": moment} | one for moment in STEPS for one in recorded]


VIEWS = [View("sentence", 1, "A sentence", SENTENCE + NEXT, sentence_view, sentence_saved),
         View("two", 1, "Two models", SENTENCE, two_view, lambda xray: []),
         View("growing", 1, "Growing", (slider("moment", "How much of the training, in %", 0, 100, 2.5, "0"), *SENTENCE),
              growing_view, growing_saved)]
