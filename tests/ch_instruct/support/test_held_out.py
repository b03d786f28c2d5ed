"""Which records a run was not trained on."""

import json
from pathlib import Path

import pytest

from ch_instruct.records import Loaded, split_places
from ch_instruct.support.held_out import choose_part as choose_loaded
from common.pretrained import save_pretrained
from common.support import runs
from common.support.files import InputError, write_json
from common.tokenizer import Tokenizer
from tests.conftest import assert_refused
from tests.models import make_model

RECORDS = [{"instruction": f"q{n}", "input": "", "output": f"a{n}"} for n in range(60)]


def choose_part(records: list[dict], models: list[str], part: str) -> list[dict]:
    found = choose_loaded(Loaded(records, [2 * n for n in range(len(records))]), models, part)
    assert [records[row // 2] for row in found.rows] == found.records
    return found.records


def make_run(folder: Path, records: list[dict], seed: int) -> str:
    save_pretrained(make_model(n_positions=512), Tokenizer.from_merges([]), folder)
    write_json(folder / "run.json", {"options": {"seed": seed}, "facts": {"data_sha256": runs.data_hash(records)}})
    return str(folder)


def test_records_that_a_run_learnt_from_are_told_and_left_out(tmp_path, capsys):
    one, two = (make_run(tmp_path / name, RECORDS, seed) for name, seed in (("one", 3), ("two", 4)))
    assert choose_part(RECORDS, [one], "all") == RECORDS
    assert f"Warning: {one} learnt from most of these records; --part test" in capsys.readouterr().out
    held_out = [split_places(RECORDS, seed)["test"] for seed in (3, 4)]
    assert choose_part(RECORDS, [one], "test") == [RECORDS[i] for i in sorted(held_out[0])]
    assert "Asked are the 6 of 60 records that were held out" in capsys.readouterr().out
    both = sorted(set(held_out[0]) & set(held_out[1]))
    if both:
        assert choose_part(RECORDS, [one, two], "test") == [RECORDS[i] for i in both]
    else:
        with pytest.raises(InputError, match="no record was held out from all"):
            choose_part(RECORDS, [one, two], "test")


def test_a_model_below_a_runs_folder_learnt_what_the_run_did(tmp_path, capsys):
    make_run(tmp_path / "run", RECORDS, 3)
    below = str(tmp_path / "run" / "seed-0" / "ntp")
    save_pretrained(make_model(n_positions=512), Tokenizer.from_merges([]), Path(below))
    assert choose_part(RECORDS, [below, "classroom"], "test") == [RECORDS[i] for i in sorted(split_places(RECORDS, 3)["test"])]
    assert "nothing shows which of these records classroom learnt from" in capsys.readouterr().out
    (tmp_path / "run" / "run.json").write_text('["of another program"]')
    assert choose_part(RECORDS, [below], "all") == RECORDS and capsys.readouterr().out == ""


@pytest.mark.parametrize("seed", ["x", None, -1, 2.5])
def test_a_run_whose_seed_is_damaged_is_refused(seed, tmp_path):
    one = make_run(tmp_path / "one", RECORDS, seed)
    with pytest.raises(InputError, match=r"run\.json is no run\.json of a run .*put it back"):
        choose_part(RECORDS, [one], "all")


def test_a_model_that_was_trained_on_other_records_is_asked_all_without_a_word(tmp_path, capsys):
    other = make_run(tmp_path / "other", RECORDS[1:], 0)
    assert choose_part(RECORDS, [other, "classroom"], "all") == RECORDS and capsys.readouterr().out == ""
    with pytest.raises(InputError, match="no run folder that was trained on this file"):
        choose_part(RECORDS, [other], "test")
    named = [record | {"split": "test" if n % 7 == 0 else "train"} for n, record in enumerate(RECORDS)]
    assert choose_part(named, [other], "test") == named[::7] == choose_part(named[::7], [other], "test")


@pytest.mark.slow
def test_respond_takes_the_held_out_ones(in_process, tmp_path):
    (tmp_path / "cwd").mkdir(exist_ok=True)
    (tmp_path / "cwd" / "d.json").write_text(json.dumps(RECORDS))
    line = ["ch_instruct/respond.py", "--model", make_run(tmp_path / "run", RECORDS, 3), "--data", "d.json", "--part", "test",
            "--max-new-tokens", 2, "--out", "a.json"]
    assert in_process(*line).returncode == 0
    asked = [answer["instruction"] for answer in json.loads(Path("a.json").read_text())]
    assert asked == [RECORDS[i]["instruction"] for i in sorted(split_places(RECORDS, 3)["test"])]
    assert_refused(in_process(*line[:2], "classroom", *line[3:-1], "b.json"), "--part test: classroom is no run folder")
