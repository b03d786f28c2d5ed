"""What all fine-tuning commands share, in this process."""

from pathlib import Path

import pytest

from ch_instruct import pipeline
from ch_instruct.encoding import Example
from ch_instruct.pipeline import MOST_NEW_TOKENS, FineTuning, Work, prepare
from ch_instruct.support.subset import write_subset
from common.pretrained import save_pretrained
from common.support.files import write_json
from common.tokenizer import Tokenizer
from tests.models import make_model


def work(*examples: Example, model=None, **options: object) -> Work:
    return Work(FineTuning(**options), Path("none"), model or make_model(), Tokenizer.from_merges([]), {},
                {"train": list(examples)})


def test_answers_get_twice_as_long_as_the_longest_response_in_training():
    short, long = Example([1] * 300, 290), Example([1] * 40, 5)
    talk = Example([1] * 100, 10, ((10, 60), (70, 100)))
    assert [work(short).max_new_tokens, work(short, long).max_new_tokens, work(short, talk).max_new_tokens] == [20, 70, 100]


def test_no_answer_gets_longer_than_the_cap():
    assert MOST_NEW_TOKENS == 256
    assert [work(Example([1] * (7 + n), 7)).max_new_tokens for n in (127, 128, 129, 900)] == [254, 256, 256, 256]


@pytest.mark.slow
def test_a_right_answer_longer_than_any_in_training_is_whole():
    """Every answer that the classroom's test expects fits, its end-of-text token too."""
    ready = prepare(FineTuning(device="cpu"))
    lengths = {split: max(e.response_tokens for e in part) for split, part in ready.examples.items()}
    assert lengths["train"] < lengths["test"] <= ready.max_new_tokens  # or this test would show nothing


@pytest.mark.slow
def test_a_subset_does_not_decide_how_long_answers_may_be(tmp_path):
    whole = prepare(FineTuning())
    short = [i for i, example in zip(whole.train_ids, whole.examples["train"]) if sum(b - a for a, b in example.spans) < 5][:40]
    write_subset(tmp_path / "subset.json", short, [0.0] * 40, {"data_sha256": whole.facts["data_sha256"]})
    part = prepare(FineTuning(subset=tmp_path / "subset.json"))
    assert part.max_new_tokens == whole.max_new_tokens == part.facts["max_new_tokens"] > 10


def test_the_learning_rate_is_the_usual_one_unless_given():
    assert (work().lr, work(lora=4).lr, work(lr=1e-3).lr) == (5e-5, 5e-4, 1e-3)


@pytest.mark.parametrize("named", [False, True])
def test_smoke_takes_a_few_records_of_each_part_of_the_same_data(named, tmp_path):
    """So a subset of the data fits with --smoke, too."""
    rows = [{"instruction": f"q{n}", "output": "a"} for n in range(200)]
    if named:
        rows = [row | {"split": ("train", "validation", "test")[n % 3]} for n, row in enumerate(rows)]
    save_pretrained(make_model(n_positions=512), Tokenizer.from_merges([]), tmp_path / "model")
    write_json(tmp_path / "d.json", rows)
    given = {"model": str(tmp_path / "model"), "data": str(tmp_path / "d.json"), "device": "cpu"}
    whole, smoke = prepare(FineTuning(**given)), prepare(FineTuning(**given, smoke=True))
    assert {split: len(part) for split, part in smoke.records.items()} == {"train": 48, "validation": 6, "test": 6}
    assert smoke.facts["data_sha256"] == whole.facts["data_sha256"] and smoke.train_ids == whole.train_ids[:48]
    chosen = whole.train_ids[10:100]
    write_subset(tmp_path / "subset.json", chosen, [0.0] * 90, {"data_sha256": whole.facts["data_sha256"]})
    part = prepare(FineTuning(**given, smoke=True, subset=tmp_path / "subset.json"))
    assert part.train_ids == chosen[:48]
    write_subset(tmp_path / "subset.json", chosen[1:], [0.0] * 89, {"data_sha256": whole.facts["data_sha256"]})
    other = prepare(FineTuning(**given, smoke=True, subset=tmp_path / "subset.json"))  # as many, and not the same
    differ = {name for name, value in part.facts.items() if other.facts[name] != value}
    assert "train_sha256" in differ  # so that no run goes on with them


def test_the_options_reach_training():
    given = work(epochs=2, batch_size=3, accumulate=4, lr=0.5).train_options(max_steps=9, patience=1)
    assert (given.epochs, given.batch_size, given.accumulate, given.lr) == (2, 3, 4, 0.5)
    assert (given.precision, given.max_steps, given.patience) == ("fp32", 9, 1)


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_dropout_reaches_every_layer(dropout, tmp_path):
    save_pretrained(make_model(n_positions=512), Tokenizer.from_merges([]), tmp_path / "model")
    model = prepare(FineTuning(model=str(tmp_path / "model"), smoke=True, dropout=dropout, device="cpu")).model
    shares = [model.config.dropout, model.drop.p, *(share for block in model.h for share in (
        block.attn.attn_dropout.p, block.attn.resid_dropout.p, block.mlp.dropout.p))]
    assert shares == [dropout] * 8


def test_large_test_and_validation_parts_are_limited_and_told(capsys):
    records = {split: [{"instruction": f"q{i}", "output": "a", "id": i} for i in range(count)]
               for split, count in (("train", 40), ("validation", 9), ("test", 30))}
    tokenizer = Tokenizer.from_merges([])

    def parts(**options):
        found = pipeline.encode_splits(records, tokenizer, FineTuning(**options), 1024)
        return {split: [record["id"] for record in part.records] for split, part in found.items()}

    whole, some = parts(), parts(test_limit=10, validation_limit=9)
    assert {split: len(ids) for split, ids in whole.items()} == {"train": 40, "validation": 9, "test": 30}
    assert some["train"] == whole["train"] and some["validation"] == whole["validation"]
    assert len(set(some["test"])) == 10 and some["test"] == sorted(some["test"]) != list(range(10))
    assert parts(test_limit=10)["test"] == some["test"] != parts(test_limit=10, seed=1)["test"]
    assert "test: 10 of 30 records are used (--test-limit)" in capsys.readouterr().out


def test_repeated_test_questions_are_asked_once_and_few_are_warned_of(capsys):
    def ask(count: int, **options: object) -> list[int]:
        test = [{"instruction": f"q{i % count}", "input": "x" * (i % 2), "output": str(i), "id": i} for i in range(3 * count)]
        records = {"train": [{"instruction": "q", "output": "a"}] * 4, "validation": [], "test": test}
        parts = pipeline.encode_splits(records, Tokenizer.from_merges([]), FineTuning(**options), 1024)
        assert len(parts["train"].records) == 4  # what is learnt from may repeat itself
        return [record["id"] for record in parts["test"].records]

    assert ask(4) == [0, 1, 2, 3]
    told = capsys.readouterr().out
    assert "test: 8 of 12 questions repeat an earlier one and are asked once" in told
    assert "Warning: 4 test questions are few: one answer more or less is 25%" in told
    assert ask(51) == list(range(102)) and "Warning" not in capsys.readouterr().out  # with another input, another question
    assert ask(4, smoke=True) == [0, 1, 2, 3] and "Warning" not in capsys.readouterr().out


@pytest.mark.slow
def test_every_arm_starts_from_the_same_weights_and_draws(tmp_path, monkeypatch):
    """Two trainings with dropout, one after the other on the same model: equal for equal seeds, whatever was drawn before."""
    save_pretrained(make_model(n_positions=512), Tokenizer.from_merges([]), tmp_path / "model")
    ready = prepare(FineTuning(model=str(tmp_path / "model"), smoke=True, dropout=0.2, device="cpu", precision="fp32"))
    ready.examples = {split: part[:8] for split, part in ready.examples.items()}
    curves = [[row.get("train_loss") for row in pipeline.train(
        ready, ready.dataset("train"), pipeline.next_token_loss, tmp_path / name, seed).history]
        for name, seed in (("one", 0), ("two", 0), ("three", 1))]
    assert curves[0] == curves[1] != curves[2]
