from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from notebooks.pictures.tokens import NEW, PLAIN, draw_grid, draw_tokens, visible


def axes():
    return Figure().subplots()


def fills(ax) -> list[str]:
    return [to_hex(patch.get_facecolor()) for patch in ax.patches]


def test_spaces_line_breaks_and_the_end_can_be_seen():
    assert visible(" a\n<|endoftext|>") == "␣a↵<end>"


def test_tokens_stand_in_boxes_as_wide_as_their_text_and_the_new_one_is_set_off():
    ax = axes()
    draw_tokens(ax, [("bytes", ["a", "b", " "]), ("1", ["ab", " "])], [None, "ab"])
    assert [text.get_text() for text in ax.texts] == ["a", "b", "␣", "ab", "␣"]
    assert [round(patch.get_width() + 0.12) for patch in ax.patches] == [1, 1, 1, 2, 1]
    assert fills(ax) == [PLAIN, PLAIN, PLAIN, NEW, PLAIN]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["bytes", "1"]


def test_a_grid_has_a_cell_for_each_position_and_a_legend_of_the_kinds_in_use():
    ax = axes()
    draw_grid(ax, [("row 0", ["a", "b"]), ("row 1", ["c"])], [["prompt", "answer"], ["prompt"]],
              {"prompt": "#eeeeee", "answer": "#1b3a6b", "padding": "#ffffff"})
    assert fills(ax) == ["#eeeeee", "#1b3a6b", "#eeeeee"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["prompt", "answer"]
    assert ax.get_xlabel() == "position" and len(ax.get_xticks()) == 2


def test_words_stay_inside_their_cells():
    ax = Figure(figsize=(6, 2)).subplots()
    draw_grid(ax, [("row", ["Assistant", "a"] * 8)], [["prompt"] * 16], {"prompt": "#eeeeee"})
    ax.figure.draw_without_rendering()
    cell = ax.get_window_extent().width / 16
    widths = [text.get_window_extent().width for text in ax.texts]
    assert max(widths) < cell and ax.texts[0].get_fontsize() < ax.texts[1].get_fontsize() == 8
