"""Commands in processes of their own that need not load PyTorch first: they are forked from one that has.

To load it takes seconds, for each process anew. The server of `multiprocessing` starts once for all tests of a worker.
"""

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch._dynamo", "matplotlib.backends.backend_agg", "common.support.plots",
                               "httpcore2", "httpx2", "filelock", "yaml", "tqdm.auto"])  # these for the hub's client, which
# reads the environment when it is loaded, so not before
ROOT = Path(__file__).resolve().parents[1]


def _work(command: list[str], folder: Path, environment: dict[str, str], terminal: str | None) -> None:
    """What the process does: the command, at a terminal or with its output in two files of `folder`."""
    os.environ.clear()
    os.environ.update(environment)
    os.fsync = lambda descriptor: None  # as in conftest.py
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C reaches it, whatever the tests ignore
    os.chdir(folder)
    if terminal:
        _sit_down_at(terminal)
    else:
        name = f"told.{environment.get('RANK', 0)}"
        sys.stdout, sys.stderr = (open(folder / f"{name}.{stream}", "w", buffering=1) for stream in ("out", "err"))
    if command[0] == "-c":
        sys.argv = ["-c", *command[2:]]
        exec(compile(command[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = command
        runpy.run_path(str(ROOT / command[0]), run_name="__main__")


def _sit_down_at(terminal: str) -> None:
    """Make it the one that this process belongs to, reads and writes, and whose Ctrl-C it gets."""
    import fcntl  # not on Windows
    import termios

    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    opened = os.open(terminal, os.O_RDWR)
    fcntl.ioctl(opened, termios.TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(opened, number)
    sys.stdin, sys.stdout, sys.stderr = (open(number, mode, encoding="utf-8") for number, mode in enumerate("rww"))


def start(*command: object, folder: Path, ranks: int = 1, environment: dict[str, str] | None = None,
          terminal: str | None = None) -> list[multiprocessing.Process]:
    """Start Python with this command, SCRIPT OPTIONS or -c PROGRAM OPTIONS, in `folder`; what process R tells is there in the
    files told.R.out and told.R.err.

    Args:
        ranks: so many processes, which meet on a free port of this machine, as those of torchrun do.
        environment: instead of that of the tests.
        terminal: the name of a terminal for it, in place of the files.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": "0"}
    processes = []
    for rank in range(ranks):
        given = dict(os.environ if environment is None else environment)
        given |= group | {"RANK": str(rank)} if ranks > 1 else {}
        processes.append(SERVER.Process(target=_work, args=([*map(str, command)], folder, given, terminal),
                                        daemon=True))
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
