"""The chapter's pictures: the utility matrix, what each choice added, where the chosen lie, score against fraction,
and differences with their intervals."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from ch_delift.selection import Similarities
from common.support.plots import ACCENT, DARK, LIGHT, save_picture

MOST_CELLS = 300  # rows and columns of the heat map; more than these cannot be told apart


def save_choice(folder: Path, similarities: Similarities, places: list[int], gains: list[float], budget: int,
                rows: str | None, other: str | None, families: dict[str, list[str]]) -> None:
    """The pictures of a choice: gain curve, map, and heat map of the utilities.

    Args:
        places, gains: in the order of choice; the first `budget` are the subset.
        rows: which group the rows of the heat map are; None where no utilities were measured.
        other: the group that the map also shows.
        families: of the examples in each group; "" where there are none.
    """
    save_picture(folder / "gains.png", lambda ax: draw_gains(ax, gains, len(similarities.groups["data"])))
    vectors = similarities.hidden("data")
    save_picture(folder / "map.png", lambda ax: draw_map(
        ax, vectors, places[:budget], similarities.hidden(other) if other else None, other or ""))
    if rows is None:
        return

    # Like stands by like: sorted by family, and within by the main direction of the hidden states.
    direction = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)[2][0]

    def order(group: str) -> list[int]:
        along = similarities.hidden(group) @ direction
        ids = sorted(range(len(along)), key=lambda i: (families[group][i], along[i]))
        return ids[::-(-len(ids) // MOST_CELLS)]  # every n-th where there are too many

    row_ids, column_ids = order(rows), order("data")
    grid = similarities.grid(rows, row_ids, column_ids)
    save_picture(folder / "utility.png", lambda ax: draw_utility(
        ax, grid, np.isin(column_ids, places[:budget]), [families[rows][i] for i in row_ids],
        [families["data"][i] for i in column_ids]), height=5.6)


def draw_utility(ax: Axes, utility: np.ndarray, chosen: np.ndarray, rows: list[str] | None = None,
                 columns: list[str] | None = None) -> None:
    """Heat map of utilities: the darker, the more an example helps, in grey as well; yellow harms, white was not measured.

    Marks above the columns that were chosen. The strongest hundredth of the pairs has the colours of the scale's ends.

    Args:
        utility: float [targets, candidates], NaN where not measured.
        chosen: bool [candidates].
        rows, columns: the group each target and each candidate belongs to, in whole blocks, for the axes.
    """
    limit = np.nanquantile(np.abs(utility), 0.99)  # a few extreme pairs would leave the rest pale
    image = ax.imshow(utility, aspect="auto", cmap="cividis_r", vmin=-limit, vmax=limit, interpolation="nearest")
    ax.set_facecolor("white")
    marked = np.flatnonzero(chosen)
    ax.plot(marked, np.full(len(marked), -0.02 * len(utility)), "|", color="black", markersize=5, markeredgewidth=0.6,
            clip_on=False)
    ax.set_ylim(len(utility) - 0.5, -0.5)  # the marks stand outside
    for axis, groups, turn in ((ax.xaxis, columns, 90), (ax.yaxis, rows, 0)):
        if groups is None:
            continue
        names = sorted(set(groups))
        middles = [np.flatnonzero(np.array(groups) == name).mean() for name in names]  # of each block
        axis.set_ticks(middles, names, fontsize=7, rotation=turn)
    ax.set(xlabel="candidate j, shown as an example (marks above: chosen)", ylabel="target i")
    ax.figure.colorbar(image, ax=ax, extend="both", label="utility U[i, j]; 1 % of the pairs lie beyond the ends")


def knee(gains: list[float]) -> int:
    """How many choices make the bend of the curve of Σ gains: the point furthest above the line from its start to its end."""
    total = np.concatenate([[0.0], np.cumsum(gains)])
    return int(np.argmax(total - np.linspace(0, total[-1], len(total))))


def draw_gains(ax: Axes, gains: list[float], n: int) -> None:
    """The objective as the subset grows, the knee marked. n: how many candidates there were."""
    share = np.arange(len(gains) + 1) / n
    total = np.concatenate([[0.0], np.cumsum(gains)])
    bend = knee(gains)
    ax.plot(share, total, color=DARK, linewidth=2)
    ax.plot(share[bend], total[bend], "o", color=ACCENT)
    ax.annotate(f"knee: {bend} examples ({share[bend]:.0%})\n{total[bend] / max(total[-1], 1e-12):.0%} of the value",
                (share[bend], total[bend]), xytext=(12, -28), textcoords="offset points", color=ACCENT, fontsize=9)
    ax.set(xlabel="share of the candidates chosen", ylabel="objective f(A)", xlim=(0, None), ylim=(0, None))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")


def draw_map(ax: Axes, vectors: np.ndarray, chosen: list[int], others: np.ndarray | None = None, what: str = "") -> None:
    """Examples in two dimensions (the first two principal components of their mean hidden states), the chosen ones filled.

    Args:
        vectors: float [N, D].
        others: float [M, D], the target or known examples; `what` is their name.
    """
    centre = vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(vectors - centre, full_matrices=False)
    x, y = (axes[:2] @ (vectors - centre).T)
    ax.scatter(x, y, s=22, facecolors="none", edgecolors=LIGHT, linewidths=1, label=f"not chosen ({len(x) - len(chosen)})")
    ax.scatter(x[chosen], y[chosen], s=26, color=DARK, label=f"chosen ({len(chosen)})")
    if others is not None:
        u, v = (axes[:2] @ (others - centre).T)
        ax.scatter(u, v, s=30, marker="x", color=ACCENT, linewidths=1.3, label=f"{what} ({len(u)})")
    ax.set(xlabel="first principal component of the hidden states", ylabel="second")
    ax.legend()


def draw_fractions(ax: Axes, scores: dict[float, dict[str, list[float]]], measure: str) -> None:
    """Score against the fraction trained on.

    Args:
        scores: fraction -> {the arm: [score per seed], "random": [...]}; at 1.0 {"full": [...]}.
        measure: what the score is, for the axis.
    """
    fractions = sorted(f for f in scores if f < 1)
    random = np.array([scores[f]["random"] for f in fractions])  # [fractions, seeds]
    arm = next(name for name in scores[fractions[0]] if name != "random")
    chosen = np.array([scores[f][arm] for f in fractions])
    ax.fill_between(fractions, random.min(axis=1), random.max(axis=1), color=LIGHT, alpha=0.35,
                    label=f"random, lowest to highest of {random.shape[1]}")
    full = np.mean(scores[1.0]["full"])  # where all choices meet
    ax.plot([*fractions, 1], [*random.mean(axis=1), full], color=LIGHT, marker="s", markersize=4, label="random, mean")
    ax.plot([*fractions, 1], [*chosen.mean(axis=1), full], color=DARK, marker="o", markersize=4, label=arm.upper())
    ax.plot(1, full, "D", color="black", label="all data")
    ax.set(xlabel="share of the training data", ylabel=measure, xticks=[*fractions, 1])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    ax.legend()
