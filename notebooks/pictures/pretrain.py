"""Pictures of notebook 01: attention, the split into heads, two heads at work, a block, the next token."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from common.support.plots import ACCENT, DARK, LIGHT
from common.tokenizer import visible


def draw_attention(ax: Axes, weights: Tensor, tokens: list[str], framed: Sequence[tuple[int, int]] = ()) -> None:
    """Heat map of one head: each row is the query of a token, each column the key of a token.

    Args:
        weights: float [T, T], rows that add up to 1.
        framed: cells, as (row, column), that get a frame.
    """
    image = ax.imshow(weights.numpy(), cmap="Blues", vmin=0, vmax=1)
    names = [visible(token) for token in tokens]
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set(xlabel="attended to (key)", ylabel="attends (query)")
    for row, column in framed:
        ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=ACCENT, linewidth=1.5))
    ax.figure.colorbar(image, ax=ax, label="share of attention")


def draw_block(ax: Axes, shapes: dict[str, tuple[int, ...]], layers: int) -> None:
    """A token's way through the model: a stream of one width from left to right, and the two additions of a layer.

    Args:
        shapes: of each module's output, as `inside.output_shapes` gives them; the last numbers are shown.
        layers: how many there are; one is drawn.
    """
    width, qkv, inner, scores = (shapes[name][-1] for name in ("drop", "h.0.attn.c_attn", "h.0.mlp.c_fc", "logits"))

    def box(x: float, y: float, text: str, colour: str = "white") -> None:
        ax.text(x, y, text, ha="center", va="center", fontsize=8, zorder=3,
                bbox={"boxstyle": "round,pad=0.4", "facecolor": colour, "edgecolor": DARK})

    ax.plot([0, 15], [0, 0], color=LIGHT, linewidth=5, zorder=1)  # the stream
    box(0, 0, f"embeddings\n(token + position)\n{width}")
    for start, part, inside in ((1.7, "attention", qkv), (6.1, "MLP", inner)):
        ax.plot([start, start, start + 3.7, start + 3.7], [0, 1, 1, 0], color=DARK, linewidth=1.2, zorder=1)  # read, and back
        box(start + 0.55, 1, "LayerNorm")
        box(start + 2.5, 1, f"{part}\n{width} → {inside} → {width}", "#dfe5ee")
        ax.text(start + 3.7, 0, "+", ha="center", va="center", fontsize=11, zorder=3,
                bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": DARK})
    ax.add_patch(Rectangle((1.3, -0.45), 8.9, 2, fill=False, edgecolor="0.5", linestyle="--"))
    ax.text(1.4, 1.6, f"layer 0, the first of {layers} that are built alike", va="bottom", fontsize=8)
    box(11.4, 0, f"{layers - 1} more\nlayers")
    box(13.1, 0, "final\nLayerNorm")
    box(15, 0, f"output head:\nlogits\n{scores}")
    ax.set(xlim=(-1.1, 16), ylim=(-0.6, 2))
    ax.set_axis_off()


def draw_next_tokens(ax: Axes, probabilities: dict[str, Tensor], tokens: list[str]) -> None:
    """Probabilities of the likeliest next tokens, side by side for several settings.

    Args:
        probabilities: the setting's name -> float [tokens].
        tokens: the texts on the axis.
    """
    wide = 0.8 / len(probabilities)
    for i, ((name, values), colour) in enumerate(zip(probabilities.items(), (DARK, LIGHT, ACCENT))):
        ax.bar([x + (i - (len(probabilities) - 1) / 2) * wide for x in range(len(tokens))], values.tolist(), wide,
               color=colour, label=name)
    ax.set_xticks(range(len(tokens)), [visible(token) for token in tokens], fontsize=8)
    ax.set(xlabel="next token", ylabel="probability", ylim=(0, 1))
    ax.legend()


def draw_split(ax: Axes, T: int, D: int, H: int) -> None:
    """How one matrix gives queries, keys and values, and how each of them is cut into heads: cells are numbers, rows tokens.

    T, D, H: tokens, width, heads; D is a multiple of H.
    """
    shades = colormaps["YlGnBu"](np.linspace(0.1, 0.75, H))

    def cells(x: float, y: float, width: int, colour: Callable[[int], object]) -> None:
        for row in range(T):
            for column in range(width):
                ax.add_patch(Rectangle((x + column, y - row - 1), 1, 1, facecolor=colour(column), edgecolor=DARK,
                                       linewidth=0.7))

    middle = -T / 2
    cells(0, 0, D, lambda column: "white")
    ax.text(D / 2, 0.5, f"x [T, D] = [{T}, {D}]", ha="center")
    start = D + 4
    ax.annotate("c_attn", (start - 0.4, middle), (D + 0.4, middle), va="center", fontsize=8, arrowprops={"arrowstyle": "->"})
    for part, name in enumerate("qkv"):
        cells(start + part * (D + 0.6), 0, D, lambda column: shades[column * H // D])
        ax.text(start + part * (D + 0.6) + D / 2, 0.5, f"{name} [T, D]", ha="center")
    ax.text(start + 1.5 * D, -T - 1.2, "colour: the head that a number belongs to", ha="center", fontsize=8)
    end = start + 3 * (D + 0.6) + 3.2
    ax.annotate("", (end - 0.5, middle), (end - 3, middle), arrowprops={"arrowstyle": "->"})
    for head in range(H):
        top = middle + (T + 0.5) * H / 2 - head * (T + 0.5)
        cells(end, top, D // H, lambda column, head=head: shades[head])
        ax.text(end + D // H + 0.4, top - T / 2, f"head {head}", va="center", fontsize=8)
    ax.text(end, middle + (T + 0.5) * H / 2 + 0.6, f"q of each head [H, T, Dh] = [{H}, {T}, {D // H}]", ha="center", fontsize=8)
    height = (T + 0.5) * H / 2 + 2
    ax.set(xlim=(-0.5, end + D // H + 5), ylim=(middle - height, middle + height), aspect="equal")
    ax.set_axis_off()


def draw_two_heads(ax: Axes, words: list[str]) -> None:
    """A previous-token head and an induction head at work on a list whose last word stood before, as its first word.

    words: at least three; the last is the first again.
    """
    levels = {"embeddings": 0.0, "after the early layer": 1.2, "after the later layer": 2.4}
    notes = {(1.2, i): f"{word}\n(after {before})" for i, (before, word) in enumerate(zip(words, words[1:]), 1)}
    last = len(words) - 1
    notes[(2.4, last)] = f"{words[last]}\nnext: {words[1]}"
    for name, y in levels.items():
        ax.text(-0.6, y, name, ha="right", va="center", fontsize=9)
        for x, word in enumerate(words):
            ax.text(x, y, notes.get((y, x), word), ha="center", va="center", fontsize=9, zorder=3, bbox={
                "boxstyle": "round,pad=0.4", "edgecolor": DARK,
                "facecolor": "#f2c48d" if (y, x) in ((1.2, 1), (2.4, last)) else "white"})
            if y:
                ax.plot([x, x], [y - 1.2, y], color=LIGHT, linewidth=3, zorder=1)  # the residual stream
    for (x, y), colour, text, at in (((0, 0.0), ACCENT, "previous-token head", (0.66, 0.42)),
                                     ((1, 1.2), DARK, f"induction head: who stands after {words[0]}?", (2.08, 1.62))):
        end = (1, 1.0) if y == 0 else (last, 2.2)
        ax.annotate("", end, (x + 0.1, y + 0.15), zorder=4,
                    arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 2, "shrinkA": 6, "shrinkB": 6})
        ax.text(*at, text, color=colour, fontsize=9, ha="left", va="center", zorder=2,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
    ax.set(xlim=(-1.8, last + 0.7), ylim=(-0.4, 2.9))
    ax.set_axis_off()
