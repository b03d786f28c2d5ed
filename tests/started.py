"""Commands in processes of their own that need not load PyTorch first: they are forked from one that has.

To load it takes seconds, for each process anew. The server of `multiprocessing` starts once for all tests of a worker.
"""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch._dynamo", "matplotlib.backends.backend_agg", "common.support.plots"])
ROOT = Path(__file__).resolve().parents[1]


def _work(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    """What the process does: the command, with its output in two files of `folder`."""
    os.environ.clear()
    os.environ.update(environment)
    os.fsync = lambda descriptor: None  # as in conftest.py
    os.chdir(folder)
    name = f"told.{environment.get('RANK', 0)}"
    sys.stdout, sys.stderr = (open(folder / f"{name}.{stream}", "w", buffering=1) for stream in ("out", "err"))
    if command[0] == "-c":
        sys.argv = ["-c", *command[2:]]
        exec(compile(command[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = command
        runpy.run_path(str(ROOT / command[0]), run_name="__main__")


def start(*command: object, folder: Path, ranks: int = 1, environment: dict[str, str] | None = None,
          ) -> list[multiprocessing.Process]:
    """Start Python with this command, SCRIPT OPTIONS or -c PROGRAM OPTIONS, in `folder`; what process R tells is there in the
    files told.R.out and told.R.err.

    Args:
        ranks: so many processes, which meet on a free port of this machine, as those of torchrun do.
        environment: instead of that of the tests.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": "0"}
    processes = []
    for rank in range(ranks):
        given = dict(os.environ if environment is None else environment)
        given |= group | {"RANK": str(rank)} if ranks > 1 else {}
        processes.append(SERVER.Process(target=_work, args=([*map(str, command)], folder, given), daemon=True))
    for process in processes:
        process.start()
    return processes


def told(folder: Path, rank: int = 0, stream: str = "*") -> str:
    """What this process wrote to its output ("out"), to its errors ("err"), or to both."""
    return "".join(path.read_text() for path in sorted(folder.glob(f"told.{rank}.{stream}"), reverse=True))


def run_started(*command: object, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """Start it, wait for its end, and give what `subprocess.run` would."""
    [process] = start(*command, folder=folder, environment=environment)
    process.join()
    return subprocess.CompletedProcess(command, process.exitcode, told(folder, 0, "out"), told(folder, 0, "err"))
