import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ch_delift.plots import (
    draw_fractions,
    draw_gains,
    draw_map,
    draw_utility,
    knee,
)


def axes() -> Axes:
    return Figure().subplots()


def test_the_knee_is_where_the_curve_bends():
    assert knee([5.0, 5.0, 5.0, 0.1, 0.1, 0.1, 0.1]) == 3
    assert knee([1.0]) == knee([2.0, 2.0, 2.0]) == 0  # a straight line has no bend


def test_the_gain_curve_rises_to_the_sum():
    ax = axes()
    draw_gains(ax, [3.0, 2.0, 1.0, 0.0], n=8)
    x, y = ax.lines[0].get_data()
    assert y.tolist() == [0, 3, 5, 6, 6] and x.tolist() == [0, 1 / 8, 2 / 8, 3 / 8, 4 / 8]
    assert "knee" in ax.texts[0].get_text() and ax.get_xlabel() and ax.get_ylabel()


def test_the_heat_map_shows_every_pair_and_marks_the_chosen():
    ax = axes()
    utility = np.array([[0.1, np.nan, -0.2], [0.0, 0.3, np.nan]])
    draw_utility(ax, utility, np.array([True, False, True]), ["a", "b"], ["a", "a", "b"])
    np.testing.assert_array_equal(np.isnan(ax.images[0].get_array().filled(np.nan)), np.isnan(utility))
    assert ax.lines[0].get_xdata().tolist() == [0, 2]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b"]


def test_the_map_shows_chosen_others_and_targets():
    ax = axes()
    vectors = np.random.default_rng(0).normal(size=(20, 5))
    draw_map(ax, vectors, [1, 4], vectors[:3], "target")
    assert [len(c.get_offsets()) for c in ax.collections] == [20, 2, 3]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["not chosen (18)", "chosen (2)", "target (3)"]


def test_the_band_of_random_is_its_lowest_to_its_highest():
    ax = axes()
    draw_fractions(ax, {0.1: {"delift": [0.5], "random": [0.2, 0.4, 0.3]}, 0.3: {"delift": [0.6], "random": [0.4, 0.5, 0.6]},
                        1.0: {"full": [0.7]}}, "exact match")
    mean, chosen, full = ax.lines
    np.testing.assert_allclose(mean.get_ydata(), [0.3, 0.5, 0.7])
    assert list(chosen.get_ydata()) == [0.5, 0.6, 0.7] and (list(full.get_xdata()), list(full.get_ydata())) == ([1], [0.7])
    band = ax.collections[0].get_paths()[0].vertices
    assert {0.2, 0.4, 0.6} <= set(np.round(band[:, 1], 6))


def test_help_and_harm_are_apart_in_grey():
    ax = axes()
    draw_utility(ax, np.array([[-0.3, 0.0, 0.3]]), np.zeros(3, dtype=bool))
    image = ax.images[0]
    red, green, blue, _ = np.moveaxis(image.cmap(image.norm(np.linspace(-0.3, 0.3, 7))), -1, 0)
    assert (np.diff(0.299 * red + 0.587 * green + 0.114 * blue) < -0.03).all()  # always darker


def test_the_heat_map_needs_no_groups():
    ax = axes()
    draw_utility(ax, np.arange(6.0).reshape(2, 3), np.array([True, False, True]))
    assert ax.lines[0].get_xdata().tolist() == [0, 2]
