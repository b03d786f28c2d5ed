from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ch_delift.lab.plots import draw_differences, draw_margins


def axes() -> Axes:
    return Figure().subplots()


def test_margins_are_drawn_from_the_smallest_fraction_a_colour_for_each_condition():
    ax = axes()
    draw_margins(ax, {"skewed": {0.3: {"DELIFT": 1.0, "SE": 2.0}, 0.1: {"DELIFT": 5.0, "SE": 4.0}},
                    "target": {0.1: {"DELIFT": 7.0, "SE": 8.0}, 0.3: {"DELIFT": 3.0, "SE": 0.0}}})
    *lines, _ = ax.lines
    assert [list(line.get_ydata()) for line in lines] == [[5, 1], [4, 2], [7, 3], [8, 0]]
    assert [line.get_linestyle() for line in lines] == ["-", "--"] * 2
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()
    assert [t.get_text() for t in ax.get_legend().get_texts()][:2] == ["skewed: DELIFT", "skewed: SE"]


def test_differences_stand_with_their_intervals_a_row_for_each_condition():
    ax = axes()
    draw_differences(ax, {"plain": {"steps": (1.0, 2.0), "epochs": (-1.0, 0.5)},
                          "noisy": {"steps": (3.0, 1.0), "epochs": (0.0, 1.0)}}, "points")
    steps, epochs = ax.containers
    assert list(steps.lines[0].get_xdata()) == [1, 3] and list(epochs.lines[0].get_xdata()) == [-1, 0]
    assert [segment[:, 0].tolist() for segment in steps.lines[2][0].get_segments()] == [[-1, 3], [2, 4]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["plain", "noisy"] and ax.yaxis_inverted()
