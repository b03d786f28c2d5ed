import torch
from matplotlib.figure import Figure

from ch_pretrain.plots import draw_attention, draw_looking_back, draw_next_tokens, draw_shapes


def axes():
    return Figure().subplots()


def test_attention_names_both_sides():
    ax = axes()
    draw_attention(ax, torch.eye(2), ["a", " b"])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("looked at", "looking")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "␣b"]


def test_bars_are_as_long_as_the_last_dimension_and_say_the_shape():
    ax = axes()
    draw_shapes(ax, {"embeddings": (1, 5, 32), "logits": (1, 5, 100)})
    assert [bar.get_width() for bar in ax.patches] == [32, 100]
    assert [text.get_text().strip() for text in ax.texts] == ["[1, 5, 32]", "[1, 5, 100]"]


def test_next_tokens_of_each_setting_stand_side_by_side():
    ax = axes()
    draw_next_tokens(ax, {"cold": torch.tensor([0.9, 0.1]), "hot": torch.tensor([0.6, 0.4])}, ["a", "b"])
    assert [round(bar.get_height(), 3) for bar in ax.patches] == [0.9, 0.1, 0.6, 0.4]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["cold", "hot"]


def test_looking_back_is_drawn_against_millions_of_tokens():
    ax = axes()
    draw_looking_back(ax, [{"step": 1, "tokens": 5e5, "first_copy": 7.0, "second_copy": 6.0, "induction": 0.0},
                           {"step": 2, "tokens": 1e6, "first_copy": 6.5, "second_copy": 1.5, "induction": 0.7}])
    losses, scores = ax.lines, ax.figure.axes[1].lines
    assert [list(line.get_xdata()) for line in [*losses, *scores]] == [[0.5, 1.0]] * 3
    assert [list(line.get_ydata()) for line in [*losses, *scores]] == [[7.0, 6.5], [6.0, 1.5], [0.0, 0.7]]
    assert len(ax.get_legend().get_texts()) == 3
