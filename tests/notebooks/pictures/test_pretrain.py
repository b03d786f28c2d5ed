import torch
from matplotlib.figure import Figure

from ch_pretrain.inside import output_shapes
from notebooks.pictures.pretrain import draw_attention, draw_block, draw_next_tokens, draw_split, draw_two_heads


def axes():
    return Figure().subplots()


def test_attention_names_both_sides():
    ax = axes()
    draw_attention(ax, torch.eye(2), ["a", " b"])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("attended to (key)", "attends (query)")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "␣b"]


def test_cells_that_a_head_should_attend_to_are_framed():
    ax = axes()
    draw_attention(ax, torch.eye(3), ["a", "b", "c"], [(2, 1)])
    [frame] = ax.patches
    assert frame.get_xy() == (0.5, 1.5) and not frame.get_fill()  # the cell of query 2 and key 1


def test_the_split_gives_each_head_its_share_of_each_row():
    ax = axes()
    draw_split(ax, T=2, D=6, H=3)
    colours = [patch.get_facecolor() for patch in ax.patches]
    assert len(colours) == 2 * 6 * (1 + 3) + 2 * 6  # x, q, k and v, and q again, cut
    heads = colours[-12:]
    assert [colours.count(colour) for colour in dict.fromkeys(heads)] == [2 * 2 * 4] * 3  # T times Dh, in q, k, v and cut
    assert "q of each head [H, T, Dh] = [3, 2, 2]" in [text.get_text() for text in ax.texts]


def test_two_heads_find_what_came_after_the_word():
    ax = axes()
    draw_two_heads(ax, ["a", "b", "c", "a"])
    texts = [text.get_text() for text in ax.texts]
    assert "b\n(after a)" in texts and "a\nnext: b" in texts and "induction head: who stands after a?" in texts


def test_a_layer_adds_twice_and_its_widths_are_those_of_the_model(tiny_model):
    ax = axes()
    draw_block(ax, output_shapes(tiny_model, torch.tensor([[1, 2]])), layers=2)
    texts = [text.get_text() for text in ax.texts]
    assert texts.count("+") == 2 and texts.count("LayerNorm") == 2
    assert [part for part in texts if "→" in part] == ["attention\n32 → 96 → 32", "MLP\n32 → 128 → 32"]
    assert "1 more\nlayers" in texts and "output head:\nlogits\n257" in texts


def test_next_tokens_of_each_setting_stand_side_by_side():
    ax = axes()
    draw_next_tokens(ax, {"cold": torch.tensor([0.9, 0.1]), "hot": torch.tensor([0.6, 0.4])}, ["a", "b"])
    assert [round(bar.get_height(), 3) for bar in ax.patches] == [0.9, 0.1, 0.6, 0.4]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["cold", "hot"]
