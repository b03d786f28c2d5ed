import hashlib

import pytest

from common.files import read_json, sha256, write_json, write_text, write_whole


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
