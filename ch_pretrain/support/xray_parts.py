"""What the views of the X-ray share: an opened model, the form, pieces of HTML. Whatever is shown passes through `escape`."""

import base64
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, cached_property
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
from common.tokenizer import Tokenizer, visible


class Opened:
    """A model, its tokenizer, and what is kept of it. `model` may be a reader's own class of the same parts."""

    def __init__(self, name: str, model: GPT2, tokenizer: Tokenizer):
        self.name, self.model, self.tokenizer = name, model, tokenizer
        self.heads = {f"{layer}-{h}": (layer, h) for layer in range(model.config.n_layer) for h in range(model.config.n_head)}
        self.word = cache(lambda i: escape(visible(tokenizer.decode([i]))))
        self.kept: dict[Any, Any] = {}  # for views that keep what takes long

    @cached_property
    def means(self) -> Tensor:
        """What each head gives on average on eight pages that no training saw, float [layers, H, Dh]."""
        texts = (self.tokenizer.encode(page)[:self.model.config.n_positions] for page in pages(8, 2))  # training has seed 1
        return mean_outputs(self.model, [torch.tensor(ids) for ids in texts])

    def words(self, ids: Sequence[int] | Tensor) -> list[str]:
        """The text of each token, for the page."""
        return [self.word(i) for i in (ids.tolist() if isinstance(ids, Tensor) else ids)]

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
        with suppress(ValueError):
            if low <= (value := float(self[name] or 0)) <= high:
                return value
        raise InputError(f"{name} is {self[name][:40]!r}; it must be a number from {low:g} to {high:g}.")


class Xray(NamedTuple):
    """All that the page can show."""

    main: Opened
    other: Opened | None = None
    own_code: bool = False  # whether the main model is a reader's own class
    run: Path | None = None  # a training whose snapshots are shown
    recording: Sequence[dict] = ()  # of another training, made by lab/growing.py


class Control(NamedTuple):
    """A part of the form."""

    name: str
    default: str
    draw: Callable[[str], str]  # its value -> HTML


class View(NamedTuple):
    """A tab of the page."""

    chapter: int
    title: str  # its first word is what --view names
    controls: Callable[[Xray], tuple[Control, ...]]  # several views may share one
    result: Callable[[Xray, Form], str]  # its first paragraph is what a screen reader says after each change
    saved: Callable[[Xray, Form], list[dict[str, str]]]  # changes of the form that a saved page can show
    missing: Callable[[Xray], str] = lambda xray: ""  # why it cannot be shown, if so


def tag(kind: str, content: str = "", **attributes: str | bool) -> str:
    """An element of HTML. An attribute that is True stands alone, one that is empty or False is left out."""
    given = "".join(f" {name.strip('_').replace('_', '-')}" + (f'="{value}"' if value is not True else "")
                    for name, value in attributes.items() if value)
    return f"<{kind}{given}>" + (f"{content}</{kind}>" if kind not in ("input", "img") else "")


def box(name: str, label: str, default: str) -> Control:
    """A box to type into."""
    return Control(name, default, lambda value: tag(
        "label", label + tag("textarea", escape(value), name=name, rows="2"), class_="wide"))


def slider(name: str, label: str, low: float, high: float, step: float, default: str) -> Control:
    """A slider that shows its value."""
    limits = {"min": f"{low}", "max": f"{high}", "step": f"{step}"}
    return Control(name, default, lambda value: tag("label", label + tag(
        "input", type="range", name=name, value=escape(value), **limits) + tag("output", escape(value))))


def tick(name: str, label: str) -> Control:
    """A box to tick."""
    return Control(name, "", lambda value: tag(
        "label", tag("input", type="checkbox", name=name, checked=value == "on") + label))


def radio(name: str, value: str, on: bool, label: str, missing: str = "") -> str:
    """One of several to choose from; `missing` says why it cannot be chosen, if so."""
    dot = tag("input", type="radio", name=name, value=value, checked=on, disabled=bool(missing and not on))
    return tag("label", dot + label, title=missing)


def choice(name: str, legend: str, labels: dict[str, str]) -> Control:
    """One of several, value -> label. If nothing is said, the first."""
    return Control(name, next(iter(labels)), lambda chosen: tag("span", f"{legend}: " + "".join(
        radio(name, value, value == chosen, label) for value, label in labels.items()), role="radiogroup", aria_label=legend))


def cell(content: str, p: float, note: str = "", kind: str = "") -> str:
    """A table cell of HTML, coloured by a share `p`, 0 to 1; `note` is what a pointer brings up."""
    return tag("td", content, style=f"--p:{100 * p:.0f}", title=note, class_=kind)


def table(caption: str, headings: Iterable[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table of HTML that scrolls by itself where it is too wide. The first cell of each row is its heading."""
    top = "".join(tag("th", heading, scope="col") if heading else "<td></td>" for heading in headings)
    body = "".join(tag("tr", tag("th", first, scope="row") + "".join(
        one if one.startswith("<td") else tag("td", one) for one in others)) for first, *others in rows)
    whole = tag("table", tag("thead", tag("tr", top)) + tag("tbody", body), class_=kind)
    scrolling = tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)
    return tag("p", caption, class_="soft") + scrolling


def picture(values: Tensor) -> str:
    """Float [rows, columns], 0 (white) to 1 (black), as the address of a small grey PNG that it holds itself."""
    lines = zlib.compress(b"".join(b"\0" + bytes(line) for line in (255 * (1 - values)).byte().tolist()))
    png, sizes = b"\x89PNG\r\n\x1a\n", struct.pack(">IIBBBBB", values.size(1), values.size(0), 8, 0, 0, 0, 0)
    for part in (b"IHDR" + sizes, b"IDAT" + lines, b"IEND"):
        png += struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
