"""Commands in processes of their own that need not load PyTorch first: they are forked from one that has.

To load it takes seconds, for each process anew. The server of `multiprocessing` starts once for all tests of a worker.
"""

import multiprocessing
import os
import runpy
import socket
import sys
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch._dynamo", "matplotlib.backends.backend_agg", "common.support.plots"])
ROOT = Path(__file__).resolve().parents[1]


def _work(script: str, options: list[str], folder: Path, environment: dict[str, str]) -> None:
    """What the process does: the command, with its output in two files of `folder`."""
    os.environ.update(environment)
    os.fsync = lambda descriptor: None  # as in conftest.py
    os.chdir(folder)
    name = f"told.{environment.get('RANK', 0)}"
    sys.stdout, sys.stderr = (open(folder / f"{name}.{stream}", "w", buffering=1) for stream in ("out", "err"))
    sys.argv = [script, *options]
    runpy.run_path(str(ROOT / script), run_name="__main__")


def start(script: str, *options: object, folder: Path, ranks: int = 1) -> list[multiprocessing.Process]:
    """Start `python SCRIPT OPTIONS` in `folder`, so many processes that meet on a free port of this machine.

    What process R tells is in `told.R.out` and `told.R.err` of the folder.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} if ranks > 1 else {}
    processes = []
    for rank in range(ranks):
        of_rank = group | {"RANK": str(rank), "LOCAL_RANK": "0"} if ranks > 1 else {}
        processes.append(SERVER.Process(target=_work, args=(script, [*map(str, options)], folder, of_rank), daemon=True))
    for process in processes:
        process.start()
    return processes


def told(folder: Path, rank: int = 0) -> str:
    """What this process wrote to its output, and to its errors."""
    return "".join((folder / f"told.{rank}.{stream}").read_text() for stream in ("out", "err"))
