"""The benchmark runs from end to end on a tiny shape, LoRA among its sides, and all sides compute the same."""

import sys
import time

import psutil
import pytest

from ch_instruct.lab import bench
from ch_instruct.lab.bench import beside
from tests.conftest import assert_refused


@pytest.mark.slow
def test_the_bench_runs_with_lora(monkeypatch, capsys):
    monkeypatch.setattr(bench, "peak_megabytes", lambda work, *args: work(*args) or 1.0)  # here, for want of time, not measured
    monkeypatch.setattr(bench, "memory_rate", lambda device: 1e10)  # nor this: test_first_run.py measures it
    monkeypatch.setattr(sys, "argv", ["bench.py", "--smoke", "--lora", "2", "--batch-size", "2", "--rounds", "1", "--answers",
                                      "4", "--max-new-tokens", "4", "--device", "cpu"])
    bench.main()
    told = capsys.readouterr().out
    rows = {line[:line.index("  ")]: line.split() for line in told.splitlines()
            if line.startswith(("transformers", "ours", "LoRA"))}
    sides = [f"{who} {precision}" for precision in ("fp32", "bf16") for who in ("transformers", "ours", "LoRA 2")]
    assert rows.keys() == {*sides, *(f"{side}, batch {size}" for side in sides if "LoRA" not in side for size in (2, 4))}
    steps = [line.split(maxsplit=3) for line in told.splitlines() if line.startswith("batch ")]
    assert [(size, precision) for _, size, precision, _ in steps] == [(f"{n},", p) for n in (1, 2, 4) for p in ("fp32", "bf16")]
    losses = {side: float(rows[side][-1]) for side in sides}
    assert losses["ours fp32"] == pytest.approx(losses["transformers fp32"], abs=2e-4)
    assert losses["LoRA 2 fp32"] == pytest.approx(losses["ours fp32"], abs=2e-4)  # an update begins as nothing
    assert losses["LoRA 2 bf16"] == pytest.approx(losses["ours bf16"], abs=0.05)


def test_the_other_processes_compute_until_the_end():
    with beside(2):
        others = psutil.Process().children()
        assert len(others) == 2 and all(other.is_running() for other in others)
        while not all(other.cpu_times().user > 0.1 for other in others):
            time.sleep(0.05)
    assert not any(other.is_running() for other in others)


def test_too_few_records_for_the_rounds_are_refused(tmp_path, in_process):
    (tmp_path / "few.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    done = in_process("ch_instruct/lab/bench.py", "--smoke", "--data", tmp_path / "few.jsonl", "--device", "cpu")
    assert_refused(done, "has 1 records of up to 1024 tokens", "6 rounds of 8 take 48")
