import json
from collections import Counter

import pytest

from ch_delift import where_it_pays
from ch_delift.where_it_pays import training_part, what_was_chosen
from tests.conftest import assert_refused


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


@pytest.mark.parametrize("large", [where_it_pays.LARGE_FAMILIES, ("home", "young", "addition")])
def test_skewed_data_has_three_large_families_and_all_others(large):
    families = Counter(r["family"] for r in training_part("skewed", large))
    assert len(families) == 16
    assert min(families[f] for f in large) > 90
    assert max(n for f, n in families.items() if f not in large) == 15


def test_what_was_chosen_counts_different_questions_wrong_answers_and_target_families():
    data = [{"family": "plural", "key": "1"}, {"family": "plural", "key": "1", "wrong": "yes"}, {"family": "b", "key": "1"}]
    assert what_was_chosen(data, [0, 1]) == [1, 0.5, 1.0]
    assert what_was_chosen(data, [2, 0]) == [2, 0.0, 0.5]


def test_conditions_that_are_done_are_shown_and_not_repeated(in_process, tmp_path):
    for condition, score in (("plain", 0.5), ("skewed", 0.75)):
        (tmp_path / "out" / condition).mkdir(parents=True)
        summary = {arm: {"exact_match": {"mean": score, "half_interval": 0.01}} for arm in (
            "base", "delift", "random", "delift - random", "delift, equal epochs - random, equal epochs")}
        (tmp_path / "out" / condition / "report.json").write_text(json.dumps({"summary": summary}))
        (tmp_path / "out" / condition / "subset.json").write_text(json.dumps({"ids": [0, 1, 2]}))
    told = in_process("ch_delift/where_it_pays.py", "--out", tmp_path / "out", "--conditions", "plain", "skewed").stdout
    line = next(line for line in told.splitlines() if line.startswith("delift"))
    assert line.split() == ["delift", "50.0%", "±", "1.0%", "75.0%", "±", "1.0%"]
    assert (tmp_path / "out" / "differences.png").exists()
    assert "different questions" in told and "equal steps" not in told


def test_a_folder_with_other_records_is_refused(in_process, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "skewed.json").write_text("[]")
    done = in_process("ch_delift/where_it_pays.py", "--out", tmp_path / "out", "--conditions", "skewed")
    assert_refused(done, "other records", "choose a new folder")
    assert (tmp_path / "out" / "skewed.json").read_text() == "[]"


def test_warm_kernels_come_from_a_model_fine_tuned_on_the_same_data_and_targets_from_four_families(tmp_path, monkeypatch):
    ran: list[list[str]] = []
    monkeypatch.setattr(where_it_pays, "run_script", lambda script, *arguments: ran.append([script, *map(str, arguments)]))
    where_it_pays.compare("warm", tmp_path / "warm.json", tmp_path / "warm", 2, "fp32")
    first, second = ran
    assert first[0] == "ch_instruct/train.py" and first[first.index("--data") + 1] == str(tmp_path / "warm.json")
    assert second[second.index("--kernel-model") + 1] == first[1]
    where_it_pays.compare("target", tmp_path / "target.json", tmp_path / "target", 2, "fp32")
    assert ran[-1][ran[-1].index("--stage") + 1] == "task"
    records = json.loads(open(ran[-1][ran[-1].index("--target") + 1]).read())
    assert {r["family"] for r in records} == set(where_it_pays.TARGET_FAMILIES)
    assert {r["split"] for r in records} == {"train", "validation", "test"}
