import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ch_sftmix.plots import draw_confidence, draw_data_map

PERPLEXITIES = torch.tensor([[1.1, 5.0, 1.2, 9.0], [1.1, 3.0, 1.1, 9.0]])  # [C, N]
HALVES = ([0, 2], [1, 3])


def axes() -> Axes:
    return Figure().subplots()


def names(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_histogram_holds_every_example_once():
    ax = axes()
    draw_confidence(ax, PERPLEXITIES, HALVES)
    assert sum(bar.get_height() for bar in ax.patches) == 4
    assert "confident half (2)" in names(ax)


def test_the_data_map_rings_wrong_answers():
    ax = axes()
    draw_data_map(ax, PERPLEXITIES, HALVES, wrong=[3])
    *_, rings = ax.collections
    assert rings.get_offsets()[0, 1] == 8  # mean perplexity 9, minus 1
    assert names(ax)[-1] == "wrong answer (1)"
    plain = axes()
    draw_data_map(plain, PERPLEXITIES, HALVES)
    assert len(plain.collections) == 2
