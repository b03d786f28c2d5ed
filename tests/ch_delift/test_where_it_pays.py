import json
from collections import Counter

import pytest

from ch_delift.where_it_pays import training_part, what_was_chosen
from tests.conftest import run_command


def test_plain_and_noisy_data_have_as_many_records():
    plain, noisy = training_part("plain"), training_part("noisy")
    assert len(plain) == len(noisy) == 500
    assert not any("wrong" in r for r in plain)
    assert sum("wrong" in r for r in noisy) / 500 == pytest.approx(0.3, abs=0.05)


def test_redundant_data_puts_150_questions_in_other_words():
    records = training_part("redundant")
    assert len(records) == 500
    asked = Counter((r["family"], r["key"], r["output"]) for r in records)
    assert len(asked) <= 150
    first = records[0]
    copies = [r for r in records if r["key"] == first["key"] and first["instruction"] in r["instruction"]]
    assert len({r["instruction"] for r in copies}) == len(copies) >= 3


def test_skewed_data_has_three_large_families_and_all_others():
    families = Counter(r["family"] for r in training_part("skewed"))
    assert len(families) == 16
    assert min(families[f] for f in ("plural", "color", "larger")) > 90
    assert max(n for f, n in families.items() if f not in ("plural", "color", "larger")) == 15


def test_what_was_chosen_counts_different_questions_and_wrong_answers():
    data = [{"family": "a", "key": "1"}, {"family": "a", "key": "1", "wrong": "yes"}, {"family": "b", "key": "1"}]
    assert what_was_chosen(data, [0, 1]) == (1, 0.5)
    assert what_was_chosen(data, [2, 0]) == (2, 0.0)


def test_conditions_that_are_done_are_shown_and_not_repeated(tmp_path):
    for condition, score in (("plain", 0.5), ("skewed", 0.75)):
        (tmp_path / "out" / condition).mkdir(parents=True)
        summary = {arm: {"exact_match": {"mean": score, "half_interval": 0.01}} for arm in ("base", "delift", "random")}
        (tmp_path / "out" / condition / "report.json").write_text(json.dumps({"summary": summary}))
        (tmp_path / "out" / condition / "subset.json").write_text(json.dumps({"ids": [0, 1, 2]}))
    told = run_command("ch_delift/where_it_pays.py", "--out", "out", "--conditions", "plain", "skewed", folder=tmp_path).stdout
    line = next(line for line in told.splitlines() if line.startswith("delift"))
    assert line.split() == ["delift", "50.0%", "±", "1.0%", "75.0%", "±", "1.0%"]
    assert "different questions" in told and "equal steps" not in told
