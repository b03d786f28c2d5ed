"""The estimate before a run: its arithmetic, when it is said, and that it leaves nothing behind."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ch_instruct import pipeline
from ch_instruct.pipeline import FineTuning, prepare
from ch_instruct.support import cost
from common.losses import next_token_loss
from common.training import Dataset, TrainOptions
from tests.conftest import ROOT, run_here, run_together
from tests.models import assert_same_weights, save_tiny

PARTS = ("time_reading", "time_training", "time_answers")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """The folder of a tiny model."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder)
    return folder


@pytest.fixture
def ready(tiny):
    """Makes a small experiment, 48 records to train on, with these options."""
    return lambda **more: prepare(FineTuning(model=str(tiny), smoke=True, device="cpu", precision="fp32", **more))


@pytest.fixture
def clock(monkeypatch):
    """A clock for cost.py that goes on only when it is told to."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(cost, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def training(work, epochs: int = 1) -> cost.Training:
    data = work.dataset("train")
    return cost.Training(data, next_token_loss, work.train_options(), epochs * len(data))


def said(capsys) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if "will take" in line]


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, 2])
def test_a_trial_leaves_weights_gradients_and_random_numbers_as_they_were(lora, ready, monkeypatch, capsys):
    work = ready(dropout=0.3, lora=lora)
    model = work.model
    monkeypatch.setattr(cost, "SHORT", 0)
    weights, random, mode = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state(), model.training
    names = [type(module) for module in model.modules()]
    cost.tell(work, [training(work, 99)])
    assert len(said(capsys)) == 1
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(random, torch.get_rng_state()) and model.training == mode
    assert names == [type(module) for module in model.modules()]


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "seconds_a_token", "resume", "told"), [
    (20, 1.0, False, True), (16, 1.0, False, False), (20, 1e-6, False, False), (20, 1.0, True, False)])
def test_it_is_said_of_large_runs_alone(epochs, seconds_a_token, resume, told, ready, monkeypatch, capsys):
    """48 records in batches of 8: 20 epochs are 120 passes, 16 are 96; each token is read in a second, or in no time."""
    for name, value in zip(PARTS, (seconds_a_token, cost.Tried(1.0, 0), 1.0)):
        monkeypatch.setattr(cost, name, lambda *_, value=value: value)
    work = ready()
    work.options = FineTuning(epochs=epochs, batch_size=8, resume=resume, out=work.folder)
    cost.tell(work, [training(work, epochs)])
    assert bool(said(capsys)) == told


@pytest.mark.slow
def test_all_there_is_to_do_is_counted(ready, monkeypatch, capsys):
    work = ready()
    tokens = {split: sum(len(e.ids) - 1 for e in part) for split, part in work.examples.items()}
    for name, value in zip(PARTS, (1.0, cost.Tried(3600.0, 5e8), 60.0)):
        monkeypatch.setattr(cost, name, lambda *_, value=value: value)
    monkeypatch.setattr(cost, "peak_memory", lambda _: 2.64e9)
    twice = training(work, 60)._replace(runs=2)
    cost.tell(work, [twice, twice], readings=3, tests=[work, work], further=lambda: {"utilities": 7200.0})
    # One epoch is two evaluations of each of four trainings, and they and the base take both tests.
    read = 4 * 2 * tokens["validation"] + 5 * 2 * tokens["test"] + 3 * tokens["train"]
    assert said(capsys) == [
        f"This run will take about {cost.duration(7200 + 2 * 3600 + read + 2 * 60)} (utilities 2.0 h, training 2.0 h, "
        f"evaluation {cost.duration(read)}, answers 2 min) and 4.0 GB of memory, to judge by a trial of 0 s"]


@pytest.mark.slow
def test_training_is_its_tokens_at_the_speed_of_two_passes_and_its_steps(ready, clock, monkeypatch):
    work = ready(accumulate=2)
    kind = training(work, 10)
    batches = kind.batches()
    seen = []

    def gradients(model, data, loss, items, options):
        clock.seconds += 5.0
        seen.append(items)
        return torch.zeros(2), 1

    def step(model, optimizer, targets, lr, clip):
        assert lr == 0
        clock.seconds += 1.0
        return torch.ones(())

    monkeypatch.setattr(cost, "accumulate_gradients", gradients)
    monkeypatch.setattr(cost, "take_step", step)
    found, more_memory = cost.time_training(work, kind, reading=1e-6)
    sizes = [kind.tokens_of(batch) for batch in batches]
    assert [sorted(map(kind.data.size, items)) for items in seen] == [
        sorted(map(kind.data.size, items)) for items in (batches[-1], batches[3])]
    assert sizes == sorted(sizes) and len(sizes) == 6
    assert kind.tokens == pytest.approx(10 * sum(sizes))
    assert found == pytest.approx(10.0 / (sizes[-1] + sizes[3]) * kind.tokens + 1.0 * 60 / 2)
    assert more_memory == 0

    seen.clear()
    found, _ = cost.time_training(work, kind, reading=1.0)  # a token of training takes three seconds: one row is enough
    assert seen == [[min(batch, key=kind.data.size)] for batch in (batches[-1], batches[3])]
    assert found == pytest.approx(10.0 / sum(map(kind.tokens_of, seen)) * kind.tokens + 1.0 * 60 / 2)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, 2])
def test_memory_of_the_largest_batch_is_foretold_by_a_few_of_its_rows(lora, ready):
    work = ready(lora=lora, batch_size=8)
    kind = training(work)
    largest = kind.batches()[-1]
    whole, one = cost.time_training(work, kind, reading=1e-9), cost.time_training(work, kind, reading=1e9)
    with cost.keeping(work.model) as kept:
        loss, _ = next_token_loss(work.model, kind.data.collate(largest))
    with cost.keeping(work.model) as of_one:
        next_token_loss(work.model, kind.data.collate(largest[:1]))
    wanted = sum(kept.values()) + 2 * max(kept.values()) - sum(of_one.values()) - 2 * max(of_one.values())
    assert whole.more_memory == 0 and one.more_memory == pytest.approx(wanted, rel=0.3)
    # Each position keeps more than its stream in each block, and no weight is among what is kept.
    assert sum(kept.values()) > 4 * kind.tokens_of(largest) * work.model.config.n_embd * work.model.config.n_layer
    weights = {p.untyped_storage().data_ptr() for p in work.model.parameters()}
    assert loss.requires_grad and not weights & kept.keys()


def test_so_many_rows_as_take_half_a_second_and_one_for_each_process(monkeypatch):
    how = TrainOptions(1, 8, 1, 1e-4, "fp32")
    kind = cost.Training(Dataset([], lambda items: (), lambda item: item), next_token_loss, how, 0)
    items = [300, 100, 150, 200]  # tokens
    assert cost.few(kind, items, 1e-4) == sorted(items)  # 0.075 s for all
    assert cost.few(kind, items, 1.25e-3) == [100, 150]
    assert cost.few(kind, items, 60.0) == [100]
    monkeypatch.setattr(cost.distributed, "world_size", lambda: 3)
    assert cost.few(kind, items, 60.0) == [100, 150, 200]


@pytest.mark.slow
def test_answers_of_the_base_are_as_long_as_they_may_be_and_later_ones_as_long_as_expected(ready, clock, monkeypatch):
    work = ready()

    def continue_all(model, prompts, tokens, eot_id, rows):
        clock.seconds += 2.0 + 0.5 * tokens  # for all prompts together
        return []

    monkeypatch.setattr(cost, "continue_all", continue_all)
    expected = [example.response_tokens for example in work.examples["test"]]
    assert max(expected) < work.max_new_tokens and len(expected) == 6
    prompts = sum(example.prompt_length for example in work.examples["test"])
    # A token of a prompt takes 0.1 seconds, and each token of the six answers 0.5 for all.
    found = cost.time_answers(work, 3, reading=0.1)
    assert found == pytest.approx(4 * 0.1 * prompts + 0.5 * (work.max_new_tokens + 3 * sum(expected) / 6))


@pytest.mark.slow
def test_a_token_is_read_at_the_speed_of_a_middling_batch(ready, clock, monkeypatch):
    work = ready()

    kind, read = training(work), []
    middling = kind.batches()[3]

    def evaluate(model, data, loss, batch_size, precision):
        clock.seconds += seconds
        read.append(data.items)
        return 0.0

    monkeypatch.setattr(cost, "evaluate", evaluate)
    shortest = sorted(middling, key=kind.data.size)
    seconds = 0.001  # for one row, so all of them fit
    assert cost.time_reading(work, kind) == pytest.approx(seconds / kind.tokens_of(middling))
    assert read == [shortest[:1], shortest]
    seconds = 4.0  # it need not be read again
    assert cost.time_reading(work, kind) == pytest.approx(seconds / kind.tokens_of(shortest[:1]))
    assert read[2:] == [shortest[:1]]


@pytest.mark.slow
def test_the_untouched_model_can_be_tested_last(ready, tmp_path):
    work = ready()
    before = pipeline.test(work)
    run = pipeline.train(work, work.dataset("train"), next_token_loss, tmp_path / "run", 0)
    tuned = pipeline.test(work, run)
    assert pipeline.test_base(work) == before and tuned.result["test_loss"] != before.result["test_loss"]


@pytest.mark.slow
@pytest.mark.parametrize(("script", "part", "ranks"), [
    ("ch_instruct/train.py", "(training", 1), ("ch_sftmix/train.py", "of memory in each process, to judge", 2),
    ("ch_delift/train.py", "(utilities", 1)])
def test_every_command_says_it_once_and_trains_as_without_it(script, part, ranks, tiny, monkeypatch, tmp_path):
    """A command that takes every run for a large one; the plain one also against one that says nothing."""
    (tmp_path / "always.py").write_text("import runpy, sys\nfrom ch_instruct.support import cost\n"
                                        "cost.FEWEST_PASSES = cost.SHORT = 0\n"
                                        "sys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n")
    options = ["--model", tiny, "--smoke", "--device", "cpu", "--precision", "fp32", "--dropout", "0.1", "--out"]
    few = ["--compare", "random"] if script == "ch_delift/train.py" else []
    if ranks > 1:
        said = "".join(run_together(tmp_path / "always.py", ROOT / script, *few, *options, "said", folder=tmp_path))
    else:
        with monkeypatch.context() as always:
            always.setattr(cost, "FEWEST_PASSES", 0)
            always.setattr(cost, "SHORT", 0)
            said = run_here(script, *few, *options, "said", folder=tmp_path).stdout
    assert said.count("This run will take") == 1 and part in said
    if script == "ch_instruct/train.py":
        assert "This run will take" not in run_here(script, *options, "silent", folder=tmp_path).stdout
        assert_same_weights(tmp_path / "said", tmp_path / "silent")
