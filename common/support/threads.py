"""How PyTorch's threads wait for each other, and how many there are. OpenMP reads its settings once, while PyTorch is loaded.

Between two pieces of work, threads wait by spinning: they ask in a loop whether there is more to do. So they begin at once. But
where another program needs a core, they may wait for a thread that has none, and take the core that it needs. Then training
takes 1.4 to 1.9 times as long as with a short spin followed by sleep. Without another program a short spin costs 2 to 20 %.

LLVM's and Intel's OpenMP can always spin for a millisecond only. GNU's (Linux) spins 3,000 times shorter by itself as soon as
it has more threads than there are cores. So while others compute, we keep some that sleep (`watch`).
"""

import atexit
import math
import os
import threading
import time
from collections.abc import MutableMapping
from pathlib import Path

SPIN = {"KMP_BLOCKTIME": "1"}  # of LLVM's (macOS) and Intel's OpenMP: milliseconds, by default 200
SHORT_SPIN = {"GOMP_SPINCOUNT": "1000"}  # of GNU's: turns of the loop, by default 300,000
THEIRS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_PROC_BIND", "GOMP_CPU_AFFINITY")  # with one of these, the user decides
STAT = Path("/proc/stat")  # Linux
SECONDS = 1.0  # between two looks at what the cores do
CROWDED = 0.25  # of a core, that others take from our threads
MOST = 64  # sleeping threads
END = threading.Event()  # of this process


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what the user has not set: LLVM's and Intel's short spin; and where a container may take less than all cores, that
    many threads, which spin shortly, GNU's, too."""
    # PyTorch looks at the cores on which this process may run, but not at the share of them that its container may take.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    spin = SPIN
    if (share := cpu_share()) < cores:
        environment.setdefault("OMP_NUM_THREADS", str(math.ceil(share)))
        spin = SPIN | SHORT_SPIN  # spinning would use up the share
    if "OMP_WAIT_POLICY" not in environment:  # the user's word for all of them
        for name, value in spin.items():
            environment.setdefault(name, value)


def watch(environment: MutableMapping[str, str] = os.environ) -> None:
    """From here on, let threads spin shortly while other programs compute on our cores. PyTorch is loaded."""
    alone = environment.get("OMP_NUM_THREADS") == "1"  # waits for nobody
    if STAT.exists() and hasattr(os, "sched_getaffinity") and not alone and not any(name in environment for name in THEIRS):
        thread = threading.Thread(target=_watch, daemon=True)
        thread.start()
        atexit.register(thread.join)  # a thread must not be in the middle of PyTorch when Python ends
        atexit.register(END.set)  # is called first


class Team(threading.Thread):
    """OpenMP gives each thread that computes a team of its own. This one's sleeps, until `dismissed` is set."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.called, self.dismissed = threading.Event(), threading.Event()
        self.start()
        self.called.wait()

    def run(self) -> None:
        """Call the team, and wait."""
        import torch

        torch.ones(2**20).sum()  # too much for one thread, so the team is called
        self.called.set()
        self.dismissed.wait()


def teams_needed(others: float, cores: int, threads: int) -> int:
    """How many sleeping teams make OpenMP's threads more than the cores; 0 while others leave our threads enough cores, and
    where it would be too many threads.

    others: cores that other programs take; threads: in a team, one of which is the caller.
    """
    if threads == 1 or others <= cores - threads + CROWDED:
        return 0
    needed = (cores - threads) // (threads - 1) + 1
    return needed if needed * threads <= MOST else 0


def _watch() -> None:
    import torch

    cores, teams = os.sched_getaffinity(0), list[Team]()
    try:
        before = time.monotonic(), seconds_of(cores), time.process_time()
        while not END.wait(SECONDS):
            now = time.monotonic(), seconds_of(cores), time.process_time()
            passed, all_of_them, ours = (new - old for new, old in zip(now, before))
            needed, before = teams_needed((all_of_them - ours) / passed, len(cores), torch.get_num_threads()), now
            for team in teams[needed:]:
                team.dismissed.set()
            del teams[needed:]
            teams += [Team() for _ in range(needed - len(teams))]
    except (OSError, ValueError, RuntimeError):
        pass  # what the cores do cannot be read, or there are too many threads: PyTorch goes on as it would without us
    for team in teams:
        team.dismissed.set()


def seconds_of(cores: set[int], stat: Path = STAT) -> float:
    """Seconds that these cores have computed since the machine was started, whoever for."""
    wanted = {f"cpu{core}" for core in cores}
    lines = (line.split() for line in stat.read_text().splitlines())
    ticks = [list(map(int, numbers)) for name, *numbers in lines if name in wanted]
    # user, nice, system, idle, waiting for a disk, two kinds of interrupts, taken by the machine's host
    return sum(sum(one[:3] + one[5:8]) for one in ticks) / os.sysconf("SC_CLK_TCK")


def cpu_share(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """So many cores' time may this process's control group (cgroup v2) and those around it take; infinity without a limit."""
    lines = own.read_text().splitlines() if own.exists() else []
    here = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    share = math.inf
    for folder in [Path(here), *Path(here).parents]:
        limit = groups / folder / "cpu.max"  # "MICROSECONDS PERIOD", or "max PERIOD"
        if limit.exists():
            most, period = limit.read_text().split()
            share = min(share, math.inf if most == "max" else int(most) / int(period))
    return share
