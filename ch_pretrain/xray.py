"""X-ray: a page on this machine that opens a model while you touch it.

    python ch_pretrain/xray.py                                         # the shipped base
    python ch_pretrain/xray.py --model runs/ch_instruct/001 --other classroom --view two
    python ch_pretrain/xray.py --code my_model.py:GPT --view two       # your own class, beside the right one
    python ch_pretrain/xray.py --run runs/ch_pretrain/001 --view growing
    python ch_pretrain/xray.py --save page.html "The capital of Norway is"

What a chapter shows lies in its `support/xray_views.py`. This command finds these files and names none of them, so no chapter
depends on a later one. Python computes and writes all HTML; the script of the page sends the form and shows the answer.
"""

import argparse
import base64
import gzip
import importlib
import json
import re
import runpy
import threading
from collections.abc import Callable
from html import escape
from itertools import chain
from pathlib import Path

from common.support import options
from common.support.files import InputError, read_json, reading, write_text
from common.support.local_server import STYLE, Answer, LocalServer, Request, ServerOptions, only_script


def parse() -> argparse.Namespace:
    parser = options.Parser(__doc__)
    options.add(parser, options.ModelOption)
    parser.add_argument("--other", metavar="M", help="a second model, to be shown beside the first")
    parser.add_argument("--code", metavar="FILE.py:CLASS", help="your own class for --model, as in exercise 05; it is run")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="a training with --snapshots, to be shown while it grows")
    parser.add_argument("--view", default="sentence", help="sentence, two, growing, record, between, or "
                        "example: what is opened or saved (default: %(default)s)")
    parser.add_argument("--save", type=options.new_file, metavar="FILE", help="write the view as an HTML file, and end")
    parser.add_argument("sentence", nargs="?", help="what is shown first")
    options.add(parser, ServerOptions)
    return parser.parse_args()


if __name__ == "__main__":
    options.run_command(parse)  # --help and wrong options end here: the imports below take seconds

from ch_pretrain.support.xray_parts import Form, Opened, View, Xray, choice, tag
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
NOTE = "A saved page: what is not grey can be changed. For all of it: python ch_pretrain/xray.py"


def find_views(root: Path) -> dict[str, View]:
    """The views of all chapters that are there, by name, in the order of the chapters."""
    modules = (".".join(file.relative_to(root).with_suffix("").parts) for file in root.glob("ch_*/support/xray_views.py"))
    views = chain.from_iterable(importlib.import_module(module).VIEWS for module in modules)
    return {view.name: view for view in sorted(views, key=lambda view: view.chapter)}


VIEWS = find_views(ROOT)
CONTROLS = dict.fromkeys(control for view in VIEWS.values() for control in view.controls)  # each once
DEFAULTS = {"view": "sentence"} | {control.name: control.default for control in CONTROLS}


def read_form(sent: dict[str, str]) -> tuple[Form, View]:
    """The form and the view that it asks for. What a first page does not say has its default."""
    form = Form(sent if sent.get("typed") else DEFAULTS | sent)
    if form["view"] not in VIEWS:
        raise InputError(f"There is no view {form['view'][:40]!r}; choose from {', '.join(VIEWS)}.")
    return form, VIEWS[form["view"]]


def page(xray: Xray, sent: dict[str, str], saved: str = "") -> str:
    """The whole page; `saved` is what `save` adds."""
    form, view = read_form(sent)
    try:
        note, result = "", view.result(xray, form)
    except InputError as error:
        note, result = escape(str(error)), ""
    controls = "".join(tag("div", control.draw(form[control.name]), hidden=control not in view.controls, class_=" ".join(
        some.name for some in VIEWS.values() if control in some.controls)) for control in CONTROLS)
    tabs = choice("view", {some.name: f"{some.chapter}: {some.title}" for some in VIEWS.values()}).draw(form["view"])
    filled = {"policy": escape(POLICY), "style": STYLE, "name": escape(xray.main.name), "tabs": tabs, "controls": controls,
              "note": note, "result": result, "saved": saved,
              "save": "" if saved else '<button name="save" value="1" formaction="/save">Save this page</button>',
              "noscript": "Without JavaScript this page shows one state." if saved else "<button>Show</button>"}
    return re.sub("{{(.*?)}}", lambda found: filled[found[1]], PAGE)


def save(xray: Xray, sent: dict[str, str]) -> str:
    """The page with all that its view lists as `saved`, to be opened from a file, without Python.

    Raises:
        InputError: if it would be too large, or cannot be computed.
    """
    form, view = read_form(sent)
    changes, views = [{}, *view.saved(xray)], {}
    names = sorted({name for change in changes for name in change})
    for change in changes:
        state = Form({**form, **change})
        views["&".join(f"{name}={state[name]}" for name in names if state[name])] = view.result(xray, state)
    content = json.dumps({"names": names, "note": NOTE, "views": views}).encode()
    packed = base64.b64encode(gzip.compress(content, mtime=0)).decode()
    text = page(xray, {**form, "typed": "1"}, tag("script", packed, type="application/octet-stream", id="saved"))
    if len(text) > MOST_SAVED:
        raise InputError(f"The saved page would have {len(text):,} bytes, more than {MOST_SAVED:,}; save a shorter text.")
    return text


def answering(xray: Xray) -> Callable[[Request], Answer]:
    """What the server calls for each request. One at a time: all of them use the same models."""
    lock = threading.Lock()

    def answer(request: Request) -> Answer:
        with lock:
            form, view = read_form(request.form())
            if request.path == "/save":
                return Answer(save(xray, form), headers=(("Content-Disposition", "attachment; filename=xray.html"),))
            return Answer(view.result(xray, form) if request.path == "/result" else page(xray, form))

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
    args = parse()
    read_form({"view": args.view})
    model, tokenizer = load_pretrained(args.model)
    other = args.other or (args.model if args.code else None)
    main = Opened(args.code or args.model, own_model(args.code, args.model, model) if args.code else model, tokenizer)
    xray = Xray(main, Opened(other, *load_pretrained(other)) if other else None, bool(args.code), args.run,
                read_json(RECORDING, [{"tokens": int, "sentences": [[list]]}]) if RECORDING.exists() else [])
    DEFAULTS.update(view=args.view, sentence=DEFAULTS["sentence"] if args.sentence is None else args.sentence)
    if args.save:
        write_text(args.save, save(xray, {}))
        return say(f"Wrote {args.save} ({args.save.stat().st_size:,} bytes).")
    _ = main.means  # computed now, and not when the first head is clicked off
    LocalServer(answering(xray), args.host, args.port, POLICY).serve("Ctrl-C ends.")


if __name__ == "__main__":
    options.run_command(main)
