"""The chapter's pictures: where a head looks, how wide the data is on its way, what may come next, when looking back begins."""

from matplotlib.axes import Axes
from torch import Tensor

from common.plots import ACCENT, DARK, LIGHT
from common.token_plots import visible


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


def draw_shapes(ax: Axes, steps: dict[str, tuple[int, ...]]) -> None:
    """The data on its way through the model, from top to bottom: a bar as long as one token has numbers.

    steps: what happens -> the shape afterwards.
    """
    widths = [shape[-1] for shape in steps.values()]
    ax.barh(range(len(steps)), widths, color=[LIGHT if width == widths[0] else DARK for width in widths], height=0.6)
    for y, shape in enumerate(steps.values()):
        ax.text(shape[-1], y, f"  {list(shape)}", va="center", fontsize=8)
    ax.set_yticks(range(len(steps)), steps, fontsize=8)
    ax.invert_yaxis()
    ax.set(xlabel="numbers for each token", xlim=(0, 1.2 * max(widths)))
    ax.spines[["top", "right"]].set_visible(False)


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


def draw_looking_back(ax: Axes, looks: list[dict[str, float]], title: str = "") -> None:
    """Loss of both copies of random words against tokens read, and on an axis of its own the best induction score.

    Args:
        looks: rows of `looking_back.csv`, as `read_looks` gives them.
        title: stands above.
    """
    millions = [row["tokens"] / 1e6 for row in looks]
    for name, label, colour in (("first_copy", "first copy", LIGHT), ("second_copy", "second copy", DARK)):
        ax.plot(millions, [row[name] for row in looks], color=colour, marker="o", markersize=4, label=label)
    highest = max(row["first_copy"] for row in looks)
    ax.set(xlabel="tokens read (millions)", ylabel="loss (nats per token)", ylim=(0, 1.15 * highest))
    ax.set_title(title, fontsize=9)
    scores = ax.twinx()
    scores.plot(millions, [row["induction"] for row in looks], color=ACCENT, linestyle="--", marker=".",
                label="best induction score")
    scores.set(ylabel="share of attention", ylim=(0, 1))
    ax.legend(handles=[*ax.lines, *scores.lines], loc="center left", fontsize=8)
