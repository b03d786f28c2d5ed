import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ch_sftmix.plots import draw_between, draw_confidence, draw_data_map, draw_mixup, draw_reliability

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


def test_mixed_points_lie_on_the_lines_at_lambda():
    torch.manual_seed(0)
    ax = axes()
    draw_mixup(ax, torch.randn(3, 8), torch.randn(3, 8), 0.25, [("a", "x"), ("b", "y"), ("c", "z")])
    sure, unsure, mixed = (torch.tensor(points.get_offsets().data) for points in ax.collections)
    torch.testing.assert_close(mixed, 0.25 * sure + 0.75 * unsure)
    assert sorted(text.get_text() for text in ax.texts) == ["1: 'a'", "1: 'x'", "2: 'b'", "2: 'y'", "3: 'c'", "3: 'z'"]


def test_between_shows_both_tokens_of_each_model_and_the_target():
    ax = axes()
    lams = torch.linspace(0, 1, 3)
    draw_between(ax, lams, {"NTP": torch.tensor([[0.0, 1.0], [0.3, 0.3], [1.0, 0.0]])})
    drawn = [list(line.get_ydata()) for line in ax.lines]
    assert drawn[:2] == [[0, 0.5, 1], [1, 0.5, 0]]
    assert torch.allclose(torch.tensor(drawn[2:]), torch.tensor([[0.0, 0.3, 1.0], [1.0, 0.3, 0.0]]))


def test_the_reliability_diagram_shows_means_of_bins_and_leaves_empty_ones_out():
    ax = axes()
    bins = torch.tensor([[4.0, 1.2, 1.0], [0.0, 0.0, 0.0], [2.0, 1.8, 2.0]])  # how many, sum of probabilities, right ones
    draw_reliability(ax, {"ntp": bins, "sftmix": bins})
    _, drawn, _ = ax.lines
    torch.testing.assert_close(torch.tensor(drawn.get_xydata()).float(), torch.tensor([[0.3, 0.25], [0.9, 1.0]]))
    assert names(ax) == ["as sure as right", "ntp", "sftmix"]
