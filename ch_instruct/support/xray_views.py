"""The X-ray's view of chapter 2: records as rows of a batch, and which of their positions are in the loss."""

from html import escape

import torch.nn.functional as F

from ch_instruct.collate import collate
from ch_instruct.encoding import Example, encode_record
from ch_instruct.prompts import STYLES
from ch_pretrain.classroom import records
from ch_pretrain.support.xray_parts import Form, View, Xray, choice, finite
from common.losses import IGNORE_INDEX
from common.support.files import InputError

FIELDS = ("instruction", "input", "output")
FIRST = dict(zip("ab", (record for record in records() if record["family"] == "capital")))
DEFAULTS = {f"{box}-{field}": FIRST[box][field] for box in "ab" for field in FIELDS}
SWITCHES = {"style": dict(zip(STYLES, ("Alpaca", "Phi-3"))),
            "loss_on": {"response": "prompt hidden from the loss", "all": "prompt in the loss"},
            "end": {"on": "end-of-text is a target", "off": "end-of-text is no target"}}


def two_records(xray: Xray, form: Form) -> str:
    """Where records A and B are typed, and the style."""
    return "".join(f'<label class="wide">{box.upper()}: {field} <textarea name="{box}-{field}" rows="2">'
                   f"{escape(form[f'{box}-{field}'])}</textarea></label>" for box in "ab" for field in FIELDS
                   ) + choice("style", SWITCHES["style"], form)


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
        raise InputError("This view needs a prompt style, an output in each record, and the project's own GPT2, without --code.")
    example = encode_record(record, opened.tokenizer, form["style"])
    if (length := len(example.ids) + front) > most:
        raise InputError(f"This makes {length} tokens; {opened.name} reads at most {most}. Shorten a record.")
    return example


def record_view(xray: Xray, form: Form) -> str:
    """Both records as rows of a batch."""
    opened, parts = xray.main, []
    examples = [example_of(xray, form, record_of(form, box)) for box in "ab"]
    inputs, targets = collate(examples, opened.tokenizer.eot_id, "all" if form["loss_on"] == "all" else "response")  # [2, T] each
    for asked, example in zip(targets, examples):
        if form["end"] == "off":
            asked[len(example.ids) - 2] = IGNORE_INDEX
    with opened.without():
        losses = F.cross_entropy(finite(opened.model(inputs)).transpose(1, 2), targets, reduction="none", ignore_index=IGNORE_INDEX)
    for box, example, line, asked, lost in zip("AB", examples, inputs, targets, losses):
        items = []
        for t, (word, target, loss) in enumerate(zip(opened.words(line), asked.tolist(), lost.tolist())):
            kind = "padding" if t > len(example.ids) - 2 else "prompt" if t < example.prompt_length - 1 else "end off"
            below = f"{kind}: –" if target == IGNORE_INDEX else f"→ {opened.words([target])[0]} {loss:.2f}"
            items.append(f'<li class="{kind}{" asked" * (target != IGNORE_INDEX)}" style="--p:{min(100, 20 * loss):.0f}">{word}<small>'
                         f"{below}</small></li>")
        count = int((asked != IGNORE_INDEX).sum())
        parts.append(f'<h3>Record {box}: {count} of {len(line)} positions have a target</h3><ol class="row">{"".join(items)}</ol>')
    total, count = losses.sum().item(), int((targets != IGNORE_INDEX).sum())
    mean = f"{total:.2f} / {count} = <b>{total / count:.3f}</b> nats per target" if count else "there is no target"
    return (f'<h2>Two rows of a batch</h2><p id="loss">Loss: {mean}.</p><p class="soft">Each box is an input token. A thick box has a '
            "target: → says which, and its loss (darker: larger). – is not in the loss, because it belongs to the prompt, or is padding "
            f'(dashed), or its target is switched off.</p>{"".join(parts)}')


VIEWS = [View("record", 2, "What is learnt", (two_records, masks), DEFAULTS | {name: next(iter(of)) for name, of in SWITCHES.items()},
              record_view, lambda xray: [{"style": style, "loss_on": on, "end": end} for style in STYLES
                                         for on in SWITCHES["loss_on"] for end in SWITCHES["end"]])]
