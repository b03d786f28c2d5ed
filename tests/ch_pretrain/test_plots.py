from matplotlib.figure import Figure

from ch_pretrain.plots import draw_looking_back


def axes():
    return Figure().subplots()


def test_looking_back_is_drawn_against_millions_of_tokens():
    ax = axes()
    draw_looking_back(ax, [{"step": 1, "tokens": 5e5, "first_copy": 7.0, "second_copy": 6.0, "induction": 0.0},
                           {"step": 2, "tokens": 1e6, "first_copy": 6.5, "second_copy": 1.5, "induction": 0.7}])
    losses, scores = ax.lines, ax.figure.axes[1].lines
    assert [list(line.get_xdata()) for line in [*losses, *scores]] == [[0.5, 1.0]] * 3
    assert [list(line.get_ydata()) for line in [*losses, *scores]] == [[7.0, 6.5], [6.0, 1.5], [0.0, 0.7]]
    assert len(ax.get_legend().get_texts()) == 3
