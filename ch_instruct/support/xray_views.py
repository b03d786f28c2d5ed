"""The X-ray's view of chapter 2: records as rows of a batch, and which of their positions are in the loss."""

from html import escape
from itertools import product

import torch.nn.functional as F

from ch_instruct.collate import collate
from ch_instruct.encoding import Example, encode_record
from ch_instruct.prompts import STYLES
from ch_pretrain.classroom import records
from ch_pretrain.support.xray_parts import Form, View, Xray, choice, finite
from common.losses import IGNORE_INDEX
from common.support.files import InputError

FIELDS = ("instruction", "input", "output")
RECORDS = records()
FIRST = dict(zip("ab", (record for record in RECORDS if record["family"] == "capital")))
SWITCHES = {"style": dict(zip(STYLES, ("Alpaca", "Phi-3"))),
            "loss_on": {"response": "prompt hidden from the loss", "all": "prompt in the loss"},
            "end": {"on": "end-of-text is a target", "off": "end-of-text is no target"}}
DEFAULTS = {f"{box}-{field}": FIRST[box][field] for box in "ab" for field in FIELDS} | {
    name: next(iter(values)) for name, values in SWITCHES.items()}


def two_records(xray: Xray, form: Form) -> str:
    """Where records A and B are typed, and the style."""
    return "".join(f'<label class="wide">{box.upper()}: {field} <textarea name="{box}-{field}" rows="2">'
                   f"{escape(form[f'{box}-{field}'])}</textarea></label>" for box in "ab" for field in FIELDS
                   ) + f"<span>{choice('style', SWITCHES['style'], form)}</span>"


def masks(xray: Xray, form: Form) -> str:
    """What is in the loss."""
    return choice("loss_on", SWITCHES["loss_on"], form) + choice("end", SWITCHES["end"], form)


def record_of(form: Form, box: str) -> dict[str, str]:
    """Record A or B."""
    return {field: form[f"{box}-{field}"].replace("\r\n", "\n") for field in FIELDS}


def example_of(xray: Xray, form: Form, record: dict[str, str], front: int = 0) -> Example:
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
    opened, parts = xray.main, []
    examples = [example_of(xray, form, record_of(form, box)) for box in "ab"]
    inputs, targets = collate(examples, opened.tokenizer.eot_id, form["loss_on"] or "response")  # [2, T] each
    for asked, example in zip(targets, examples):
        if form["end"] == "off":
            asked[len(example.ids) - 2] = IGNORE_INDEX
    with opened.without():
        logits = finite(opened.model(inputs))  # [2, T, V]
    losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORE_INDEX)  # 0 without a target
    for box, example, line, asked, lost in zip("AB", examples, inputs, targets, losses):
        items = []
        for t, (word, target, loss) in enumerate(zip(opened.words(line), asked.tolist(), lost.tolist())):
            kind = "padding" if t > len(example.ids) - 2 else "prompt" if t < example.prompt_length - 1 else "end"
            if target != IGNORE_INDEX:
                kind, below = "asked", f"→ {opened.words([target])[0]} {loss:.2f}"
            else:
                below = f"{kind}: –"
            items.append(f'<li class="{kind}" style="--p:{min(100, 20 * loss):.0f}">{word}<small>{below}</small></li>')
        count = int((asked != IGNORE_INDEX).sum())
        parts.append(f"<h3>Record {box}: {count} of {len(line)} positions have a target</h3>"
                     f'<ol class="row">{"".join(items)}</ol>')
    total, count = losses.sum().item(), int((targets != IGNORE_INDEX).sum())
    mean = f"{total:.2f} / {count} = <b>{total / count:.3f}</b> nats per target" if count else "there is no target"
    return (f'<h2>Two rows of a batch</h2><p id="loss">Loss: {mean}.</p><p class="soft">A box is an input token. A thick box '
            "has a target: → says which, and its loss (more colour: larger). – is not in the loss: it is prompt, or "
            f'padding (dashed), or end-of-text that is no target.</p>{"".join(parts)}')


VIEWS = [View("record", 2, "What is learnt", (two_records, masks), DEFAULTS, record_view, lambda xray: [
    dict(zip(SWITCHES, values)) for values in product(*SWITCHES.values())])]
