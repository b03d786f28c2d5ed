"""What all fine-tuning commands share, in this process."""

from collections import Counter
from pathlib import Path

import pytest

from ch_instruct import pipeline
from ch_instruct.encoding import Example
from ch_instruct.pipeline import MOST_NEW_TOKENS, FineTuning, Work, prepare, smoke_records
from common.pretrained import save_pretrained
from common.tokenizer import Tokenizer
from tests.conftest import make_model


def work(*examples: Example, model=None, **options: object) -> Work:
    return Work(FineTuning(**options), Path("none"), model or make_model(), Tokenizer.from_merges([]), {},
                {"train": list(examples)})


def test_answers_get_as_long_as_the_longest_response_in_training():
    short, long = Example([1] * 300, 290), Example([1] * 40, 5)
    talk = Example([1] * 100, 10, ((10, 60), (70, 100)))
    assert [work(short).max_new_tokens, work(short, long).max_new_tokens, work(short, talk).max_new_tokens] == [10, 35, 50]


def test_no_answer_gets_longer_than_the_cap():
    assert MOST_NEW_TOKENS == 256
    assert [work(Example([1] * (7 + n), 7)).max_new_tokens for n in (255, 256, 257, 900)] == [255, 256, 256, 256]


def test_the_learning_rate_is_the_usual_one_unless_given():
    assert (work().lr, work(lora=4).lr, work(lr=1e-3).lr) == (5e-5, 5e-4, 1e-3)


def test_smoke_takes_a_few_records_and_hides_no_missing_split():
    rows = [{"n": n} for n in range(200)]
    assert smoke_records(rows) == rows[:60]
    named = [row | {"split": ("train", "validation", "test")[row["n"] % 3]} for row in rows]
    assert Counter(row["split"] for row in smoke_records(named)) == {"train": 48, "validation": 6, "test": 6}
    some = [*named[:100], *rows[100:]]
    assert smoke_records(some) == some  # `split_places` refuses them


def test_the_options_reach_training():
    given = work(epochs=2, batch_size=3, accumulate=4, lr=0.5).train_options(max_steps=9, patience=1)
    assert (given.epochs, given.batch_size, given.accumulate, given.lr) == (2, 3, 4, 0.5)
    assert (given.precision, given.max_steps, given.patience) == ("fp32", 9, 1)


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_dropout_reaches_every_layer(dropout, tmp_path):
    save_pretrained(make_model(n_positions=512), Tokenizer.from_merges([]), tmp_path / "model")
    model = prepare(FineTuning(model=str(tmp_path / "model"), smoke=True, dropout=dropout, device="cpu")).model
    shares = [model.config.dropout, model.drop.p, *(share for block in model.h for share in (
        block.attn.dropout, block.attn.resid_dropout.p, block.mlp.dropout.p))]
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


def test_every_arm_starts_from_the_same_weights_and_draws(tmp_path, monkeypatch):
    """Two trainings with dropout, one after the other on the same model: equal for equal seeds, whatever was drawn before."""
    save_pretrained(make_model(n_positions=512), Tokenizer.from_merges([]), tmp_path / "model")
    ready = prepare(FineTuning(model=str(tmp_path / "model"), smoke=True, dropout=0.2, device="cpu", precision="fp32"))
    ready.examples = {split: part[:8] for split, part in ready.examples.items()}
    curves = [[row.get("train_loss") for row in pipeline.train(
        ready, ready.dataset("train"), pipeline.next_token_loss, tmp_path / name, seed).history]
        for name, seed in (("one", 0), ("two", 0), ("three", 1))]
    assert curves[0] == curves[1] != curves[2]
