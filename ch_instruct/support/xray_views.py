"""The X-ray's view of chapter 2: records as rows of a batch, and which of their positions are in the loss."""

from itertools import product

import torch.nn.functional as F

from ch_instruct.collate import collate
from ch_instruct.encoding import Example, encode_record
from ch_instruct.prompts import STYLES
from ch_pretrain.classroom import records
from ch_pretrain.inside import logits_of
from ch_pretrain.support.xray_parts import Form, View, Xray, box, choice, tag
from common.losses import IGNORE_INDEX
from common.support.files import InputError

FIELDS = ("instruction", "input", "output")
RECORDS = records()
FIRST = dict(zip("ab", (record for record in RECORDS if record["family"] == "capital")))
STYLE = choice("style", dict(zip(STYLES, ("Alpaca", "Phi-3"))))
TWO_RECORDS = (*(box(f"{name}-{field}", f"{name.upper()}: {field}", record[field]) for name, record in FIRST.items()
                 for field in FIELDS), STYLE)
LOSS_ON = choice("loss_on", {"response": "prompt hidden from the loss", "all": "prompt in the loss"})
END = choice("end", {"on": "end-of-text is a target", "off": "end-of-text is no target"})


def read_record(form: Form, name: str) -> dict[str, str]:
    """Record "a" or "b"."""
    return {field: form[f"{name}-{field}"].replace("\r\n", "\n") for field in FIELDS}


def encode(xray: Xray, form: Form, record: dict[str, str], front: int = 0) -> Example:
    """A record encoded, if it fits into the context behind `front` tokens."""
    opened, most = xray.main, xray.main.model.config.n_positions
    if xray.own_code or not record["output"] or form["style"] not in STYLES:
        raise InputError("This view needs an output in each record, and the project's own GPT2, without --code.")
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
    return f"""<h2>Two rows of a batch</h2><p id="loss">Loss: {mean}.</p><p class="soft">A box is an input token. A thick
box has a target: → says which, and its loss (more colour: larger). – is not in the loss: it is prompt, or padding (dashed),
or end-of-text that is no target.</p>{parts}"""


VIEWS = [View("record", 2, "What is learnt", (*TWO_RECORDS, LOSS_ON, END), record_view, lambda xray: [
    dict(zip(("style", "loss_on", "end"), three)) for three in product(STYLES, ("response", "all"), ("on", "off"))])]
