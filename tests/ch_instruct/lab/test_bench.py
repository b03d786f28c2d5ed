"""The benchmark runs from end to end on a tiny shape, LoRA among its sides, and all sides compute the same."""

import itertools
import sys
import time

import psutil
import pytest
import torch

from ch_instruct.lab import bench
from ch_instruct.lab.bench import beside
from tests.conftest import assert_refused

CPU = torch.device("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("precisions", [["fp32", "bf16"], ["fp32"]])
def test_the_bench_runs_with_lora(monkeypatch, capsys, precisions):
    monkeypatch.setattr(bench, "peak_megabytes", lambda work, *args: work(*args) or 1.0)  # here, for want of time, not measured
    monkeypatch.setattr(bench, "memory_rate", lambda device: 1e10)  # nor are these
    monkeypatch.setattr(bench, "product_rates", lambda device, precisions: dict.fromkeys(precisions, 1e10))
    monkeypatch.setattr(bench, "pick_precision", lambda *_: (precisions[-1], "as the test says"))
    monkeypatch.setattr(sys, "argv", ["bench.py", "--smoke", "--lora", "2", "--batch-size", "2", "--rounds", "1", "--answers",
                                      "4", "--max-new-tokens", "4", "--device", "cpu"])
    bench.main()
    told = capsys.readouterr().out
    rows = {line[:line.index("  ")]: line.split() for line in told.splitlines()
            if line.startswith(("transformers", "ours", "LoRA"))}
    sides = [f"{who} {precision}" for precision in precisions for who in ("transformers", "ours", "LoRA 2")]
    answering = [*(side for side in sides if "LoRA" not in side), "ours int8"]
    assert rows.keys() == {*sides, *(f"{side}, batch {size}" for side in answering for size in (2, 4))}
    steps = [line.split(maxsplit=3) for line in told.splitlines() if line.startswith("batch ")]
    assert [(size, precision) for _, size, precision, _ in steps] == [
        (f"{n},", p) for p in (*precisions, "int8") for n in (1, 2, 4)]
    losses = {side: float(rows[side][-1]) for side in sides}
    assert losses["ours fp32"] == pytest.approx(losses["transformers fp32"], abs=2e-4)
    assert losses["LoRA 2 fp32"] == pytest.approx(losses["ours fp32"], abs=2e-4)  # an update begins as nothing
    if "bf16" in precisions:
        assert losses["LoRA 2 bf16"] == pytest.approx(losses["ours bf16"], abs=0.05)


@pytest.mark.slow
def test_the_machines_rates_are_those_of_its_best_try(monkeypatch):
    """The times are given; only the product in fp32 is made, as bf16 takes seconds where it has no instructions."""
    seconds, done = itertools.cycle([3.0, 2.0, 4.0]), {}

    def seconds_of(work, device):
        done.setdefault(work.args[0].dtype if hasattr(work, "args") else "memory", work)
        return next(seconds)

    monkeypatch.setattr(bench, "seconds_of", seconds_of)
    assert bench.product_rates(CPU) == {"fp32": 1024 * 768 * 3072, "bf16": 1024 * 768 * 3072}  # times two, in two seconds
    fp32, bf16 = done.values()
    assert fp32().shape == (1024, 3072) and [part.dtype for part in bf16.args] == [torch.bfloat16] * 2
    assert [part.shape for part in bf16.args] == [part.shape for part in fp32.args]
    assert bench.memory_rate(CPU) == 2**29 / 2 and done["memory"]() == 2**27  # half a GB of ones


@pytest.mark.slow
def test_the_most_memory_is_that_of_a_process_of_its_own():
    here = 2**29
    assert here < 1e6 * bench.peak_megabytes(torch.ones, here // 4) < 6 * here


@pytest.mark.slow
def test_the_other_processes_compute_until_the_end():
    before = psutil.Process().children()
    with beside(2):
        others = [child for child in psutil.Process().children() if child not in before]
        assert len(others) == 2 and all(other.is_running() for other in others)
        while not all(other.cpu_times().user > 0.1 for other in others):
            time.sleep(0.05)
    assert not any(other.is_running() for other in others)


@pytest.mark.slow
def test_too_few_records_for_the_rounds_are_refused(tmp_path, in_process):
    (tmp_path / "few.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    done = in_process("ch_instruct/lab/bench.py", "--smoke", "--data", tmp_path / "few.jsonl", "--device", "cpu")
    assert_refused(done, "has 1 records of up to 1024 tokens", "6 rounds of 8 take 48")
