import json
from types import SimpleNamespace

import pytest

from ch_instruct.lab import real_draws, real_plan
from ch_pretrain import classroom
from common.support.files import InputError
from tests.models import save_tiny

PRIMARY = [("a", "b", 5), ("a", "c", 5)]


def entries(measured: dict[str, list[float]], records: int = 5) -> list[dict]:
    """One training of each arm on the first draws of the map."""
    return [{"draw": draw, "arm": arm, "records": records, "test_loss": loss, "rouge_l": 0.25}
            for arm, losses in measured.items() for draw, loss in zip(real_plan.DRAWS, losses)]


def test_nothing_is_tested_before_all_draws_are_there(monkeypatch):
    monkeypatch.setattr(real_plan, "DRAWS", range(2, 5))
    measured = {"a": [1.0, 2.0, 3.0], "b": [1.1, 2.2, 3.3], "c": [1.0, 2.1]}
    told = real_draws.primary_text(entries(measured), PRIMARY)
    assert "nothing is tested yet" in told and " p " not in told
    assert "3 of 3" in told and "2 of 3" in told and "-0.0500 ± 0.6353" in told  # 12.706 s / sqrt(2), s = 0.1 / sqrt(2)
    told = real_draws.primary_text(entries(measured | {"c": [1.0, 2.1, 2.9]}), PRIMARY)
    assert "Not finished" not in told and "p after Holm" in told
    row = next(line for line in told.splitlines() if line.startswith("a - b, 5 records"))
    assert "-0.2000 ± 0.2484" in row and row.split()[-2:] == ["0.074", "0.148"]  # t = -3.464 of two degrees of freedom


def test_differences_are_those_of_draws_that_both_have_and_of_the_map(monkeypatch):
    monkeypatch.setattr(real_plan, "DRAWS", range(2, 5))
    found = entries({"a": [1.0, 2.0], "b": [0.5, 0.9, 0.5]}) + entries({"b": [9.0]}, records=7)
    found.append({"draw": 0, "arm": "a", "records": 5, "test_loss": 9.0})  # of the pilot
    row = real_draws.primary_text(found, PRIMARY).splitlines()[5]
    assert row.split() == ["a", "-", "b,", "5", "records", "2", "of", "3", "+0.8000", "±", "3.8119"]  # 12.706 * 0.3
    rows = real_draws.arm_table(found, [("a", 5), ("b", 5), ("c", 5)], "a").splitlines()[3:-1]
    assert [" ".join(row.split()) for row in rows] == ["a 5 2 of 3 1.5000 ± 6.3531 - 25.0% ± 0.0%",
                                                       "b 5 3 of 3 0.6333 ± 0.5737 -0.8000 ± 3.8119 25.0% ± 0.0%"]


def test_what_a_choice_looks_like_by_hand():
    records = [{"instruction": instruction, "input": "", "output": output} for instruction, output in (
        ("Name a red fruit", "an apple"), ("Name a red fruit now", "an apple"), ("Add two numbers", "one and two"),
        ("Name a blue bird", "an apple"))]
    found = real_draws.look_of(records, [0, 1, 2])
    assert found == {"copies": 1, "kinds": 2, "question": 4.0, "answer": pytest.approx(7 / 3), "covered": pytest.approx(2 / 5)}
    # "name a", "a blue", "blue bird", "bird an", "an apple": the first and the last are among the chosen
    assert real_draws.look_of(records, [0, 1, 2, 3])["covered"] == 0


@pytest.fixture
def given(tmp_path, monkeypatch):
    """Options of a run with a tiny model on small draws."""
    for name, value in {"TRAIN": 6, "TEST": 4, "DRAWS": range(2, 4), "LONGEST": 96, "LR": {6: 3e-4, 600: 3e-4}}.items():
        monkeypatch.setattr(real_plan, name, value)
    records = [{name: record[name] for name in ("instruction", "input", "output")} for record in classroom.records()[::9]]
    (tmp_path / "data.json").write_text(json.dumps(records))
    save_tiny(tmp_path / "model")
    return real_plan.RealOptions(model=str(tmp_path / "model"), data=tmp_path / "data.json", out=tmp_path / "out")


@pytest.mark.slow
def test_draws_share_no_record_and_hold_short_ones(given):
    work, folder, _ = real_draws.start(given)
    draws = [real_draws.draw(work, number) for number in range(4)]
    questions = [(record["instruction"], record["input"]) for one in draws for part in one.records.values() for record in part]
    assert len(set(questions)) == len(questions) == 40
    assert all(len(example.ids) <= 96 for one in draws for part in one.examples.values() for example in part)
    assert json.loads((folder / "run.json").read_text())["facts"].keys() == {"file_sha256", "model_sha256"}
    assert [one.records for one in draws] == [real_draws.draw(work, number).records for number in range(4)]


@pytest.mark.slow
def test_too_few_records_are_refused_before_anything_is_written(given, monkeypatch):
    monkeypatch.setattr(real_plan, "TRAIN", 600)
    with pytest.raises(InputError, match=r"training records of at most 96 tokens .* give a file with 2416 or more"):
        real_draws.start(given)
    assert not given.out.exists()


@pytest.mark.slow
def test_training_takes_some_passes_over_the_records_it_is_given(given):
    work, folder, _ = real_draws.start(given)
    one = real_draws.draw(work, 0)
    run = real_draws.train(one, [0, 2, 3, 4, 5], folder / "model", SimpleNamespace(lr=1e-3, turn=0))
    assert run.step == real_plan.EPOCHS * 2 and run.history[0]["tokens"] <= 4 * 95
    found = real_draws.measure(one)
    assert found.keys() == {"test_loss", "rouge_l", "stopped"} and 0 <= found["rouge_l"] <= 1 < found["test_loss"]
    assert real_draws.measure(one, answers=False) == {"test_loss": found["test_loss"]}
