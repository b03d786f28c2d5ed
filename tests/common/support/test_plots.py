import pytest
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure

from common.support.plots import draw_losses, draw_numbers, save_picture, smooth


def history(validation: list[float]) -> list[dict]:
    steps = [{"step": n, "epoch": n / 10, "tokens": 100 * n, "train_loss": 3 / n} for n in range(1, 10 * len(validation) + 1)]
    for epoch, loss in enumerate(validation, 1):
        steps[10 * epoch - 1]["validation_loss"] = loss
    return steps


def drawn(**runs: list[dict]):
    ax = Figure().subplots()
    draw_losses(ax, runs)
    return ax


def test_overfitting_is_marked_where_the_validation_loss_turns():
    ax = drawn(run=history([2.0, 1.0, 1.5, 2.0]))
    assert [text.get_text() for text in ax.texts] == ["overfitting\nstarts"]
    assert ax.texts[0].xy[0] == 2.0


def test_nothing_is_marked_while_it_falls_or_stays():
    assert not drawn(run=history([2.0, 1.5, 1.0])).texts
    assert not drawn(run=history([2.0, 1.000, 1.001])).texts


def test_the_legend_says_where_the_validation_loss_ends():
    ax = drawn(run=history([2.0, 0.06, 0.0693]))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training", "validation (last: 0.0693)"]


def test_axes_are_labelled_and_two_runs_named():
    ax = drawn(NTP=history([2.0, 1.0]), SFTMix=history([2.0, 1.1]))
    assert ax.get_xlabel() == "epochs" and "nats" in ax.get_ylabel()
    assert {text.get_text().split(":")[0] for text in ax.get_legend().get_texts()} == {"NTP", "SFTMix"}


def test_tokens_are_counted_in_numbers_that_can_be_read():
    for tokens, name, last in ((2_000, "thousands", 2), (99_000, "thousands", 99), (2_000_000, "millions", 2)):
        above = drawn(run=[{"step": 1, "epoch": 1.0, "tokens": tokens, "train_loss": 2.0}]).child_axes[0]
        assert above.get_xlabel() == f"tokens seen ({name})"
        assert above._functions[0](1.0) == pytest.approx(last)


@pytest.mark.slow
def test_the_steps_of_a_short_run_are_points_even_a_single_one():
    for steps, marker in ((1, "."), (2, "."), (9, "."), (10, ""), (200, "")):
        rows = [{"step": n, "epoch": n / steps, "tokens": n, "train_loss": 3 / n} for n in range(1, steps + 1)]
        line = drawn(run=rows).lines[0]
        assert line.get_marker() == marker and len(line.get_xdata()) == steps


@pytest.mark.slow
def test_the_loss_axis_has_several_readable_ticks_wherever_it_lies():
    for low, high in ((9.5, 10.8), (10.1, 10.9), (1.9, 4.0), (1.6, 8.1), (0.05, 9.0), (0.0011, 0.0013)):
        rows = [{"step": n, "epoch": n / 10, "tokens": n, "train_loss": high - (high - low) * n / 20} for n in range(1, 21)]
        ax = drawn(run=rows)
        ax.figure.draw_without_rendering()
        bottom, top = ax.get_ylim()
        seen = [tick.label1.get_text() for tick in ax.yaxis.get_major_ticks() if bottom <= tick.get_loc() <= top]
        assert 3 <= len(seen) == len(set(seen)) <= 9 and all(len(text) <= 7 for text in seen), (low, high, seen)


def test_many_runs_can_be_drawn_in_as_many_colours():
    ax = drawn(**{f"run{n}": history([2.0, 1.0]) for n in range(7)})
    assert len(ax.lines) == 14 and len({tuple(map(float, to_rgb(line.get_color()))) for line in ax.lines}) == 7


@pytest.mark.slow
def test_a_run_without_validation_can_be_drawn(tmp_path):
    rows = [row for row in history([1.0]) if "validation_loss" not in row]
    save_picture(tmp_path / "a.png", lambda ax: draw_losses(ax, {"run": rows}))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_smoothing_is_the_mean_of_the_last_values():
    assert smooth([1.0, 3.0, 5.0, 7.0], 2) == [1.0, 2.0, 4.0, 6.0]


def test_a_matrix_shows_its_numbers_in_its_cells():
    ax = Figure().subplots()
    draw_numbers(ax, [[1.0, float("-inf")], [0.25, 2.0]], ["a", "b"], ["c", "d"], fills=[[1, 0], [0, 0.5]])
    assert [text.get_text() for text in ax.texts] == ["1", "-∞", "0.25", "2"]
    assert [text.get_position() for text in ax.texts] == [(0, 0), (1, 0), (0, 1), (1, 1)] and ax.yaxis_inverted()
    strengths = [to_rgba(patch.get_facecolor())[3] for patch in ax.patches]
    assert strengths[0] > strengths[3] > strengths[1] == strengths[2] == 0
    assert [label.get_text() for label in [*ax.get_yticklabels(), *ax.get_xticklabels()]] == ["a", "b", "c", "d"]
