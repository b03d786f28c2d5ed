import torch
from matplotlib.figure import Figure

from ch_pretrain.inside import output_shapes
from notebooks.pictures.pretrain import draw_attention, draw_block, draw_next_tokens


def axes():
    return Figure().subplots()


def test_attention_names_both_sides():
    ax = axes()
    draw_attention(ax, torch.eye(2), ["a", " b"])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("looked at", "looking")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "␣b"]


def test_a_layer_adds_twice_and_its_widths_are_those_of_the_model(tiny_model):
    ax = axes()
    draw_block(ax, output_shapes(tiny_model, torch.tensor([[1, 2]])), layers=2)
    texts = [text.get_text() for text in ax.texts]
    assert texts.count("+") == 2 and texts.count("LayerNorm") == 2
    assert [part for part in texts if "→" in part] == ["attention\n32 → 96 → 32", "MLP\n32 → 128 → 32"]
    assert "1 more\nlayers" in texts and "head: logits\n257" in texts


def test_next_tokens_of_each_setting_stand_side_by_side():
    ax = axes()
    draw_next_tokens(ax, {"cold": torch.tensor([0.9, 0.1]), "hot": torch.tensor([0.6, 0.4])}, ["a", "b"])
    assert [round(bar.get_height(), 3) for bar in ax.patches] == [0.9, 0.1, 0.6, 0.4]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["cold", "hot"]
