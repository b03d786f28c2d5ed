"""Pictures of notebook 01: attention, a block, the next token."""

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from common.support.plots import ACCENT, DARK, LIGHT
from notebooks.pictures.tokens import visible


def draw_attention(ax: Axes, weights: Tensor, tokens: list[str]) -> None:
    """Heat map of one head: each row is a token that looks, each column a token that is looked at.

    weights: float [T, T], rows that add up to 1.
    """
    image = ax.imshow(weights.numpy(), cmap="Blues", vmin=0, vmax=1)
    names = [visible(token) for token in tokens]
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set(xlabel="looked at", ylabel="looking")
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
    box(0, 0, f"embeddings\n(token + place)\n{width}")
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
    box(15, 0, f"head: logits\n{scores}")
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
