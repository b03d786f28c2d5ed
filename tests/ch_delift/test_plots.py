import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ch_delift.plots import draw_fractions, draw_gains, draw_pair, draw_steps, draw_utility, knee


def axes() -> Axes:
    return Figure().subplots()


def test_chosen_columns_are_marked():
    ax = axes()
    draw_utility(ax, np.arange(6.0).reshape(2, 3), np.array([True, False, True]))
    assert ax.lines[0].get_xdata().tolist() == [0, 2]


def test_the_knee_is_the_point_furthest_above_the_line():
    assert knee([5.0, 4.0, 0.5, 0.5]) == 2
    ax = axes()
    draw_gains(ax, [5.0, 4.0, 0.5, 0.5], n=8)
    assert ax.lines[0].get_ydata().tolist() == [0, 5, 9, 9.5, 10]
    assert "knee: 2 examples (25%)\n90% of the value" == ax.texts[0].get_text()


def test_fractions_show_the_band_of_random_choices():
    ax = axes()
    draw_fractions(ax, {0.1: {"delift": [0.5], "random": [0.2, 0.6]}, 1.0: {"full": [0.9]}}, "exact match")
    assert [line.get_ydata()[0] for line in ax.lines] == [0.4, 0.5, 0.9]


def test_a_pair_shows_each_token_without_and_with_the_example():
    ax = axes()
    draw_pair(ax, ["The", " cat"], np.array([0.1, 0.2]), np.array([0.3, 0.9]))
    assert [bar.get_height() for bar in ax.patches] == [0.1, 0.2, 0.3, 0.9]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["'The'", "' cat'"]


def test_steps_pile_up_to_the_cover():
    ax = axes()
    s = np.array([[0.5, 0.75, 0.0], [0.25, 0.0, 1.0]])
    draw_steps(ax, s, [0, 2])
    assert [bar.get_height() for bar in ax.patches] == [0.5, 0.25, 0.0, 0.75]
    assert [bar.get_y() for bar in ax.patches] == [0, 0, 0.5, 0.25]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["choice 1: +0.75", "choice 2: +0.75"]
