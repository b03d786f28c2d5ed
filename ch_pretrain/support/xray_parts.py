"""What the views of the X-ray share: an opened model, the form, and pieces of HTML. Whatever is shown passes through `escape`.

A chapter adds views by a file `support/xray_views.py` with a list VIEWS: `ch_pretrain/xray.py` finds it, and imports no later
chapter. Without the other chapters' folders it shows its own views.
"""

import base64
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ch_pretrain.inside import mean_outputs, without_heads
from ch_pretrain.pages import pages
from common.gpt2 import GPT2
from common.support.device import evaluating
from common.support.files import InputError
from common.tokenizer import END_OF_TEXT, Tokenizer


class Opened:
    """A model, its tokenizer, and what is kept of it. `model` may be a reader's own class of the same parts."""

    def __init__(self, name: str, model: GPT2, tokenizer: Tokenizer):
        self.name, self.model, self.tokenizer = name, model, tokenizer
        self.kept: dict[Any, Any] = {}  # for views that keep what takes long

    @cached_property
    def means(self) -> Tensor:
        """What each head gives on average on eight pages that no training saw, float [layers, H, Dh]."""
        texts = (self.tokenizer.encode(page)[:self.model.config.n_positions] for page in pages(8, 2))  # training has seed 1
        return mean_outputs(self.model, [torch.tensor(ids) for ids in texts])

    def words(self, ids: Tensor | Sequence[int]) -> list[str]:
        """The text of each token, for the page."""
        return [visible(self.tokenizer.decode([int(i)])) for i in ids]

    def sentence(self, form: "Form") -> Tensor:
        """The ids of the sentence in the form, int64 [T]."""
        text = form["sentence"].replace("\r\n", "\n")
        ids = [self.tokenizer.eot_id] * (form["start"] == "on") + self.tokenizer.encode(text)
        most = self.model.config.n_positions - 1
        if not 0 < len(ids) <= most:
            raise InputError(f"The sentence has {len(ids)} tokens; {self.name} reads 1 to {most} and says what comes next. "
                             f"{'Shorten it.' if ids else 'Type something.'}")
        return torch.tensor(ids)

    @contextmanager
    def without(self, off: Sequence[tuple[int, int]] = ()) -> Iterator[None]:
        """Within this context the model only computes, and these heads give their mean."""
        with evaluating(self.model), without_heads(self.model, off, self.means if off else None):
            yield


class Form(dict[str, str]):
    """What the form says. A field that was sent empty, and a box without a tick, are ""."""

    def __missing__(self, name: str) -> str:
        return ""

    def number(self, name: str, low: float, high: float) -> float:
        """A number in a range; one that was not sent is 0."""
        try:
            value = float(self[name] or 0)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise InputError(f"{name} is {self[name][:40]!r}; it must be a number from {low:g} to {high:g}.")
        return value


class Xray(NamedTuple):
    """All that the page can show."""

    main: Opened
    other: Opened | None = None
    own_code: bool = False  # whether the main model is a reader's own class
    run: Path | None = None  # a training whose snapshots are shown
    recording: list[dict] | None = None  # of another training, made by lab/growing.py


class View(NamedTuple):
    """A tab of the page."""

    name: str
    chapter: int
    title: str
    controls: tuple[Callable[[Xray, Form], str], ...]  # parts of the form; several views may share one
    defaults: dict[str, str]
    result: Callable[[Xray, Form], str]
    saved: Callable[[Xray], list[dict[str, str]]]  # changes of the form that a saved page can show


def visible(text: str) -> str:
    """A token for the page: spaces and line breaks as signs, escaped."""
    return escape(text.replace(END_OF_TEXT, "<end>").replace(" ", "␣").replace("\n", "↵"))


def cell(content: str, p: float, note: str = "", kind: str = "") -> str:
    """A table cell of HTML, coloured by a share `p`, 0 to 1; `note` is HTML that a pointer brings up."""
    attributes = f' class="{kind}"' * bool(kind) + f' title="{note}"' * bool(note)
    return f'<td style="--p:{100 * p:.0f}"{attributes}>{content}</td>'


def table(caption: str, headings: Iterable[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table of HTML that scrolls by itself where it is too wide. The first cell of each row is its heading."""
    top = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    body = "".join(f'<tr><th scope="row">{first}</th>' + "".join(
        one if one.startswith("<td") else f"<td>{one}</td>" for one in others) + "</tr>" for first, *others in rows)
    return (f'<p class="soft">{caption}</p><div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table class='
            f'"{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>')


def slider(name: str, label: str, high: float, step: float, form: Form) -> str:
    """A slider from 0 (or from one step, where 0 means nothing) that shows its value."""
    return (f'<label>{label} <input type="range" name="{name}" min="{step if name == "temperature" else 0}" max="{high}" '
            f'step="{step}" value="{escape(form[name])}"><output>{escape(form[name])}</output></label>')


def choice(name: str, options: dict[str, str], form: Form) -> str:
    """Radio buttons: value -> label."""
    return "".join(f'<label><input type="radio" name="{name}" value="{value}"{" checked" * (value == form[name])}>{label}'
                   "</label>" for value, label in options.items())


def picture(values: Tensor) -> str:
    """A grey PNG, a pixel each, of float [rows, columns], 0 (white) to 1 (black), as an address of its own."""
    lines = b"".join(b"\0" + bytes(line) for line in (255 * (1 - values)).byte().tolist())
    chunks = {b"IHDR": struct.pack(">IIBBBBB", values.size(1), values.size(0), 8, 0, 0, 0, 0), b"IDAT": zlib.compress(lines),
              b"IEND": b""}
    png = b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(what)) + kind + what + struct.pack(
        ">I", zlib.crc32(kind + what)) for kind, what in chunks.items())
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def finite(logits: Tensor) -> Tensor:
    """The logits, or one sentence where they are no numbers."""
    if not logits.isfinite().all():
        raise InputError("The model's logits hold NaN or infinity here; look at its weights, or use an earlier checkpoint.")
    return logits
