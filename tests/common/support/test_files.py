import hashlib
import math
import os
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from common.support.files import (
    InputError,
    Journal,
    Within,
    check,
    is_temporary,
    is_there,
    read_json,
    sha256,
    write_json,
    write_text,
    write_whole,
)

ENTRY: dict = {}  # any object


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")

    def fail(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(tmp_path / "a.txt", fail)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_others_may_read_what_was_written(tmp_path):
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_keeps_every_letter(tmp_path):
    write_json(tmp_path / "a.json", {"text": "Zürich — \u2028 ok"})
    assert read_json(tmp_path / "a.json") == {"text": "Zürich — \u2028 ok"}
    assert "Zürich" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_sha256_is_that_of_the_content(tmp_path):
    content = b"x" * 3_000_000
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_a_journal_only_grows(tmp_path):
    path = tmp_path / "new" / "votes.jsonl"
    journal = Journal(path, ENTRY, "no entry")
    for entry in ({"a": 1}, {"text": "two\nlines \u2028 and ü"}):
        journal.append(entry)
    before = path.read_bytes()
    again = Journal(path, ENTRY, "no entry")
    assert again.entries == journal.entries == [{"a": 1}, {"text": "two\nlines \u2028 and ü"}]
    again.append({"b": 2})
    assert path.read_bytes().startswith(before) and Journal(path, ENTRY, "no entry").entries[2] == {"b": 2}


def test_a_journal_survives_a_cut(tmp_path):
    path = tmp_path / "votes.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": 2')
    journal = Journal(path, ENTRY, "no entry")
    journal.append({"c": 3})
    assert Journal(path, ENTRY, "no entry").entries == [{"a": 1}, {"c": 3}]
    path.write_bytes(b'{"a": 1}\nhello\n')
    with pytest.raises(InputError, match="line 2 is no entry"):
        Journal(path, ENTRY, "no entry")
    assert path.read_bytes() == b'{"a": 1}\nhello\n'


@pytest.mark.parametrize("write", [
    lambda path: path.write_bytes(b"0" * 4000), lambda path: torch.save(torch.zeros(1000), path),
    lambda path: save_file({"a": torch.zeros(1000)}, path)], ids=["python", "torch", "safetensors"])
def test_a_full_disk_is_told_with_the_files_own_name(tmp_path, write):
    resource = pytest.importorskip("resource")  # not on Windows
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            write_whole(tmp_path / "a", write)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(tmp_path / "a") and caught.value.strerror and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("make", "words"), [
    (os.mkfifo, "it is a pipe or a device, not a file"), (Path.mkdir, "it is a folder, not a file"),
    (lambda path: path.symlink_to("/dev/zero"), "it is a pipe or a device"),
    (lambda path: path.symlink_to("nowhere"), "no such"), (lambda path: path.symlink_to(path), "cannot be read")],
    ids=["pipe", "folder", "device", "nowhere", "circles"])
def test_only_files_are_read(make, words, tmp_path):
    path = tmp_path / "a"
    make(path)
    assert is_there(path)
    for read in (read_json, sha256, lambda path: Journal(path, ENTRY, "no entry")):
        with pytest.raises((InputError, OSError)) as caught:
            read(path)
        assert read is sha256 or words in str(caught.value)
    (tmp_path / "real").write_text("{}")
    (tmp_path / "link").symlink_to("real")
    assert read_json(tmp_path / "link") == {}


@pytest.mark.parametrize(("kind", "value"), [
    (float, 10**400), (float, math.inf), (float, math.nan), (Within(int, 0, 9), 10), (Within(int, 0, 9), -1),
    (Within(float, 0, math.inf), math.nan), (Within(float, 0, 1), 10**400), (Within(int, 0, 9), True),
    (Within(int, 0, 9), 1.0)])
def test_numbers_have_ranges(kind, value):
    with pytest.raises(ValueError):
        check({"a": value}, {"a": kind})
    assert check({"a": 1}, {"a": kind}) is None
    assert check(math.inf, Within(float, 0, math.inf)) is None


def test_journals_of_several_processes_share_a_file(tmp_path):
    path = tmp_path / "a.jsonl"
    one, two = Journal(path, ENTRY, "no entry"), Journal(path, ENTRY, "no entry")
    one.append({"a": 1})
    two.append({"b": 2})
    one.append({"c": 3})
    assert one.entries == Journal(path, ENTRY, "no entry").entries == [{"a": 1}, {"b": 2}, {"c": 3}]
    with open(path, "ab") as file:
        file.write(b'{"half')  # another one was killed
    two.append({"d": 4})
    assert [len(entry) for entry in Journal(path, ENTRY, "no entry").entries] == [1] * 4
    journals = [Journal(path, ENTRY, "no entry") for _ in range(8)]
    threads = [threading.Thread(target=lambda j=j: [j.append({"e": i}) for i in range(20)]) for j in journals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Journal(path, ENTRY, "no entry").entries) == 164


def test_a_users_own_file_is_not_taken_for_a_temporary_one():
    assert not any(is_temporary(Path(name)) for name in (".notes.7.tmp", "notes.7.unfinished", ".notes.unfinished", "a.tmp"))
    assert is_temporary(Path(".run.json.7.unfinished"))
