"""Public data sets by name: fetched from a small hub on this machine, as the commands do."""

import json
import re

import pytest

from ch_instruct.support.public_sets import PUBLIC_SETS, choose_file, is_hub_id
from common.support.files import InputError
from tests.common.support.test_hub import LOAD_EACH, PAGE, closed_address, refusal, refusals, run, serving  # noqa: F401  one is a fixture

pytestmark = pytest.mark.slow

# Loads sets by name and prints the records of each as one line.
LOAD = """
import json, sys, time
from common.support import options
from ch_instruct.records import load_records
def load():
    print(json.dumps(load_records(name).records))
""" + LOAD_EACH

ALPACA = [{"instruction": "Add.", "input": "1 and 2", "output": "3", "text": "not wanted"},
          {"instruction": "Say hello.", "input": "", "output": "Hello."},
          {"instruction": "Say nothing.", "input": None, "output": None}]
DOLLY = [{"instruction": "Who?", "context": "It was Ann.", "response": "Ann.", "category": "closed_qa"},
         {"instruction": "Why?", "context": "", "response": "Because.", "category": "open_qa"}]
ULTRACHAT = [{"id": "0", "data": ["Hi.", "Hello!", "How are you?", "Well."]}, {"id": "1", "data": ["A?", "B.", "C?"]},
             {"id": "2", "data": ["A?"]}, {"id": "3", "data": ["A?", None]}, {"id": "4"}]


def as_file(name: str, rows: list) -> bytes:
    return (json.dumps(rows) if name.endswith(".json") else "\n".join(map(json.dumps, rows)) + "\n").encode()


@pytest.fixture(scope="module")
def fetched(tmp_path_factory):
    """A folder whose cache holds all sets, the sets as loaded, what was told, and the requests."""
    rows = {"dolly": DOLLY, "ultrachat": ULTRACHAT}
    repos = {known.repo: {known.file: as_file(known.file, rows.get(name, ALPACA)), "README.md": b"#", "other.parquet": b"P"}
             for name, known in PUBLIC_SETS.items()}
    folder = tmp_path_factory.mktemp("fetched")
    with serving({}) as hub:
        hub.repos = repos
        done = run("-c", LOAD, *PUBLIC_SETS, folder=folder, address=hub.address)
        assert done.returncode == 0, done.stderr
        requests = hub.requests
    lines = done.stdout.splitlines()
    loaded = [json.loads(line) for line in lines if line.startswith("[")]
    return folder, dict(zip(PUBLIC_SETS, loaded)), [line for line in lines if not line.startswith("[")], requests


def test_the_six_sets_are_known_and_pinned():
    assert list(PUBLIC_SETS) == ["alpaca", "alpaca-cleaned", "dolly", "medalpaca-flashcards", "medalpaca-wikidoc", "ultrachat"]
    for known in PUBLIC_SETS.values():
        assert re.fullmatch(r"[0-9a-f]{40}", known.revision) and known.file.endswith((".json", ".jsonl")) and known.licence


@pytest.mark.parametrize("name", ["alpaca", "alpaca-cleaned", "medalpaca-flashcards", "medalpaca-wikidoc"])
def test_alpaca_like_sets(fetched, name):
    assert fetched[1][name] == [{key: row[key] for key in ("instruction", "input", "output")} for row in ALPACA[:2]]
    assert f"--data {name}, left out, instruction, output or message empty: 1 (row 3)" in fetched[2]


def test_dolly_has_other_names_for_the_same(fetched):
    assert fetched[1]["dolly"] == [{"instruction": "Who?", "input": "It was Ann.", "output": "Ann.", "family": "closed_qa"},
                                   {"instruction": "Why?", "input": "", "output": "Because.", "family": "open_qa"}]
    assert not [line for line in fetched[2] if "--data dolly" in line]


def test_ultrachat_becomes_conversations(fetched):
    records = fetched[1]["ultrachat"]
    assert [[(m["role"], m["content"]) for m in record["messages"]] for record in records] == [
        [("user", "Hi."), ("assistant", "Hello!"), ("user", "How are you?"), ("assistant", "Well.")],
        [("user", "A?"), ("assistant", "B.")]]  # the question at the end has no answer to learn from
    assert records[0]["instruction"] == "How are you?" and records[0]["output"] == "Well."
    assert "--data ultrachat, left out, instruction, output or message empty: 3 (rows 3, 4, 5)" in fetched[2]


def test_source_and_licence_are_told_once(fetched):
    told = [line for line in fetched[2] if not line.startswith("--data")]
    assert len(told) == len(PUBLIC_SETS)
    for line, (name, known) in zip(told, PUBLIC_SETS.items()):
        assert line.startswith(f"{name}: ") and known.repo in line and known.licence in line


def test_only_the_file_is_fetched_in_the_pinned_revision(fetched):
    requests = [path for _, path in fetched[3]]
    assert not [path for path in requests if path.endswith((".parquet", "README.md"))]
    for known in PUBLIC_SETS.values():
        assert f"/api/datasets/{known.repo}/tree/{known.revision}" in requests


def test_a_fetched_set_needs_no_hub_afterwards(fetched, closed_address):  # noqa: F811
    done = run("-c", LOAD, "dolly", folder=fetched[0], address=closed_address, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == fetched[1]["dolly"]


def test_without_hub_and_cache_one_sentence_says_what_to_do(tmp_path, closed_address):  # noqa: F811
    sentence = refusal(run("-c", LOAD, "ultrachat", folder=tmp_path, address=closed_address))
    for words in ("ultrachat", "HF_HUB_OFFLINE", "HF_ENDPOINT", "--data FILE"):
        assert words in sentence


def test_a_repository_without_the_file_and_one_with_a_page_instead_are_refused(tmp_path):
    alpaca, dolly = PUBLIC_SETS["alpaca"], PUBLIC_SETS["dolly"]
    with serving({}) as hub:
        hub.repos = {alpaca.repo: {"README.md": b"#"}, dolly.repo: {dolly.file: PAGE}}
        sentences = refusals(run("-c", LOAD, "alpaca", "dolly", folder=tmp_path, address=hub.address))
    assert f"{alpaca.repo} has no {alpaca.file}" in sentences[0]
    assert "line 1 is no JSON" in sentences[1]


@pytest.mark.parametrize(("files", "chosen"), [
    (["README.md", "dataset_infos.json", "rows.csv"], "rows.csv"),
    (["test.jsonl", "train.jsonl"], "train.jsonl"),
    (["data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"], "data/train-00000-of-00001.parquet"),
    (["training.csv", "train/all.csv", "strain.csv"], "train/all.csv")])
def test_the_one_data_file_or_that_of_the_train_split_is_taken(files, chosen):
    assert choose_file("some/set", files) == chosen


@pytest.mark.parametrize(("files", "words"), [
    ([], "has no .json, .jsonl, .ndjson, .csv, .tsv, .parquet file (it has none)"),
    (["rows.txt.gz", "dataset_info.json"], "(it has dataset_info.json, rows.txt.gz)"),
    (["a.json", "b.json"], "2 files could be meant (a.json, b.json)"),
    ([f"train-{i}.parquet" for i in range(7)] + ["test.csv"], "7 files could be meant (train-0.parquet")])
def test_several_or_none_get_a_sentence_that_helps(files, words):
    with pytest.raises(InputError) as refused:
        choose_file("some/set", files)
    assert words in str(refused.value) and "--data FILE" in str(refused.value)


def test_hub_ids_and_files_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("yahma/alpaca-cleaned") and is_hub_id("a/b.c")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "rows.txt").touch()
    assert not any(map(is_hub_id, ["alpaca", "mine/rows.txt", "mine/no.json", "./a/b", "../a", "/a/b", "a/b/c", ""]))


def test_any_set_of_the_hub_by_its_id(tmp_path, closed_address):  # noqa: F811
    """Fetched once, one file of it; afterwards from the cache, whether the hub is away or not asked."""
    rows = [{"question": "1 + 1?", "answer": "2"}, {"question": "Sky?", "answer": "Blue."}]
    with serving({}) as hub:
        hub.repos = {"some/set": {"README.md": b"#", "data/train.jsonl": as_file(".jsonl", rows), "data/test.jsonl": b"{"},
                     "some/two": {"a.csv": b"", "b.csv": b""}}
        done = run("-c", LOAD, "some/set", "some/two", "no/set", folder=tmp_path, address=hub.address)
        fetched = [path for _, path in hub.requests if "resolve" in path]
    two, absent = refusals(done)
    told, records = done.stdout.splitlines()
    assert told.startswith("some/set: data/train.jsonl (revision 0123456)") and set(fetched) == {
        "/datasets/some/set/resolve/0123456789abcdef0123456789abcdef01234567/data/train.jsonl"}
    assert json.loads(records) == [{"instruction": "1 + 1?", "output": "2"}, {"instruction": "Sky?", "output": "Blue."}]
    assert "2 files could be meant (a.csv, b.csv)" in two and "no dataset 'no/set'" in absent
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        again = run("-c", LOAD, "some/set", "some/other", folder=tmp_path, address=closed_address, **environment)
        assert again.stdout == done.stdout and "--data FILE" in refusal(again)
