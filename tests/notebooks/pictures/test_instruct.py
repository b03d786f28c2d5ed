from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from ch_instruct.collate import collate
from ch_instruct.encoding import Example
from common.losses import IGNORE_INDEX
from notebooks.pictures.instruct import KINDS, NOT_ASKED, draw_answer_losses, draw_batch, draw_families, token_kinds


def axes():
    return Figure().subplots()


def test_kinds_follow_the_positions():
    assert token_kinds(Example([1, 2, 3, 256], 2), 5) == ["prompt", "prompt", "response", "end of text", "padding"]
    turns = Example([1, 2, 256, 3, 256], 1, ((1, 3), (4, 5)))
    assert token_kinds(turns, 5) == ["prompt", "response", "end of text", "prompt", "end of text"]


def test_a_batch_shows_what_is_asked_and_what_is_not(tokenizer):
    example = Example([*b"ab", *b"c", tokenizer.eot_id], 2)
    inputs, targets = collate([example], tokenizer.eot_id)
    kinds = token_kinds(example, 4)
    ax = axes()
    draw_batch(ax, [("inputs", inputs[0].tolist(), kinds[:-1]), ("targets", targets[0].tolist(), kinds[1:])], tokenizer)
    assert [text.get_text() for text in ax.texts] == ["a", "b", "c", str(IGNORE_INDEX), "c", "<end>"]
    assert [to_hex(patch.get_facecolor()) for patch in ax.patches][3:] == [
        to_hex(KINDS[kind]) for kind in (NOT_ASKED, "response", "end of text")]
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"prompt", "response", "end of text", NOT_ASKED}


def test_families_are_ordered_by_the_last_arm():
    ax = axes()
    draw_families(ax, {"before": {"sums": 0.0, "colors": 0.1}, "after": {"sums": 0.9, "colors": 0.5}})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["colors", "sums"]
    assert [bar.get_width() for bar in ax.patches] == [0.1, 0.0, 0.5, 0.9]


def test_families_with_everything_right_share_a_bar():
    ax = axes()
    draw_families(ax, {"before": {"a": 0.2, "b": 0.4, "c_d": 0.5}, "after": {"a": 1.0, "b": 1.0, "c_d": 0.5}})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["c d", "2 families with 100 %"]
    assert [round(bar.get_width(), 2) for bar in ax.patches] == [0.5, 0.3, 0.5, 1.0]


def test_an_arm_without_a_right_answer_has_no_bars_and_is_named():
    ax = axes()
    draw_families(ax, {"base": {"sums": 0.0, "colors": 0.0}, "after": {"sums": 0.9, "colors": 0.5}})
    assert [bar.get_width() for bar in ax.patches] == [0.5, 0.9]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["after"]
    assert ax.get_xlabel() == "exact match (base: 0 % everywhere)"


def test_every_question_is_in_one_of_the_two_histograms():
    ax = axes()
    draw_answer_losses(ax, [0.0, 0.01, 0.2, 3.0], [True, True, False, False])
    assert sum(patch.get_height() for patch in ax.patches) == 4
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["answered rightly (2)", "answered wrongly (2)"]


def test_the_kinds_of_tokens_can_be_told_apart_in_grey():
    greys = sorted(sum(share * part for share, part in zip((0.299, 0.587, 0.114), to_rgb(colour))) for colour in KINDS.values())
    assert all(lighter - darker > 0.04 for darker, lighter in zip(greys, greys[1:]))
