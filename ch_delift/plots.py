"""The chapter's pictures: the utility matrix, what each choice added, where the chosen lie, and score against fraction."""

import numpy as np
from matplotlib.axes import Axes

from common.plots import ACCENT, DARK, LIGHT


def draw_utility(ax: Axes, utility: np.ndarray, chosen: np.ndarray, rows: list[str], columns: list[str]) -> None:
    """Heat map of utilities: red helps, blue harms, grey was not measured; marks above the columns that were chosen.

    Args:
        utility: float [targets, candidates], NaN where not measured.
        chosen: bool [candidates].
        rows, columns: the group each target and each candidate belongs to, in whole blocks; "" for none.
    """
    limit = np.nanquantile(np.abs(utility), 0.99)  # a few extreme pairs would leave the rest pale
    image = ax.imshow(utility, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    ax.set_facecolor("0.85")
    marked = np.flatnonzero(chosen)
    ax.plot(marked, np.full(len(marked), -0.02 * len(utility)), "|", color="black", markersize=5, markeredgewidth=0.6,
            clip_on=False)
    ax.set_ylim(len(utility) - 0.5, -0.5)  # the marks stand outside
    for axis, groups, turn in ((ax.xaxis, columns, 90), (ax.yaxis, rows, 0)):
        names = sorted(set(groups))
        places = [np.flatnonzero(np.array(groups) == name).mean() for name in names]  # the middle of each block
        axis.set_ticks(places, names, fontsize=7, rotation=turn)
    ax.set(xlabel="candidate j, shown as an example (marks above: chosen)", ylabel="target i")
    ax.figure.colorbar(image, ax=ax, label="utility U[i, j] = d(i) - d(i | j)")


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
    ax.annotate(f"knee: {bend} examples ({share[bend]:.0%})\n{total[bend] / total[-1]:.0%} of the value",
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
    ax.scatter(x, y, s=10, facecolors="none", edgecolors=LIGHT, linewidths=0.7, label=f"not chosen ({len(x) - len(chosen)})")
    ax.scatter(x[chosen], y[chosen], s=12, color=DARK, label=f"chosen ({len(chosen)})")
    if others is not None:
        u, v = (axes[:2] @ (others - centre).T)
        ax.scatter(u, v, s=22, marker="x", color=ACCENT, linewidths=1, label=f"{what} ({len(u)})")
    ax.set(xlabel="first principal component of the hidden states", ylabel="second")
    ax.legend()


def draw_fractions(ax: Axes, scores: dict[float, dict[str, list[float]]], measure: str) -> None:
    """Score against the fraction trained on.

    Args:
        scores: fraction -> {"delift": [score per seed], "random": [...]}; at 1.0 {"full": [...]}.
        measure: what the score is, for the axis.
    """
    fractions = sorted(f for f in scores if f < 1)
    random = np.array([scores[f]["random"] for f in fractions])  # [fractions, seeds]
    chosen = np.array([scores[f]["delift"] for f in fractions])
    ax.fill_between(fractions, random.min(axis=1), random.max(axis=1), color=LIGHT, alpha=0.35,
                    label=f"random, lowest to highest of {random.shape[1]}")
    ax.plot(fractions, random.mean(axis=1), color=LIGHT, marker="s", markersize=4, label="random, mean")
    ax.plot(fractions, chosen.mean(axis=1), color=DARK, marker="o", markersize=4, label="DELIFT")
    ax.axhline(np.mean(scores[1.0]["full"]), color="black", linestyle="--", linewidth=1, label="full data")
    ax.set(xlabel="share of the training data", ylabel=measure)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    ax.legend()
