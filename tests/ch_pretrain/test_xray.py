"""The X-ray: its figures are those of the code they come from, what is typed stays text, a real browser drives each view."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path

import pytest
import torch

from ch_delift.utility import plain_utility
from ch_instruct.collate import collate
from ch_instruct.encoding import encode_prompt, encode_record
from ch_instruct.prompts import chat_template, format_prompt
from ch_instruct.support import xray_views
from ch_instruct.support.xray_views import FIELDS, FIRST, RECORDS
from ch_pretrain import inside, xray
from ch_pretrain.lab import growing
from ch_pretrain.lab.look_back import LOOKS_FILE, losses_of_copies, read_looks
from ch_pretrain.support.xray_parts import Form, Opened, Xray
from ch_pretrain.support.xray_views import read_sentence
from ch_sftmix.mixup import mixup_loss
from common.losses import next_token_loss
from common.pretrained import load_pretrained, save_pretrained
from common.support.files import InputError
from common.support.local_server import LocalServer
from common.support.verify import layer_differences
from common.tokenizer import Tokenizer
from tests.conftest import ROOT, assert_refused, open_browser, run_here
from tests.models import SMOLLM2_TEMPLATE, make_model

TWICE = " mill sun dog lamp tree mill sun dog lamp tree"
SCRIPT = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
RECORDING = json.loads(xray.RECORDING.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def classroom() -> Xray:
    model, tokenizer = load_pretrained("classroom")
    return Xray(Opened("classroom", model, tokenizer), recording=RECORDING)


@pytest.fixture
def tiny(tokenizer) -> Xray:
    """Random, for bytes, with room for a record; and another one that is built alike."""
    other = make_model(n_positions=1024)
    with torch.no_grad():
        other.h[1].mlp.c_fc.weight.add_(0.5)
    return Xray(Opened("tiny", make_model(n_positions=1024), tokenizer), Opened("other", other, tokenizer), recording=[
        {"tokens": 1, "first_copy": 3.0, "second_copy": 2.9, "induction": 0.1, "sentences": [[["a", None, "b", 0.5]]] * 5}])


def result(some: Xray, view: str, **changed: str) -> str:
    """What a view shows, as HTML."""
    return xray.shown(some, *xray.read_form(some, {"view": view} | changed))


def bold(html: str) -> list[float]:
    """The numbers in bold of the sentence about the loss."""
    told = re.search('<p id="loss">(.*?)</p>', html, re.S).group(1)
    return [float(number) for number in re.findall(r"<b>([-+\d.]+)</b>", told)]


@pytest.mark.slow
def test_losses_of_the_sentence_are_the_models(classroom):
    model, tokenizer = classroom.main.model, classroom.main.tokenizer
    ids = torch.tensor([tokenizer.encode("The capital of Peru is Lima.")])
    total, count = next_token_loss(model, (ids[:, :-1], ids[:, 1:]))
    assert bold(result(classroom, "sentence", sentence="The capital of Peru is Lima.")) == [
        pytest.approx(total.item() / count, abs=0.006)]
    twice = torch.tensor([tokenizer.eot_id, *tokenizer.encode(TWICE)])
    assert bold(result(classroom, "sentence", sentence=TWICE, start="on")) == [
        pytest.approx(loss, abs=0.006) for loss in losses_of_copies(model, twice).mean(dim=1).tolist()]


@pytest.mark.slow
def test_the_last_row_and_the_bars_are_the_models_prediction(classroom):
    main = classroom.main
    ids = torch.tensor(main.tokenizer.encode("The capital of Norway is"))
    with torch.no_grad():
        p = main.model(ids[None])[0].softmax(dim=-1)
    html = result(classroom, "sentence", at="1")
    last = re.search(r"= prediction</th>(.*?)</tr>", html).group(1)
    assert re.findall(r">([^<]+)</td>", last) == main.words(p.argmax(dim=-1))
    bars = [float(share) for share in re.findall(r"</i>([\d.]+)%", html)]
    expected = p[1].topk(8).values.tolist()
    assert bars == [pytest.approx(100 * share, abs=0.06) for share in [*expected, 1 - sum(expected)]]
    html = result(classroom, "sentence", at="1", temperature="0.5", top_k="2")
    bars = [float(share) for share in re.findall(r"</i>([\d.]+)%", html)]
    two = p[1].topk(2).values.square()  # p to the power 1 / temperature
    assert bars[:2] == [pytest.approx(100 * share, abs=0.06) for share in (two / two.sum()).tolist()] and bars[2:] == [0.0] * 7


@pytest.mark.slow
def test_a_head_that_is_off_gives_its_mean(classroom):
    main = classroom.main
    ids = torch.tensor([main.tokenizer.eot_id, *main.tokenizer.encode(TWICE)])
    whole = bold(result(classroom, "sentence", sentence=TWICE, start="on"))
    html = result(classroom, "sentence", sentence=TWICE, start="on", **{"off-2-2": "on"})
    found: list[torch.Tensor] = []
    projection = main.model.h[2].attn.c_proj
    hook = projection.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0].clone()))
    with torch.no_grad(), inside.without_heads(main.model, [(2, 2)], main.means):
        main.model(ids[None])  # the hook that was there first saw what the heads really fetched
        expected = losses_of_copies(main.model, ids).mean(dim=1).tolist()
    hook.remove()
    assert bold(html) == [*(pytest.approx(loss, abs=0.006) for loss in expected), *whole]
    assert bold(html)[1] > whole[1] + 1  # the second copy gets worse
    assert len(found) == 2 and "checked" in re.search(r'name="off-2-2"[^>]*', html).group()


@pytest.mark.slow
def test_who_matters_is_what_each_head_alone_does(classroom):
    main, ids = classroom.main, torch.tensor([classroom.main.tokenizer.eot_id, *classroom.main.tokenizer.encode(TWICE)])[:9]
    for off in ([], [(2, 2)]):  # the ranking is of the model as it is shown
        switches = {"off-{}-{}".format(*one): "on" for one in off}
        html = result(classroom, "sentence", sentence=TWICE, start="on", rank="on", at="8", **switches)
        rows = re.findall(r'<th scope="row">layer (\d), head (\d): ([^<]+)</th><td>([-+][\d.]+)<', html)
        assert len(rows) == 8 and float(rows[0][3]) == min(float(row[3]) for row in rows) < 0 and "the 8 of 16 heads" in html
        assert all(f'alt="layer {layer}, head {head}: {habit}"' in html for layer, head, habit, _ in rows)
        with torch.no_grad(), inside.without_heads(main.model, off, main.means):
            p = main.model(ids[None])[0, -1].softmax(dim=-1)
            with inside.without_heads(main.model, [(int(rows[0][0]), int(rows[0][1]))], main.means):
                without = main.model(ids[None])[0, -1].softmax(dim=-1)
        assert float(rows[0][3]) == pytest.approx(100 * (without[p.argmax()] - p.max()).item(), abs=0.06)
        said, here = main.words([int(p.argmax()), int(ids[-1])])
        assert f"Which heads make the prediction {said} after {here}?" in html
    assert 'alt="layer 2, head 2: off"' in html


def records(some: Xray, style: str = "alpaca") -> list:
    return [encode_record(FIRST[box], some.main.tokenizer, style) for box in "ab"]


@pytest.mark.slow
def test_losses_of_records_are_those_of_training(tiny):
    for style in ("alpaca", "phi3"):
        for loss_on in ("response", "all"):
            inputs, targets = collate(records(tiny, style), tiny.main.tokenizer.eot_id, loss_on)
            total, count = next_token_loss(tiny.main.model, (inputs, targets))
            html = result(tiny, "record", style=style, loss_on=loss_on)
            assert bold(html) == [pytest.approx(total.item() / count, abs=0.0006)]
            assert html.count('class="asked"') == count and html.count("&lt;end&gt; ") == 2
            without = result(tiny, "record", style=style, loss_on=loss_on, end="off")
            assert without.count('class="asked"') == count - 2 and "&lt;end&gt; " not in without
            assert 'class="padding"' in html


def test_between_two_records_is_the_mixup_of_training(tiny):
    inputs, targets = collate(records(tiny), tiny.main.tokenizer.eot_id)
    with torch.no_grad():
        hidden = tiny.main.model.hidden_states(inputs)
        for lam in (0.0, 0.3, 1.0):
            total, count = mixup_loss(tiny.main.model, hidden[:1], targets[:1], hidden[1:], targets[1:], torch.tensor([lam]))
            html = result(tiny, "between", lam=str(lam))
            assert bold(html) == [pytest.approx(total.item() / count, abs=0.0006)] and f"each of {count} mixed" in html


@pytest.mark.slow
def test_utilities_are_those_of_selection(tiny):
    a, b = records(tiny)
    html = result(tiny, "example")
    expected = plain_utility(tiny.main.model, tiny.main.tokenizer, [a], [b])[0, 0]
    assert bold(html) == [pytest.approx(expected, abs=0.0006)]
    rows = re.findall(r'value="(b|\d+)"[^>]*>([-+][\d.]+) [^<]*</label></th><td>([\w ]+)</td>', html)
    assert sorted(family == "capital" for _, _, family in rows) == [False] * 6 + [True] * 4  # the fifth is B, shown once
    assert [float(utility) for _, utility, _ in rows] == sorted((float(utility) for _, utility, _ in rows), reverse=True)
    for number, utility, _ in rows[::4]:
        assert bold(result(tiny, "example", pick=number)) == [pytest.approx(float(utility), abs=0.0006)]
    other = {"a-instruction": "Name the capital of Peru.", "a-output": "Lima."}
    kept = set(re.findall(r'value="(\d+)"', result(tiny, "example", **other)))
    left = next(number for number, _, _ in rows if number not in {*kept, "b"})
    assert 'value="b" checked' in result(tiny, "example", pick=left, **other)  # it is not among the suggestions any more
    same = {f"b-{field}": RECORDS[int(left)][field] for field in FIELDS}
    assert f'value="{left}"' not in result(tiny, "example", **same)  # B stands there once


def test_two_models_say_what_each_says(tiny, monkeypatch):
    with torch.no_grad():
        tiny.other.model.h[1].mlp.c_proj.weight.normal_(generator=torch.Generator().manual_seed(0))
    html, words = result(tiny, "two", sentence="Hello"), []
    for opened in (tiny.main, tiny.other):
        with torch.no_grad():
            p, token = opened.model(torch.tensor([opened.tokenizer.encode("Hello")]))[0, -1].softmax(dim=-1).max(dim=-1)
        words.append(f"{opened.word(int(token))} {p:.0%}")
    assert f"After o, tiny: {words[0]}; other (marked ≠): {words[1]}." in html
    rows = re.findall("<tr><th scope=\"row\">(?:embeddings|after layer)[^<]*</th><td style.*?</tr>", html)
    assert [re.findall("<td.*?</td>", row)[-1].count("≠") for row in rows] == [0, 0, 1] and "differ from layer 1 on" in html
    monkeypatch.setattr(tiny.other.tokenizer, "chat_template", chat_template("phi3"))
    asked = result(tiny, "two", sentence="Hello", asked="on")
    monkeypatch.undo()
    assert asked == result(tiny, "two", sentence=format_prompt({"instruction": "Hello"}, "phi3"))
    assert ['value="two" disabled' in xray.page(some, {}) for some in (Xray(tiny.main), tiny)] == [True, False]


def test_a_question_to_a_model_of_chatml_has_its_control_tokens():
    """And the system message of its template, as in training."""
    tokenizer = Tokenizer([bytes([byte]) for byte in range(256)], list(range(256)),
                          {"<|endoftext|>": 256, "<|im_start|>": 257, "<|im_end|>": 258})
    tokenizer.chat_template = SMOLLM2_TEMPLATE
    opened, seen = Opened("chat", make_model(vocab_size=259, n_positions=512), tokenizer), []
    views = {view.title: view for view in xray_views.VIEWS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xray_views, "TWO", xray_views.TWO._replace(
            result=lambda xray, form: seen.append(read_sentence(opened, form)[0].tolist()) or ""))
        views["Two models"].result(Xray(opened, opened), Form({"sentence": "Hi <|im_end|>", "asked": "on"}))
    assert seen == [encode_prompt({"instruction": "Hi <|im_end|>"}, tokenizer, "chatml")] and seen[0].count(258) == 2


def test_two_models_differ_first_where_verify_says(tiny):
    ids = torch.tensor([tiny.main.tokenizer.encode("Hello")])
    rows = layer_differences(tiny.main.model, tiny.other.model, ids)
    first = next(name for name, _, agrees in rows if not agrees)
    html = result(tiny, "two", sentence="Hello")
    assert first == "layer 1 mlp" and f"differ first in {first}" in html and "(marked ≠)" in html
    assert [f"<td>{difference:.1e}</td>" in html for _, difference, _ in rows] == [True] * len(rows)
    assert "Both compute the same" in result(Xray(tiny.main, tiny.main), "two")
    small = Opened("small", make_model(n_layer=1), tiny.main.tokenizer)
    assert "not built alike" in result(Xray(tiny.main, small), "two")


EXERCISE = "\n\n".join("".join(cell["source"]) for cell in json.loads(
    (ROOT / "notebooks/exercises/source/05/05.ipynb").read_text(encoding="utf-8"))["cells"]
    if cell["cell_type"] == "code" and "".join(cell["source"]).startswith("class ") and "nn.Module" in "".join(cell["source"])
    and not cell["metadata"].get("nbgrader", {}).get("grade"))  # no test


@pytest.mark.slow
@pytest.mark.parametrize(("right", "wrong", "place"), [
    ("", "", ""), (" / (D // self.n_head) ** 0.5", "", "layer 0 attention"),
    (".triu(S + 1)", ".triu(S + 2)", "layer 0 attention"), (".triu(S + 1)", ".triu(S)", "layer 0 attention"),
    ('approximate="tanh"', 'approximate="none"', "layer 0 mlp"),
    ("self.wte(ids) + self.wpe(", "self.wte(ids) - self.wpe(", "embeddings"), ("self.ln_f(x)", "x", "final LayerNorm")])
def test_a_readers_own_class_beside_the_right_one(right, wrong, place, tmp_path):
    assert right in EXERCISE
    file = tmp_path / "my_model.py"
    begin = "import torch\nimport torch.nn.functional as F\nfrom torch import Tensor, nn\n\n"
    file.write_text(begin + EXERCISE.replace(right, wrong, 1))
    model, tokenizer = load_pretrained("classroom")
    own = xray.own_model(f"{file}:GPT", "classroom", model)
    mine, theirs = Opened("mine", own, tokenizer), Opened("classroom", model, tokenizer)
    html = xray.page(Xray(mine, theirs, True), {"view": "two"})
    assert (f"differ first in {place}. Likely cause: " if place else "Both compute the same") in html
    assert ("NaN or infinity" in html) == (wrong == ".triu(S)")  # the first token may not even look at itself
    if not place:
        assert result(Xray(mine), "sentence") == result(Xray(theirs), "sentence")
        assert "By how many points" in result(Xray(mine, own_code=True), "sentence", rank="on")
        with pytest.raises(InputError, match="without --code"):
            result(Xray(mine, own_code=True), "record")


@pytest.mark.parametrize(("options", "words"), [
    (["--code", "none.py:GPT"], ["--code none.py:GPT", "no such file"]), (["--code", "GPT"], ["--code GPT"]),
    (["--model", "gtp2"], ["There is no model 'gtp2'"]), (["--view", "all"], ["There is no view 'all'", "record"]),
    (["--save", "a.html", "word " * 300], ["302 tokens", "reads 1 to 255"]), (["--save", "a.html", ""], ["0 tokens"]),
    (["--save", "a.html", "--view", "two"], ["--other M"]),
    (["--run", "none", "--view", "growing", "--save", "a.html"], ["snapshots"])])
def test_bad_options_are_one_sentence(options, words, in_process):
    assert_refused(in_process("ch_pretrain/xray.py", *options), *words)
    assert not any(Path.cwd().iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("view", "form", "words"), [
    ("sentence", {"sentence": "x" * 1100}, "1100 tokens"), ("sentence", {"sentence": ""}, "0 tokens"),
    ("sentence", {"temperature": "hot"}, "temperature is 'hot'"), ("sentence", {"at": "9" * 5000}, "at is '999"),
    ("between", {"lam": "2"}, "lam is '2'"),
    ("between", {"lam": "nan"}, "from 0 to 1"), ("record", {"a-output": ""}, "Record A has no output"),
    ("record", {"a-input": "y" * 1000}, "Shorten a record"), ("example", {"b-input": "y" * 800}, "Shorten a record"),
    ("example", {"b-output": ""}, "Record B has no output"), ("growing", {"five": "x"}, "from 0 to 4"),
    ("record", {"style": "x"}, "form is 'x'"), ("growing", {"moment": "2"}, "from 1 to 1"), ("every", {}, "There is no view")])
def test_what_cannot_be_shown_is_one_sentence(view, form, words, tiny):
    with pytest.raises(InputError, match=re.escape(words)):
        result(tiny, view, **form)


@pytest.mark.slow
def test_no_numbers_are_one_sentence(tiny):
    with torch.no_grad():
        tiny.main.model.ln_f.weight[3] = float("nan")
    for view in ("sentence", "two", "record", "between", "example"):
        with pytest.raises(InputError, match="NaN or infinity"):
            result(tiny, view)
    assert "NaN or infinity" in xray.page(tiny, {})


@pytest.mark.slow
def test_what_is_typed_and_named_stays_text(tiny):
    tiny.main.name = SCRIPT
    texts = {name: SCRIPT for name in ("sentence", "a-instruction", "a-input", "a-output", "b-output")}
    for view in ("sentence", "two", "record", "between", "example"):
        page = xray.page(tiny, {"view": view} | texts)
        assert "role=\"status\"></p>" in page  # nothing went wrong
        assert page.count("<script>") == 1 and "<img src=x" not in page and "onerror=\"" not in page
        assert "&lt;script&gt;document.title" in page


def test_other_heads_than_there_are_and_what_is_not_known_change_nothing(tiny):
    plain = result(tiny, "sentence")
    assert result(tiny, "sentence", **{"off-9-9": "on", "head": "x", "at": "-3", "more": "1"}) == plain
    assert Form({})["anything"] == ""


@pytest.mark.slow
def test_a_chapter_shows_its_views_without_the_later_ones(tmp_path):
    assert list(xray.VIEWS) == ["sentence", "two", "growing", "record", "between", "example"]
    for chapter, count in (("ch_pretrain", 3), ("ch_instruct", 4)):
        (tmp_path / chapter / "support").mkdir(parents=True)
        (tmp_path / chapter / "support" / "xray_views.py").touch()
        assert list(xray.find_views(tmp_path)) == list(xray.VIEWS)[:count]


@pytest.mark.slow
def test_a_saved_page_that_is_too_large_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(xray, "MOST_SAVED", 5000)
    with pytest.raises(InputError, match="save a shorter text"):
        xray.save(tiny, {"view": "two"})


@pytest.fixture(scope="module")
def training(tmp_path_factory) -> Path:
    """A very short training with snapshots."""
    folder = tmp_path_factory.mktemp("training")
    run_here("ch_pretrain/train.py", "--smoke", "--snapshots", 4, "--precision", "fp32", "--out", "run", folder=folder)
    return folder / "run"


@pytest.mark.slow
def test_snapshots_are_models_and_the_last_is_the_run(training):
    found = growing.snapshots_of(training)
    read = [int(line.split(",")[1]) for line in (training / "looking_back.csv").read_text().splitlines()[1:]]
    assert len(found) == 4 and int(found[-1].name) == read[-1] and found == sorted(found)
    model, tokenizer = load_pretrained(found[-1])
    kept = load_pretrained(training)[0].state_dict()
    best = growing.moment(found[-1])["loss"]
    assert all(tensor.shape == kept[name].shape for name, tensor in model.state_dict().items())
    assert (found[-1] / "model.safetensors").stat().st_size < 0.6 * (training / "model.safetensors").stat().st_size
    ids = tokenizer.encode(growing.FIVE[0])
    assert best > 0 and [word for word, *_ in growing.spoken(model, tokenizer, ids)] == [tokenizer.decode([i]) for i in ids]


@pytest.mark.slow
def test_a_recording_shows_what_the_snapshots_say(training, in_process, tmp_path, classroom):
    told = in_process("ch_pretrain/lab/growing.py", "--run", training, "--out", "growing.json").stdout
    recording = json.loads(Path("growing.json").read_text())
    assert "4 snapshots" in told and [len(one["sentences"]) for one in recording] == [5] * 4
    recorded = result(classroom._replace(recording=recording), "growing", moment="4", five="0")
    live = result(classroom._replace(run=training), "growing", moment="4")
    of_sentence = re.compile(r"After [\d.]+ thousand tokens.*", re.S)
    assert of_sentence.search(recorded).group() == of_sentence.search(live).group() != ""
    assert "snapshot 4 of 4, after" in live and "snapshot 1 of 4" in result(classroom._replace(run=training), "growing")
    pages = [xray.page(classroom._replace(**some), {"view": "growing"})
             for some in ({"run": training}, {"recording": recording})]
    shows = ['<div class="sentence two growing">' in page for page in pages]
    assert shows == [True, False] and [">Recorded sentence: <" in page for page in pages] == [False, True]
    one_only = result(classroom._replace(recording=recording[-1:]), "growing")
    assert "one measurement only" in one_only and one_only.count('h0"') == 3  # a point of each curve


def test_the_recording_says_when_the_shipped_base_began_to_look_back(classroom):
    html = result(classroom, "growing")
    begins = float(re.search(r"At ([\d.]+) million tokens the second copy", html).group(1))
    ticks = re.findall(r'<text [^>]*x="[\d.]+"[^>]*>([^<]+)</text>', html)
    assert len(ticks) == 15 and 'class="begins"' in html
    rows = read_looks(ROOT / "ch_pretrain" / LOOKS_FILE)  # of the shipped base itself, at 20 moments
    later = next(i for i, row in enumerate(rows) if row["second_copy"] < row["first_copy"] / 2)
    assert rows[later - 1]["tokens"] / 1e6 - 1.3 <= begins <= rows[later]["tokens"] / 1e6 + 1.3  # one measurement more or less
    assert "snapshot 1 of 40" in html and html.count("<polyline") == 3


def test_the_recordings_last_snapshot_says_what_the_shipped_base_says(classroom):
    """It was trained again, on another processor and with the learning rates of today: nearly the same."""
    last, model, tokenizer = classroom.recording[-1], classroom.main.model, classroom.main.tokenizer
    said = [growing.spoken(model, tokenizer, tokenizer.encode(text)) for text in growing.FIVE]
    assert [[word for word, *_ in one] for one in last["sentences"]] == [[word for word, *_ in one] for one in said]
    for recorded, now in zip(last["sentences"], said):
        assert sum(loss for _, loss, *_ in recorded[1:]) == pytest.approx(sum(loss for _, loss, *_ in now[1:]), rel=0.3)
    assert last["second_copy"] < 0.25 * last["first_copy"] and xray.RECORDING.stat().st_size < 500_000


@pytest.mark.slow
def test_a_model_of_other_sizes_is_shown_and_saved(tmp_path, in_process):
    save_pretrained(make_model(n_layer=1, n_head=2, n_positions=40), Tokenizer.from_merges([]), tmp_path / "m")
    told = in_process("ch_pretrain/xray.py", "--model", tmp_path / "m", "--save", "a b.html", "Hé\n<b>").stdout
    page = Path("a b.html").read_text()
    assert told == f"Wrote a b.html ({len(page.encode()):,} bytes).\n" and "↵" in page and "&lt;b&gt;" in page
    assert "http://" not in page and "https://" not in page and 'name="off-0-1"' in page


@pytest.mark.parametrize("view", ["sentence", "growing", "record", "between", "example"])
def test_the_sites_saved_pages_are_of_this_page(view):
    """Made by `python ch_pretrain/xray.py --view VIEW --save docs/xray/VIEW.html`, that of the sentence with a list twice."""
    text = (ROOT / "docs" / "xray" / f"{view}.html").read_text(encoding="utf-8")
    assert xray.SCRIPT in text and f'value="{view}" checked' in text and 'id="saved"' in text and len(text) < 200_000
    assert "<body>\n<main>" in text and '<th scope="col"></th>' not in text  # for screen readers
    for linking in ("ch_*/README.md", "notebooks/0*.ipynb"):
        assert sum(f"](../docs/xray/{view}.html)" in path.read_text(encoding="utf-8") for path in ROOT.glob(linking)) == 1


# --- in a real browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator:
    """One for all."""
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def server(classroom) -> Iterator[LocalServer]:
    """The shipped base beside one with half of an MLP."""
    other = Opened("<b>other</b>", *load_pretrained("classroom"))
    with torch.no_grad():
        other.model.h[2].mlp.c_proj.weight.mul_(0.5)
    server = LocalServer(xray.answering(classroom._replace(other=other)), "127.0.0.1", 0, xray.POLICY)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Hand:
    """What a person does with the page."""

    def __init__(self, browser):
        self.browser = browser

    def find(self, css: str):
        return self.browser.find_element("css selector", css)

    def html(self, css: str = "#result") -> str:
        return self.find(css).get_attribute("innerHTML")

    def do(self, act: Callable[[], object]) -> str:
        """Do something that changes the result, and wait until it has changed; the new one."""
        from selenium.webdriver.support.ui import WebDriverWait

        before = self.html()
        act()
        WebDriverWait(self.browser, 30).until(lambda _: self.html() != before)
        return self.html()

    def wait_for(self, css: str, words: str) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, 30).until(lambda _: words in self.find(css).text)

    def click(self, css: str) -> str:
        return self.do(lambda: self.browser.execute_script("arguments[0].click()", self.find(css)))

    def press(self, css: str) -> str:
        """By the keyboard."""
        return self.do(lambda: self.find(css).send_keys(" "))

    def type(self, name: str, text: str) -> str:
        box = self.find(f'[name="{name}"]')
        box.clear()
        return self.do(lambda: box.send_keys(text))

    def slide(self, name: str, value: str) -> str:
        return self.do(lambda: self.browser.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
            self.find(f'[name="{name}"]'), value))


@pytest.mark.slow
def test_the_views_in_a_browser(server, browser):
    hand = Hand(browser)
    browser.get(server.address)
    hand.find('[name="sentence"]').clear()
    hand.type("sentence", "The capital of Peru is")
    assert unescape(hand.html(".samples")).count("Lima") > 5
    hand.type("sentence", TWICE)
    first, second = bold(hand.click('[name="start"]'))
    assert second < 0.6 * first
    assert "what followed last time, " in hand.html()
    html = hand.press('[name="off-2-2"]')
    assert bold(html)[1] > second + 1 and hand.find('[name="off-2-2"]').is_selected()
    assert browser.execute_script("return document.activeElement.name") == "off-2-2"  # the keyboard goes on from there
    assert "Layer 2, head 3" in hand.click('[name="head"][value="2-3"]')
    assert "By how many points" in hand.click('[name="rank"]')
    asked = hand.find('label:has([name="rank"])').text
    assert "By how many points" in hand.click('[name="at"][value="3"]')  # the list follows
    assert hand.find('label:has([name="rank"])').text != asked
    assert hand.slide("temperature", "0.1") and hand.find('[name="temperature"] + output').text == "0.1"
    assert "<details open" in hand.do(lambda: hand.find(".said summary").click())
    assert "<details open" in hand.slide("temperature", "0.2")  # and stays so
    assert hand.find("#status").get_attribute("textContent") == hand.find("#loss").get_attribute("textContent")
    samples = hand.html(".samples")
    hand.do(lambda: hand.find('[name="again"]').click())
    assert hand.html(".samples") != samples

    assert "Two models" in hand.click('[name="view"][value="two"]') and not browser.find_elements("css selector", "#result b b")
    assert "differ first in layer 2 mlp" in hand.html("#first")
    assert "million tokens the second copy" in hand.click('[name="view"][value="growing"]')
    hand.do(lambda: hand.find("#result summary").click())
    assert "after 24.55 million" in hand.slide("moment", "40") and "<details open" in hand.html()
    assert not hand.find('[name="sentence"]').is_displayed()
    before = bold(hand.click('[name="view"][value="record"]'))
    assert bold(hand.click('[name="loss_on"][value="all"]')) != before
    assert bold(hand.click('[name="view"][value="between"]')) != bold(hand.slide("lam", "0.9"))
    hand.click('[name="view"][value="example"]')
    assert bold(hand.html()) != bold(hand.click('[name="pick"]:not(:checked)'))
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    hand.find('[name="a-output"]').send_keys(Keys.CONTROL + "a", Keys.DELETE)
    WebDriverWait(browser, 20).until(lambda _: "Record A has no output" in hand.find("#status").text)
    assert hand.find("#status").get_attribute("class") == "bad"
    assert float(hand.find("#result").value_of_css_property("opacity")) < 0.5
    hand.type("a-output", "Rome")
    assert hand.find("#result").value_of_css_property("opacity") == "1"

    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if not url.startswith((server.address, "data:", "chrome:"))] == []


@pytest.mark.slow
def test_saved_pages_in_a_browser(browser, classroom, training, tmp_path):
    some, hand = classroom._replace(run=training), Hand(browser)
    acts = {"sentence": ('[name="off-2-2"]', "with 1 off"), "record": ('[name="end"][value="off"]', "end: –"),
            "between": ("lam", "λ = 0.9"), "example": ('[name="pick"]:not(:checked)', "Utility"),
            "growing": ("moment", "snapshot 2 of 4, after")}
    for view, (act, words) in acts.items():
        file = tmp_path / f"{view}.html"
        file.write_text(xray.save(some, {"view": view, "sentence": TWICE, "start": "on"}))
        assert file.stat().st_size < 300_000
        browser.get(file.as_uri())
        changed = hand.click(act) if act.startswith("[") else hand.slide(act, {"lam": "0.9", "moment": "2"}[act])
        assert words in unescape(changed) and not hand.find('[name="sentence"]').is_enabled()
        assert hand.find("nav small").text == xray.NOTE
    # What is not held is said; without JavaScript the page shows what was seen.
    browser.get((tmp_path / "sentence.html").as_uri())
    hand.click('[name="off-2-2"]')
    browser.execute_script("arguments[0].click()", hand.find('[name="off-0-1"]'))
    hand.wait_for("#status", "does not hold that")
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get((tmp_path / "sentence.html").as_uri())
    text = browser.find_element("tag name", "body").text
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "second copy 4.5" in text and "with JavaScript" in text and "after layer 3 = prediction" in text


@pytest.mark.slow
def test_the_page_saves_itself(server, browser, tmp_path):
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    hand = Hand(browser)
    browser.get(server.address)
    hand.click('[name="view"][value="record"]')
    hand.type("a-output", "Cats & dogs")
    hand.find('[name="save"]').click()
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 60).until(lambda _: (tmp_path / "xray.html").exists())
    browser.get((tmp_path / "xray.html").as_uri())
    assert hand.find('[name="a-output"]').get_attribute("value") == "Cats & dogs"
    assert "end: –" in hand.click('[name="end"][value="off"]')
