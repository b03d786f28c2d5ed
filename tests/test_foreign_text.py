"""What reads foreign text takes time in proportion to it, whatever the text repeats, and gives back a sentence at most.

(The judge's replies have a test of their own, in `ch_instruct/evaluation/test_judge.py`.)
"""

import gzip
import json
import time
from collections.abc import Callable
from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ch_instruct.chat import Chat
from ch_instruct.evaluation.judge_server import JudgeServer
from ch_instruct.records import load_records, save_records
from ch_instruct.scoring import normalise
from ch_instruct.support import data_files
from ch_instruct.support.data_files import read_csv, read_file, read_json_rows
from ch_instruct.support.data_forms import to_record
from ch_instruct.support.public_sets import is_hub_id
from common.lora import THEIR_NAME
from common.support.console import shorten, table
from common.support.files import InputError, parse_json
from common.support.local_server import LocalServer, Request
from common.support.options import one_line
from common.support.public_form import TRANSPOSED
from common.tokenizer import Tokenizer
from notebooks.exercises.check import BORROWED
from tests.ch_instruct.test_records import save

KEY = "abcabcabd\\abcab"  # repeats itself, as no key does


@pytest.fixture(scope="module")
def readers(tmp_path_factory) -> list[Callable[[str], object]]:
    """All parsers of text that others write."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUDGE_API_KEY", KEY)
        hide = JudgeServer("http://localhost:9/v1", "m", 1.0)._key
    server = LocalServer(lambda request: None, "127.0.0.1", 0)
    server.server_close()

    def refused(read: Callable[[str], object]) -> Callable[[str], object]:
        def quietly(text: str) -> object:
            with pytest.raises(InputError):
                return read(text)

        return quietly

    return [Tokenizer.gpt2().encode, one_line, shorten, normalise, is_hub_id, server.is_ours, THEIR_NAME.fullmatch,
            TRANSPOSED.fullmatch, BORROWED.findall, lambda text: hide.sub("", text),
            lambda text: Request("POST", "/ask", "", text).form(),
            refused(lambda text: to_record({text: "a", "id": 1}, "here")), lambda text: read_json_rows(text.encode(), "here"),
            lambda text: read_csv(text.encode(), "here"), lambda text: table([text], [[text]])]


PIECES = [*" \n\t\u00a0aA1_-/.,;&=[]{}:", '"', "aB", "%41", "import ", "from", "h.1.attn.", "base_model.model.", "\\",
          "\\u0061", KEY[:-1], "\x1b", "\U0001f600", "e\u0301", "\u200d"]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(again=st.lists(st.sampled_from(PIECES), min_size=1, max_size=3), run=st.sampled_from([1, 100, 9_999]),
       ends=st.lists(st.sampled_from(PIECES), min_size=2, max_size=2))
def test_long_texts_are_read_in_proportion_to_their_length(readers, again, run, ends):
    """Runs of one piece, parted by another: a pattern that begins anew at each place of a run would need hours."""
    many = again[0] * run + "".join(again[1:])
    text = ends[0] + many * (100_000 // len(many) + 1) + ends[1]
    for read in readers:
        started = time.process_time()
        try:
            read(text)
        except InputError as error:
            assert "\n" not in str(error)
        assert time.process_time() - started < 3, read


@pytest.mark.slow
def test_a_key_or_column_that_comes_twice_among_many_is_found_at_once(tmp_path):
    names = [f"k{n}" for n in range(200_000)] + ["k199999"]
    started = time.process_time()
    [row] = read_json_rows(("{" + ", ".join(f'"{name}": 1' for name in names) + "}").encode(), "here")
    assert row[None] == "k199999"
    with pytest.raises(InputError, match="the column 'k199999' twice"):
        read_csv((",".join(names) + "\n").encode(), "here")
    assert time.process_time() - started < 5


@pytest.mark.parametrize("levels", [101, 300, 600, 900])
def test_what_is_nested_too_deep_to_be_written_again_is_refused(levels, tmp_path):
    deep = reduce(lambda inner, _: [inner], range(levels), 0)
    for name in ("a.json", "a.jsonl"):
        with pytest.raises(InputError, match="nested more than 100 levels deep"):
            load_records(save(tmp_path / name, [{"instruction": "a", "output": "b", "meta": deep}]))
    with pytest.raises(ValueError, match="nested"):
        parse_json(json.dumps(deep))


def test_what_is_nested_less_is_written_again(tmp_path):
    deep = reduce(lambda inner, _: {"a": [inner]}, range(45), 0)
    loaded = load_records(save(tmp_path / "a.json", [{"instruction": "a", "output": "b", "meta": deep}]))
    for name in ("b.json", "b.jsonl"):
        save_records(tmp_path / name, loaded.records)
        assert load_records(str(tmp_path / name)).records == loaded.records


@pytest.mark.slow
def test_a_packed_file_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(data_files, "MOST_UNPACKED", 1 << 20)
    rows = json.dumps([{"instruction": "a", "output": "b" * 5000}] * 200)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(rows.encode()))  # well packed, but short
    assert len(read_file(tmp_path / "a.json.gz")) == 200
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(b" " * (50 << 20)))
    with pytest.raises(InputError, match="unpacks to more than 200 times its size"):
        read_file(tmp_path / "b.json.gz")


@pytest.mark.parametrize("name", ["a\0.json", "\0", "dangling.json", "here.json", "a" * 300 + ".json", "here.json/b.json"])
def test_a_conversation_is_not_saved_under_a_name_that_cannot_be_new(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dangling.json").symlink_to("nowhere")
    (tmp_path / "here.json").write_text("mine")
    chat = object.__new__(Chat)
    chat.messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert chat.command(f"/save {name}")
    assert capsys.readouterr().out.startswith("[") and (tmp_path / "dangling.json").is_symlink()
    assert (tmp_path / "here.json").read_text() == "mine" and len(list(tmp_path.iterdir())) == 2
