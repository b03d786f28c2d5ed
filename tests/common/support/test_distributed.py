"""How processes find each other; what several of them compute is tested with the commands."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from common.support import distributed
from common.support.console import is_main, rank
from tests.conftest import ENVIRONMENT, ROOT


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), ("cuda:1", "nccl"), ("mps", "gloo")])
def test_processes_talk_as_their_device_can(device, backend, monkeypatch):
    """Not as the machine could: with --device cpu there are no GPU messages, GPU or not."""
    joined, taken = [], []
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(dist, "init_process_group", joined.append)
    distributed.start(torch.device(device))
    assert joined == [backend]
    assert taken == ([torch.device("cuda:1")] if backend == "nccl" else [])


def test_a_single_process_joins_nobody(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(dist, "init_process_group", lambda *_: pytest.fail("joined"))
    distributed.start(torch.device("cpu"))
    assert rank() == 0 and distributed.world_size() == 1 and is_main()
    assert distributed.from_main("a") == "a" and distributed.add_up(1.5, 2) == [1.5, 2]


def test_only_the_first_process_is_the_main_one_even_before_it_has_joined(monkeypatch):
    """Or every process would print the same error."""
    monkeypatch.setenv("RANK", "1")
    assert rank() == 1 and not is_main()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads have names in /proc on Linux only")
def test_no_thread_of_the_group_outlives_it():
    """Threads that are still there when Python goes can end the process by SIGABRT."""
    program = """
import torch
from pathlib import Path
from common.support import distributed

def threads():
    return sum("gloo" in (thread / "comm").read_text() for thread in Path("/proc/self/task").iterdir())

distributed.start(torch.device("cpu"))
p = torch.nn.Parameter(torch.ones(2))
p.grad = torch.ones(2)
torch.optim.AdamW([p], fused=True).step()  # it imports much
distributed.add_up_step(torch.zeros(()), 1, {"p": p})
during = threads()
distributed.stop()
print(during > 0, threads())
"""
    group = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=ENVIRONMENT | group, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "0"], done.stderr
