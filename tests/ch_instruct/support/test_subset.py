import json

import pytest

from ch_instruct.pipeline import take_subset
from ch_instruct.support.subset import read_subset, write_subset
from common.support.files import InputError


def test_what_is_written_is_read(tmp_path):
    write_subset(tmp_path / "s.json", [4, 0, 2], [3.0, 2.0, 1.0], {"data_sha256": "abc", "stage": "task"})
    assert read_subset(tmp_path / "s.json", "abc", 9) == [4, 0, 2]
    content = json.loads((tmp_path / "s.json").read_text())
    assert content.pop("command").startswith("python")
    assert content == {
        "ids": [4, 0, 2], "gains": [3.0, 2.0, 1.0], "data_sha256": "abc", "stage": "task"}


@pytest.mark.parametrize(("content", "words"), [
    ("{", "is no subset file"), ("[]", "is no subset file"), ('{"ids": [1]}', "is no subset file"),
    ('{"ids": 3, "data_sha256": "abc"}', "is no subset file"), ('{"ids": [], "data_sha256": "abc"}', "at least one"),
    ('{"ids": [1, 1], "data_sha256": "abc"}', "must be different"),
    ('{"ids": [9], "data_sha256": "abc"}', "from 0 to 8"), ('{"ids": [1], "data_sha256": null}', "is no subset file"),
    ('{"ids": [-1], "data_sha256": "abc"}', "from 0 to 8"),
    ('{"ids": ["1"], "data_sha256": "abc"}', "not a whole number"),
    ('{"ids": [1], "data_sha256": "xyz"}', "chosen from other data")])
def test_what_is_no_subset_of_this_data_is_refused(content, words, tmp_path):
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(InputError, match=words):
        read_subset(tmp_path / "s.json", "abc", 9)


def test_only_training_records_are_taken(tmp_path, capsys):
    """Ids in another part, as with another seed of the split, are counted and told, never trained on."""
    write_subset(tmp_path / "s.json", [5, 1, 3], [3.0, 2.0, 1.0], {"data_sha256": "abc"})
    assert take_subset([3, 0, 1, 2], tmp_path / "s.json", "abc", 9) == [3, 1]
    assert "2 of 4 training records (1 of its ids are in other parts" in capsys.readouterr().out


def test_a_subset_without_training_records_is_refused(tmp_path):
    write_subset(tmp_path / "s.json", [5], [1.0], {"data_sha256": "abc"})
    with pytest.raises(InputError, match="names no record of the training part"):
        take_subset([0, 1, 2], tmp_path / "s.json", "abc", 9)
