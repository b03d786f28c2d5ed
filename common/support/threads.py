"""How PyTorch's threads wait for each other, and how many there are. OpenMP reads this once, while PyTorch is loaded.

Between two pieces of work, threads wait by spinning: they ask in a loop whether there is more to do. So they begin at once. But
where another program needs a core, they may wait for a thread that has none, and take the core that it needs. Then training
takes three times as long as with a short spin followed by sleep. Without another program the short spin is as fast.
"""

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

SHORT_SPIN = {"GOMP_SPINCOUNT": "1000",  # GNU's OpenMP (Linux): turns of the loop, by default 300,000
              "KMP_BLOCKTIME": "1"}  # LLVM's (macOS) and Intel's: milliseconds, by default 200


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what the user has not set: a short spin; and where a container may take less than all cores, that many threads."""
    if "OMP_WAIT_POLICY" not in environment:  # the user's word for all of them
        for name, value in SHORT_SPIN.items():
            environment.setdefault(name, value)
    # PyTorch looks at the cores on which this process may run, but not at the share of them that its container may take.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if (share := cpu_share()) < cores:
        environment.setdefault("OMP_NUM_THREADS", str(math.ceil(share)))


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
