"""The chapter's pictures: where a head looks, what a layer adds, what may come next, when looking back begins."""

from matplotlib.axes import Axes

from common.support.plots import ACCENT, DARK, LIGHT


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
    # Below the picture: on some side the lines are everywhere.
    ax.legend(handles=[*ax.lines, *scores.lines], loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3,
              fontsize=8, frameon=False)
