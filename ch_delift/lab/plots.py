"""Pictures of the map: margins over fractions, and differences with their intervals."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from common.support.plots import ACCENT, DARK, LIGHT


def draw_margins(ax: Axes, found: dict[str, dict[float, dict[str, float]]]) -> None:
    """What choosing gains over random subsets, against the share that is chosen.

    Args:
        found: condition -> fraction -> {method: points of exact match above random}. A colour for each condition; the first
            method's lines are whole, the next one's dashed, the third's dotted.
    """
    for colour, (condition, gains) in zip((DARK, LIGHT, ACCENT), found.items()):
        fractions = sorted(gains)
        for style, method in zip(("-", "--", ":"), gains[fractions[0]]):
            ax.plot(fractions, [gains[fraction][method] for fraction in fractions], style, color=colour, marker="o",
                    markersize=4, label=f"{condition}: {method}")
        ax.set_xticks(fractions)
    ax.axhline(0, color="black", linewidth=1)
    ax.set(xlabel="share of the training data that is chosen", ylabel="exact match, points above random")
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(fontsize=8)


def draw_differences(ax: Axes, found: dict[str, dict[str, tuple[float, float]]], xlabel: str) -> None:
    """Differences between two ways to choose, with their intervals; an interval that holds 0 is no difference seen.

    Args:
        found: condition -> {what is subtracted: (mean, half of the 95 % interval)}, in points; the same two everywhere.
    """
    for shift, colour, name in zip((-0.12, 0.12), (DARK, LIGHT), next(iter(found.values()))):
        means, halves = zip(*(differences[name] for differences in found.values()))
        ax.errorbar(means, np.arange(len(found)) + shift, xerr=halves, fmt="o", color=colour, capsize=3, label=name)
    ax.axvline(0, color="black", linewidth=1, linestyle=":")
    ax.set(yticks=range(len(found)), yticklabels=found, ylim=(len(found) - 0.5, -0.5), xlabel=xlabel)
    ax.legend()
