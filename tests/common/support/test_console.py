"""What a long computation shows."""

from types import SimpleNamespace

import pytest

from common.support import console


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2.0 h"),
                                               (12_345, "3.4 h"), (4e7, "11,111.1 h")])
def test_times_are_told_in_a_unit_that_fits(seconds, said):
    assert console.duration(seconds) == said


def test_a_line_tells_share_speed_and_time_left(monkeypatch, capsys):
    now = iter([100.0, 105.0, 120.0])  # begun; too early for a line; after 20 s
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(now)))
    with console.Progress("training", 10_000, "tok", done=1000) as progress:
        progress.advance(1)
        progress.advance(19, "loss 1.0")
    assert capsys.readouterr().out == "  training: 10%, 1 tok/s, 2.5 h left  loss 1.0\n"  # 8,980 tokens at 1 a second


def test_no_line_is_shown_while_nothing_is_done(monkeypatch, capsys):
    """The first long answers: a quarter of a minute without one."""
    now = iter([100.0, 130.0, 140.0])
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(now)))
    with console.Progress("answering", 10, "text") as progress:
        progress.advance(0)
        progress.advance(4)
    assert capsys.readouterr().out == "  answering: 40%, 0.1 text/s, 60 s left\n"
