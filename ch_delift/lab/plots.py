"""The picture of the map: differences with their intervals."""

import numpy as np
from matplotlib.axes import Axes

from common.support.plots import ACCENT, DARK, LIGHT


def draw_differences(ax: Axes, found: dict[str, dict[str, tuple[float, float]]], xlabel: str) -> None:
    """Differences between two ways to choose, with their intervals; an interval that holds 0 is no difference seen.

    Args:
        found: condition -> {what is subtracted: (mean, half of the 95 % interval)}, in points; the same three everywhere.
    """
    for shift, colour, name in zip((-0.18, 0.0, 0.18), (DARK, LIGHT, ACCENT), next(iter(found.values()), {})):
        means, halves = zip(*(differences[name] for differences in found.values()))
        ax.errorbar(means, np.arange(len(found)) + shift, xerr=halves, fmt="o", color=colour, capsize=3, label=name)
    ax.axvline(0, color="black", linewidth=1, linestyle=":")
    ax.set(yticks=range(len(found)), yticklabels=found, ylim=(len(found) - 0.5, -0.5), xlabel=xlabel)
    ax.legend()
