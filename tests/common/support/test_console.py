"""What a long computation shows."""

from types import SimpleNamespace

import pytest

from common.support import console


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2.0 h"),
                                               (12_345, "3.4 h"), (4e7, "11,111.1 h")])
def test_times_are_told_in_a_unit_that_fits(seconds, said):
    assert console.duration(seconds) == said


def test_a_line_tells_share_speed_and_time_left(monkeypatch, capsys):
    now = iter([100.0, 105.0, 250.0])  # begun; too early for a line; after 150 s
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(now)))
    with console.Progress("training", 10_000, "tok", done=1000) as progress:
        progress.advance(1)
        progress.advance(149, "loss 1.0")
    assert capsys.readouterr().out == "  training: 12%, 1 tok/s, 2.5 h left  loss 1.0\n"  # 8,850 tokens at 1 a second


def test_the_time_left_is_told_when_it_means_something(monkeypatch, capsys):
    """After two minutes or a twentieth of what there is to do, whichever comes first."""
    now = iter([100.0, 120.0, 140.0, 160.0])
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(now)))
    with console.Progress("answering", 1000, "text", done=500) as progress:
        for amount in (10, 14, 1):
            progress.advance(amount)
    told = capsys.readouterr().out.splitlines()
    assert ["left" in line for line in told] == [False, False, True]
    assert told[0] == "  answering: 51%, 0.5 text/s" and told[2] == "  answering: 52%, 0.42 text/s, 19 min left"


def test_a_wide_table_goes_on_below():
    headings, rows = ["", *(f"column {n}" for n in range(9))], [[f"row {n}", *(str(n * m) for m in range(9))] for n in range(3)]
    folded = console.table(headings, rows, 40)
    assert max(map(len, folded.splitlines())) <= 40
    parts = [part.splitlines() for part in folded.split("\n\n")]
    assert len(parts) == 3 and all([line[:5] for line in part[2:]] == ["row 0", "row 1", "row 2"] for part in parts)
    assert [line for part in parts for line in part[-1].split()[2:]] == [str(2 * m) for m in range(9)]
    assert console.table(headings, rows, 1000) == console.table(headings, rows)
    assert console.table(["", "x" * 60], [["a", "b"]], 40) == console.table(["", "x" * 60], [["a", "b"]])  # cannot be folded


def test_no_line_is_shown_while_nothing_is_done(monkeypatch, capsys):
    """The first long answers: a quarter of a minute without one."""
    now = iter([100.0, 130.0, 140.0])
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(now)))
    with console.Progress("answering", 10, "text") as progress:
        progress.advance(0)
        progress.advance(4)
    assert capsys.readouterr().out == "  answering: 40%, 0.1 text/s, 60 s left\n"
