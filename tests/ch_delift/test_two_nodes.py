"""Two machines with one folder, as a cluster has them: each is a process of its own rank, killed twice and resumed."""

import csv
import json
import time
from pathlib import Path

import numpy as np
import pytest

from ch_pretrain import classroom
from tests.conftest import run_here, run_together
from tests.models import save_tiny
from tests.started import start, told

SCRIPT = "ch_delift/train.py"
OPTIONS = ["--model", "model", "--data", "data.json", "--epochs", "2", "--batch-size", "8", "--device", "cpu", "--precision",
           "fp32", "--lr", "0.003", "--format", "phi3", "--pairs", "all", "--compare", "random", "gradient", "--dropout", "0"]


def kill_when(file: Path, *more: str, folder: Path) -> None:
    """Start the command on two nodes that work in `folder`, and kill both as soon as this file is there."""
    nodes = start(SCRIPT, *OPTIONS, *more, folder=folder, ranks=2)
    try:
        while not file.exists():
            assert all(node.is_alive() for node in nodes), f"a node ended before it could be killed: {told(folder)}"
            time.sleep(0.002)
    finally:
        for node in nodes:
            node.kill()
        for node in nodes:
            node.join()


def curve(folder: Path) -> list[float]:
    with open(folder / "metrics.csv") as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file) if row["train_loss"]]


@pytest.mark.slow
def test_two_nodes_killed_and_resumed_do_what_one_process_does(tmp_path):
    save_tiny(tmp_path / "model")
    parts = {"train": 24, "validation": 4, "test": 6}
    records = [r for split, n in parts.items() for r in [r for r in classroom.records() if r["split"] == split][:n]]
    (tmp_path / "data.json").write_text(json.dumps(records))
    run_here(SCRIPT, *OPTIONS, "--out", "one", folder=tmp_path)

    one, two = tmp_path / "one", tmp_path / "two"
    kill_when(two / "utility" / "facts.json", "--out", "two", folder=tmp_path)  # utilities begin
    kill_when(two / "random" / "training_state.pt", "--out", "two", "--resume", folder=tmp_path)
    assert not (two / "report.json").exists()
    first, second = run_together(SCRIPT, *OPTIONS, "--out", "two", "--resume", folder=tmp_path)
    assert "delift" in first and "delift" not in second  # the first process tells, the others are silent
    matrices = [np.load(folder / "utility" / "data-data.npy") for folder in (one, two)]
    np.testing.assert_allclose(*matrices, atol=1e-6)
    chosen = [json.loads((folder / "subset.json").read_text())["ids"] for folder in (one, two)]
    assert chosen[0] == chosen[1]
    for arm in ("", "random", "gradient"):
        assert len(curve(one / arm)) == 2 * 3 and curve(two / arm) == pytest.approx(curve(one / arm), abs=1e-5)
    arms = [json.loads((folder / "report.json").read_text())["arms"] for folder in (one, two)]
    assert arms[0].keys() == arms[1].keys()
    for arm, result in arms[0].items():
        assert arms[1][arm]["test_loss"] == pytest.approx(result["test_loss"], abs=1e-5)
