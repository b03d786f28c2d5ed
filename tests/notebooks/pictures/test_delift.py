import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from notebooks.pictures.delift import draw_choice, draw_pair, draw_steps, draw_trace


def axes() -> Axes:
    return Figure().subplots()


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


def test_a_choice_shows_what_covers_each_target_and_what_each_candidate_adds():
    ax = axes()
    s = np.array([[0.5, 0.7, 0.0], [0.2, 0.0, 1.0], [0.0, 0.0, 0.0]])
    draw_choice(ax, s, [0, 1], np.array([0.0, 0.0, 0.8]))
    filled = [i for i, patch in enumerate(ax.patches) if patch.get_facecolor()[3] > 0]
    assert filled == [1, 3]  # target 0 has its best helper in candidate 1, target 1 in candidate 0, target 2 none
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0\nchosen", "1\nchosen", "2\n+0.8"]
    plain = axes()
    draw_choice(plain, s, [], np.array([0.7, 0.7, 1.0]))
    assert all(patch.get_facecolor()[3] == 0 for patch in plain.patches)


def test_a_trace_marks_what_was_computed_and_what_was_chosen():
    ax = axes()
    draw_trace(ax, [(0, range(3)), (1, [2]), (1, [0])], [1, 0], order=np.array([1, 2, 0]))
    assert ax.images[0].get_array().tolist() == [[1, 0], [1, 1], [1, 1]]  # candidates 1, 2, 0 from top to bottom
    assert ax.lines[0].get_xydata().tolist() == [[0, 0], [1, 2]]
