import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from notebooks.pictures.sftmix import draw_between, draw_mixup

PERPLEXITIES = torch.tensor([[1.1, 5.0, 1.2, 9.0], [1.1, 3.0, 1.1, 9.0]])  # [C, N]


HALVES = ([0, 2], [1, 3])


def axes() -> Axes:
    return Figure().subplots()


def names(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


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
