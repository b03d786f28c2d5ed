from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ch_delift.lab.plots import draw_differences


def axes() -> Axes:
    return Figure().subplots()


def test_differences_stand_with_their_intervals_a_row_for_each_condition():
    ax = axes()
    draw_differences(ax, {"plain": {"steps": (1.0, 2.0), "epochs": (-1.0, 0.5), "both": (0.0, 9.0)},
                          "noisy": {"steps": (3.0, 1.0), "epochs": (0.0, 1.0), "both": (0.0, 9.0)}}, "points")
    steps, epochs, _ = ax.containers
    assert list(steps.lines[0].get_xdata()) == [1, 3] and list(epochs.lines[0].get_xdata()) == [-1, 0]
    assert [segment[:, 0].tolist() for segment in steps.lines[2][0].get_segments()] == [[-1, 3], [2, 4]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["plain", "noisy"] and ax.yaxis_inverted()
