"""Two machines with one folder, as a cluster has them: two launchers of torchrun on this one, killed twice and resumed."""

import csv
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ch_pretrain import classroom
from common.pretrained import save_pretrained
from common.tokenizer import Tokenizer
from tests.conftest import ENVIRONMENT, ROOT, make_model, run_here

SCRIPT = "ch_delift/train.py"
OPTIONS = ["--model", "model", "--data", "data.json", "--epochs", "2", "--batch-size", "8", "--device", "cpu", "--precision",
           "fp32", "--lr", "0.003", "--format", "phi3", "--pairs", "all", "--compare", "random", "--dropout", "0"]


def start_nodes(folder: Path, *more: str) -> list[subprocess.Popen]:
    """Start the command on two nodes that meet on a free port of this machine and work in `folder`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1",
                f"--master-port={port}"]
    return [subprocess.Popen([*launcher, f"--node-rank={node}", str(ROOT / SCRIPT), *OPTIONS, *more], cwd=folder,
                             env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for node in range(2)]


def kill_when(nodes: list[subprocess.Popen], file: Path) -> None:
    """Kill all processes of all nodes as soon as this file is there. (A launcher that is told to end ends what it started by
    the same signal, which ours do not catch.)"""
    try:
        while not file.exists():
            assert all(node.poll() is None for node in nodes), "a node ended before it could be killed"
            time.sleep(0.01)
    finally:
        for node in nodes:
            node.terminate()
        for node in nodes:
            node.communicate()


def curve(folder: Path) -> list[float]:
    with open(folder / "metrics.csv") as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file) if row["train_loss"]]


@pytest.mark.slow
def test_two_nodes_killed_and_resumed_do_what_one_process_does(tmp_path):
    save_pretrained(make_model(n_positions=320), Tokenizer.from_merges([]), tmp_path / "model")
    parts = {"train": 48, "validation": 4, "test": 6}
    records = [r for split, n in parts.items() for r in [r for r in classroom.records() if r["split"] == split][:n]]
    (tmp_path / "data.json").write_text(json.dumps(records))
    run_here(SCRIPT, *OPTIONS, "--out", "one", folder=tmp_path)

    one, two = tmp_path / "one", tmp_path / "two"
    kill_when(start_nodes(tmp_path, "--out", "two"), two / "utility" / "facts.json")  # utilities begin
    kill_when(start_nodes(tmp_path, "--out", "two", "--resume"), two / "random" / "training_state.pt")
    assert not (two / "report.json").exists()
    ended = [(node.communicate()[0], node.returncode) for node in start_nodes(tmp_path, "--out", "two", "--resume")]
    assert [status for _, status in ended] == [0, 0], ended

    assert "delift" in ended[0][0] and "delift" not in ended[1][0]  # the first process tells, the others are silent
    matrices = [np.load(folder / "utility" / "data-data.npy") for folder in (one, two)]
    np.testing.assert_allclose(*matrices, atol=1e-6)
    chosen = [json.loads((folder / "subset.json").read_text())["ids"] for folder in (one, two)]
    assert chosen[0] == chosen[1]
    for arm in ("", "random"):
        assert len(curve(one / arm)) == 12 and curve(two / arm) == pytest.approx(curve(one / arm), abs=1e-5)
    arms = [json.loads((folder / "report.json").read_text())["arms"] for folder in (one, two)]
    assert arms[0].keys() == arms[1].keys()
    for arm, result in arms[0].items():
        assert arms[1][arm]["test_loss"] == pytest.approx(result["test_loss"], abs=1e-5)
