"""The X-ray's views of chapter 2: records as rows of a batch, which of their positions are in the loss; two models, asked."""

from html import escape
from itertools import product

import torch.nn.functional as F

from ch_instruct.collate import collate
from ch_instruct.encoding import Example, encode_record
from ch_instruct.prompts import START, STYLES, chat_template, chatml_turns
from ch_instruct.support.prompt_style import default_system, rendered
from ch_pretrain.classroom import records
from ch_pretrain.inside import logits_of
from ch_pretrain.support.xray_parts import Form, View, Xray, box, choice, tag, tick
from ch_pretrain.support.xray_views import TWO
from common.losses import IGNORE_INDEX
from common.support.files import InputError

FIELDS = ("instruction", "input", "output")
RECORDS = records()
FIRST = dict(zip("ab", (record for record in RECORDS if record["family"] == "capital")))
STYLE = choice("style", "Prompt form", dict(zip(STYLES, ("Alpaca", "Phi-3"))))
TWO_RECORDS = (*(box(f"{name}-{field}", f"{name.upper()}: {field}", record[field]) for name, record in FIRST.items()
                 for field in FIELDS), STYLE)
LOSS_ON = choice("loss_on", "Prompt", {"response": "not in the loss", "all": "in the loss"})
END = choice("end", "End-of-text", {"on": "a target", "off": "no target"})
NO_CODE = "This view needs the project's own GPT2; start the X-ray without --code."
ASKED = tick("asked", "as a question, in the prompt form of fine-tuning")


def read_record(form: Form, name: str) -> dict[str, str]:
    """Record "a" or "b"."""
    if not form[f"{name}-output"]:
        raise InputError(f"Record {name.upper()} has no output; type one.")
    return {field: form[f"{name}-{field}"].replace("\r\n", "\n") for field in FIELDS}


def encode(xray: Xray, form: Form, record: dict[str, str], front: int = 0) -> Example:
    """A record encoded, if it fits into the context behind `front` tokens."""
    opened, most = xray.main, xray.main.model.config.n_positions
    if form["style"] not in STYLES:
        raise InputError(f"The prompt form is {form['style'][:40]!r}; choose from {', '.join(STYLES)}.")
    example = encode_record(record, opened.tokenizer, form["style"])
    if (length := len(example.ids) + front) > most:
        raise InputError(f"This makes {length} tokens; {opened.name} reads at most {most}. Shorten a record.")
    return example


def record_view(xray: Xray, form: Form) -> str:
    """Both records as rows of a batch."""
    opened, parts = xray.main, ""
    examples = [encode(xray, form, read_record(form, name)) for name in "ab"]
    inputs, targets = collate(examples, opened.tokenizer.eot_id, form["loss_on"] or "response")  # [2, T] each
    if form["end"] == "off":
        for row, example in zip(targets, examples):
            row[len(example.ids) - 2] = IGNORE_INDEX
    with opened.without():
        logits = logits_of(opened.model, inputs)  # [2, T, V]
    losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORE_INDEX)  # 0 without a target
    for name, example, line, row, lost in zip("AB", examples, inputs, targets, losses):
        items, asked = "", row != IGNORE_INDEX
        for t, (word, target, loss) in enumerate(zip(opened.words(line), row.tolist(), lost.tolist())):
            kind = ("asked" if asked[t] else "padding" if t > len(example.ids) - 2 else
                    "prompt" if t < example.prompt_length - 1 else "end")
            below = f"→ {opened.words([target])[0]} {loss:.2f}" if asked[t] else f"{kind}: –"
            items += tag("li", word + tag("small", below), class_=kind, style=f"--p:{min(100, 20 * loss):.0f}")
        parts += f"<h3>Record {name}: {asked.sum()} of {len(line)} positions have a target</h3>{tag('ol', items, class_='row')}"
    total, count = losses.sum().item(), int((targets != IGNORE_INDEX).sum())
    mean = f"{total:.2f} / {count} = <b>{total / count:.3f}</b> nats per target" if count else "there is no target"
    return f"""<p id="loss">Loss of {escape(opened.name)}: {mean}.</p><p class="soft">A box is an input token. A thick box has a
target: → says which, and its loss in nats, minus the natural logarithm of its probability (more colour: larger). – is not in
the loss: it is prompt, or padding (dashed), or end-of-text that is no target.</p>{parts}"""


def asked_view(xray: Xray, form: Form) -> str:
    """Two models; on demand they get the sentence in the prompt form of the one that was fine-tuned."""
    if form["asked"]:
        templates = [opened.tokenizer.chat_template for opened in (xray.main, xray.other) if opened]
        asked = [{"role": "user", "content": form["sentence"].replace("\0", "")}]
        template = next(filter(None, templates), chat_template())
        pieces = [rendered(template, asked)]
        if START in template:
            [pieces] = chatml_turns({"messages": asked}, default_system(template))
        form = Form(form | {"pieces": "\0".join(pieces)})
    return TWO.result(xray, form)


VIEWS = [TWO._replace(chapter=2, controls=lambda xray: (*TWO.controls(xray), ASKED), result=asked_view),
         View(2, "Record in a batch", lambda xray: (*TWO_RECORDS, LOSS_ON, END), record_view, lambda xray, form: [
             dict(zip(("style", "loss_on", "end"), three)) for three in product(STYLES, ("response", "all"), ("on", "off"))],
              lambda xray: NO_CODE * xray.own_code)]
