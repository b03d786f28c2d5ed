"""Bounds for code that is being graded: time, output and memory of its process. They stop accidents, not malice."""

import contextlib
import os
import sys
import threading
from functools import partial
from typing import Any

import psutil  # comes with ipykernel

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MOST_CHARACTERS = 200_000  # that a cell may print
MOST_MEMORY = 4 << 30  # bytes of the process
GRACE = 5.0  # seconds for a cell that is interrupted to end by itself


def apply(shell: Any, seconds_per_cell: float) -> int:
    """Bound every cell that runs after this one in the same process.

    A cell that prints or shows more than MOST_CHARACTERS fails, and so does one that takes more memory than MOST_MEMORY (where
    the system can say so), or calls quit(). Programs that a cell starts end with it. The process ends where they, or
    threads, print so much, and where a cell is still at work GRACE seconds after it should have been interrupted.

    Args:
        shell: IPython's, as `get_ipython()` gives it in a cell.

    Returns:
        The number of the process, and of the group that it leads, to which the programs belong that it starts.
    """
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    printed, timers = 0, [threading.Timer(0, print)]

    def count(characters: int) -> None:
        nonlocal printed
        printed += characters
        if printed > MOST_CHARACTERS:
            if threading.current_thread() is not threading.main_thread():  # where what a program prints is read
                os._exit(1)  # an error here would stop nobody
            raise RuntimeError(f"more than {MOST_CHARACTERS:,} characters are printed; is there a loop that never ends?")

    def write_bounded(stream: Any, text: str) -> Any:
        count(len(text))
        return type(stream).write(stream, text)

    def begin(*_: Any) -> None:
        nonlocal printed
        printed = 0
        for stream in (sys.stdout, sys.stderr):  # anew for each cell, as IPython puts back after each what was there before
            stream.write = partial(write_bounded, stream)  # type: ignore[method-assign]
        timers[0] = threading.Timer(seconds_per_cell + GRACE, os._exit, [1])
        timers[0].daemon = True
        timers[0].start()

    def end(*_: Any) -> None:
        timers[0].cancel()
        for program in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                program.kill()

    def bounded_display(message: Any) -> Any:
        count(len(str(message["content"])))
        return message

    def refuse(*_: Any) -> None:
        raise RuntimeError("quit() and exit() end Python, and with it the notebook; leave them out")

    shell.events.register("pre_run_cell", begin)
    shell.events.register("post_run_cell", end)
    shell.display_pub.register_hook(bounded_display)
    shell.user_ns.update(quit=refuse, exit=refuse)
    return os.getpid()
