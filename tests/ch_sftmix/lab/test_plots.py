import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ch_sftmix.lab.plots import draw_reliability

PERPLEXITIES = torch.tensor([[1.1, 5.0, 1.2, 9.0], [1.1, 3.0, 1.1, 9.0]])  # [C, N]


HALVES = ([0, 2], [1, 3])


def axes() -> Axes:
    return Figure().subplots()


def names(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_reliability_diagram_shows_means_of_bins_and_leaves_empty_ones_out():
    ax = axes()
    bins = torch.tensor([[4.0, 1.2, 1.0], [0.0, 0.0, 0.0], [2.0, 1.8, 2.0]])  # how many, sum of probabilities, right ones
    draw_reliability(ax, {"ntp": bins, "sftmix": bins})
    _, drawn, _ = ax.lines
    torch.testing.assert_close(torch.tensor(drawn.get_xydata()).float(), torch.tensor([[0.3, 0.25], [0.9, 1.0]]))
    assert names(ax) == ["as sure as right", "ntp", "sftmix"]
