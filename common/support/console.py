"""What commands print: lines, tables, and the progress of a long computation (a bar in a terminal, plain lines elsewhere)."""

import os
import sys
import time
from collections.abc import Sequence
from itertools import accumulate

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15.0
WIDTH = 100  # columns of a terminal for which wide tables are folded
EARLY = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {rate_fmt}{postfix}]"  # tqdm's bar without the time left


def rank() -> int:
    """This process's number, from 0; known before it has joined the others (`distributed.py`)."""
    return int(os.environ.get("RANK", 0))


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


# A terminal obeys control characters: it would move, colour and hide text as whoever wrote it likes.
CONTROL = dict.fromkeys({*range(32), *range(127, 160)} - {ord("\n"), ord("\t")}, "\ufffd")


def say(text: str = "") -> None:
    """Print from the main process only, at once; control characters, which come from others, as U+FFFD."""
    if is_main():
        tqdm.write(text.translate(CONTROL), file=sys.stdout)
        sys.stdout.flush()


def duration(seconds: float) -> str:
    """A time for people: "45 s", "12 min", "3.4 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


class Progress:
    """How far the work is, how fast it goes, and how long it will take.

    with Progress("training", total=1000, unit="tok") as progress:
        progress.advance(64, "loss 2.31")

    `done` is what an earlier, interrupted run has already done.
    """

    def __init__(self, what: str, total: int, unit: str, done: int = 0):
        self.what, self.total, self.unit = what, total, unit
        self.done = self.done_before = done
        self.start = self.last_line = time.monotonic()
        self.bar = None
        if is_main() and sys.stderr.isatty():
            self.bar = tqdm(desc=what, total=total, initial=done, unit=unit, unit_scale=True, leave=False, dynamic_ncols=True,
                            bar_format=EARLY)

    def can_estimate(self, now: float) -> bool:
        """Whether the time left means something yet: the first steps are slow, and the first texts to end are short."""
        return now - self.start >= 120 or self.done - self.done_before >= 0.05 * (self.total - self.done_before)

    def advance(self, amount: int, note: str = "") -> None:
        """So much more is done; `note` is shown beside it."""
        self.done += amount
        now = time.monotonic()
        if self.bar is not None:
            if self.can_estimate(now):
                self.bar.bar_format = None
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(amount)
        elif now - self.last_line >= SECONDS_BETWEEN_LINES and self.done > self.done_before:  # of nothing there is no speed
            self.last_line = now
            rate = (self.done - self.done_before) / (now - self.start)
            left = max(self.total - self.done, 0) / rate
            speed = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
            told = f", {duration(left)} left" if self.can_estimate(now) else ""
            say(f"  {self.what}: {self.done / self.total:.0%}, {speed} {self.unit}/s{told}  {note}".rstrip())

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


def table(headings: list[str], rows: list[list[str]], width: int | None = None) -> str:
    """Rows under headings, the first column to the left, the others to the right.

    Columns that would go beyond `width` characters follow below, beside the first column again.
    """
    widths = [max(map(len, column)) for column in zip(headings, *rows)]
    if width is not None:
        fit = max(2, sum(total <= width + 2 for total in accumulate(size + 2 for size in widths)))  # columns side by side
        if len(headings) > fit:
            below = table([headings[0], *headings[fit:]], [[row[0], *row[fit:]] for row in rows], width)
            return table(headings[:fit], [row[:fit] for row in rows]) + "\n\n" + below

    def line(cells: list[str]) -> str:
        return "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:]))]).rstrip()

    return "\n".join([line(headings), "  ".join("-" * width for width in widths), *map(line, rows)])


def short_names(paths: Sequence[str]) -> list[str]:
    """Each path by as few of its last parts as tell it from all the others, a number never alone: runs/a/001 -> a/001."""
    parts = [[part for part in path.split("/") if part] or [path] for path in paths]

    def tail(own: list[str]) -> str:
        length = 1 + own[-1].isdecimal()
        while length < len(own) and sum(other[-length:] == own[-length:] for other in parts) > 1:
            length += 1
        return "/".join(own[-length:])

    return [tail(own) for own in parts]


def shorten(text: str, length: int = 90) -> str:
    """The text on one line, cut to `length` characters; control characters as in `say`."""
    line = " ".join(text.split()).translate(CONTROL)
    return line if len(line) <= length else line[:length - 3] + "..."
