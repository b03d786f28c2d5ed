"""X-ray: a page on this machine that opens a model while you touch it.

    python ch_pretrain/xray.py                                         # the shipped base
    python ch_pretrain/xray.py --model runs/ch_instruct/001 --other classroom --view two
    python ch_pretrain/xray.py --code my_model.py:GPT --view two       # your own class, beside the right one
    python ch_pretrain/xray.py --run runs/ch_pretrain/001 --view growing
    python ch_pretrain/xray.py --save page.html "The capital of Norway is"

What a chapter shows lies in the list VIEWS of its `support/xray_views.py`. This command finds these files and names none of
them, so no chapter depends on a later one. Python writes all HTML; the page's script sends the form and shows the answer.
"""

import base64
import gzip
import importlib
import json
import re
import runpy
import threading
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from itertools import chain
from pathlib import Path

from common.support import options
from common.support.files import InputError, read_json, reading, write_text
from common.support.local_server import STYLE, Answer, LocalServer, Request, ServerOptions, only_script
from common.support.options import ModelOption, new_file, option


@dataclass(frozen=True)
class XrayOptions(ServerOptions, ModelOption):
    """The options of this command."""

    other: str | None = option(None, "a second model, to be shown beside the first", metavar="M")
    code: str | None = option(None, "your own class for --model, as in exercise 05; it is run", metavar="FILE.py:CLASS")
    run: Path | None = option(None, "a training with --snapshots, to be shown while it grows", Path, metavar="FOLDER")
    view: str = option("sentence", "which tab is opened or saved, by its first word: sentence, two, growing, record, between "
                       "or example (default: %(default)s)")
    save: Path | None = option(None, "write the view as an HTML file, and end", new_file, metavar="FILE")
    sentence: str | None = option(None, "what is shown first", positional=True)


if __name__ == "__main__":
    options.run_command(options.parse, XrayOptions, __doc__)  # --help and wrong options end here: imports take seconds

from ch_pretrain.support.xray_parts import Form, Opened, View, Xray, radio, tag
from common.gpt2 import GPT2
from common.pretrained import find_folder, load_pretrained, load_weights
from common.support.console import say
from common.support.runs import ROOT

PAGE = (Path(__file__).parent / "support" / "xray_page.html").read_text(encoding="utf-8")
SCRIPT = PAGE.split("<script>")[1].split("</script>")[0]
# The page's own script and style, its own server, pictures that it holds itself; nothing else, whatever a text contains.
POLICY = ("default-src 'none'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; form-action 'self'; "
          f"base-uri 'none'; {only_script(SCRIPT)}")
RECORDING = Path(__file__).parent / "growing.json"
MOST_SAVED = 1_000_000  # bytes of a saved page
SAVE = '<button name="save" value="1" formaction="/save">Save this page</button><noscript><button>Show</button></noscript>'
NOTE = "A saved page: with JavaScript, you can change what is not grey. For all of it: python ch_pretrain/xray.py"
START = {"view": "sentence"}  # what the form says first, beside the controls' defaults


def find_views(root: Path) -> dict[str, View]:
    """The views of all chapters that are there, by name, in the order of the chapters."""
    modules = (".".join(file.relative_to(root).with_suffix("").parts) for file in root.glob("ch_*/support/xray_views.py"))
    views = chain.from_iterable(importlib.import_module(module).VIEWS for module in modules)
    return {view.title.split()[0].lower(): view for view in sorted(views, key=lambda view: view.chapter)}


VIEWS = find_views(ROOT)


def read_form(xray: Xray, sent: dict[str, str]) -> tuple[Form, View]:
    """The form and the view that it asks for. What a first page does not say has its default."""
    defaults = {name: default for view in VIEWS.values() for name, default, _ in view.controls(xray)} | START
    form = Form(sent if sent.get("typed") else defaults | sent)
    if form["view"] not in VIEWS:
        raise InputError(f"There is no view {form['view'][:40]!r}; choose from {', '.join(VIEWS)}.")
    return form, VIEWS[form["view"]]


def shown(xray: Xray, form: Form, view: View) -> str:
    """What a view shows, below its title."""
    if missing := view.missing(xray):
        raise InputError(missing)
    return tag("h2", view.title) + view.result(xray, form)


def page(xray: Xray, sent: dict[str, str], saved: str = "") -> str:
    """The whole page; `saved` is what `save` adds."""
    form, view = read_form(xray, sent)
    try:
        note, result = "", shown(xray, form, view)
    except InputError as error:
        note, result = escape(str(error)), ""
    having: dict[str, list[str]] = {}  # the HTML of each control -> the views that have it
    for title, some in VIEWS.items():
        for name, _, draw in some.controls(xray):
            having.setdefault(draw(form[name]), []).append(title)
    controls = "".join(tag("div", html, hidden=form["view"] not in names, class_=" ".join(names))
                       for html, names in having.items())
    tabs = "".join(radio("view", name, some is view, some.title, some.missing(xray)) for name, some in VIEWS.items())
    filled = {"policy": escape(POLICY), "style": STYLE, "name": escape(xray.main.name), "tabs": tabs, "controls": controls,
              "note": note, "result": result, "saved": saved, "save": tag("small", NOTE) if saved else SAVE}
    return re.sub("{{(.*?)}}", lambda found: filled[found[1]], PAGE)


def save(xray: Xray, sent: dict[str, str]) -> str:
    """The page with all that its view lists as `saved`, for a file, without Python. InputError if it would be too large."""
    form, view = read_form(xray, sent)
    views, names = {}, sorted({name for change in view.saved(xray, form) for name in change})
    for change in [{}, *view.saved(xray, form)]:
        state = Form({**form, **change})
        views["&".join(f"{name}={state[name]}" for name in names if state[name])] = shown(xray, state, view)
    packed = base64.b64encode(gzip.compress(json.dumps({"names": names, "views": views}).encode(), mtime=0)).decode()
    text = page(xray, {**form, "typed": "1"}, tag("script", packed, type="application/octet-stream", id="saved"))
    if len(text) > MOST_SAVED:
        raise InputError(f"The saved page would have {len(text):,} bytes, more than {MOST_SAVED:,}; save a shorter text.")
    return text


def answering(xray: Xray) -> Callable[[Request], Answer]:
    """What the server calls for each request. One at a time: all of them use the same models."""
    lock = threading.Lock()

    def answer(request: Request) -> Answer:
        with lock:
            sent = request.form()
            if request.path == "/save":
                return Answer(save(xray, sent), headers=(("Content-Disposition", "attachment; filename=xray.html"),))
            return Answer(shown(xray, *read_form(xray, sent)) if request.path == "/result" else page(xray, sent))

    return answer


def own_model(code: str, name: str, right: GPT2) -> GPT2:
    """A reader's own class, called with a GPT2Config, with the weights of the model `name`, which is `right`."""
    file, _, class_name = code.rpartition(":")
    with reading(f"--code {code}", "no FILE.py:CLASS that can be used here", "compare it with exercise 05"):
        model = runpy.run_path(file)[class_name](right.config).eval()
        load_weights(model, find_folder(name))
    model.config = right.config
    return model


def main() -> None:
    args = options.parse(XrayOptions, __doc__)
    model, tokenizer = load_pretrained(args.model)
    other = args.other or (args.model if args.code else None)
    main = Opened(args.code or args.model, own_model(args.code, args.model, model) if args.code else model, tokenizer)
    xray = Xray(main, Opened(other, *load_pretrained(other)) if other else None, bool(args.code), args.run,
                read_json(RECORDING, [{"tokens": int, "sentences": [[list]]}]))
    START.update({"view": args.view} | ({} if args.sentence is None else {"sentence": args.sentence}))
    read_form(xray, {})  # refuses a wrong --view or --run now
    if args.save:
        write_text(args.save, save(xray, {}))
        return say(f"Wrote {args.save} ({args.save.stat().st_size:,} bytes).")
    _ = main.means  # computed now, and not when the first head is clicked off
    LocalServer(answering(xray), args.host, args.port, POLICY).serve("Ctrl-C ends.")


if __name__ == "__main__":
    options.run_command(main)
