"""Pictures: loss curves, tables of numbers, and how a picture is saved. Each function draws into given axes, so notebooks can
use them too.

Colours differ in brightness as well as in hue, so that they can be told apart in grey.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike

from common.support.files import write_whole

DARK, LIGHT, ACCENT = "#1b3a6b", "#e39a3b", "#c8386b"  # different in grey, too


def save_picture(path: Path, draw: Callable[[Axes], None], width: float = 7.0, height: float = 4.4) -> None:
    """Draw into new axes and write a PNG, whole or not at all. width, height: inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    draw(figure.subplots())
    write_whole(path, lambda temporary: figure.savefig(temporary, format="png", dpi=130))


def draw_numbers(ax: Axes, values: ArrayLike, rows: Sequence[str] = (), columns: Sequence[str] = (),
                 fills: ArrayLike | None = None, form: str = "g") -> None:
    """A small matrix to be read: each number stands in its cell, minus infinity as a sign.

    Args:
        values: [R, C].
        rows, columns: names for the axes, or none.
        fills: [R, C], 0 to 1: how much of the light colour a cell gets; None for white cells.
        form: of the numbers, as `format` understands it.
    """
    numbers = np.asarray(values)
    strength = np.zeros(numbers.shape) if fills is None else np.asarray(fills, dtype=float)
    for (i, j), number in np.ndenumerate(numbers):
        ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=(*to_rgb(LIGHT), 0.8 * strength[i, j]), edgecolor="0.6"))
        ax.text(j, i, "-∞" if np.isneginf(number) else format(number, form), ha="center", va="center", fontsize=9)
    ax.set(xlim=(-0.5, numbers.shape[1] - 0.5), ylim=(len(numbers) - 0.5, -0.5), aspect="equal")
    ax.set_xticks(range(len(columns)), columns, fontsize=8)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def smooth(values: list[float], window: int) -> list[float]:
    """Mean over the last `window` values at each place."""
    return [sum(values[max(0, i - window + 1):i + 1]) / min(window, i + 1) for i in range(len(values))]


def draw_losses(ax: Axes, runs: dict[str, list[dict]], title: str = "") -> None:
    """Training and validation loss over epochs, tokens seen on a second axis, for one run or several.

    Where a run's validation loss has a minimum from which it rises, overfitting starts; the place is marked. The
    legend names the last validation loss. The loss axis is logarithmic: the first steps do not hide the rest.

    Args:
        runs: name -> history, as `fit` returns it. More than three share a scale of colours from dark to light.
        title: stands above.
    """
    colours = [DARK, LIGHT, ACCENT] if len(runs) <= 3 else colormaps["viridis"](np.linspace(0, 0.9, len(runs)))
    for (name, history), colour in zip(runs.items(), colours):
        prefix = f"{name}: " if len(runs) > 1 else ""
        steps = [row for row in history if "train_loss" in row]
        judged = [row for row in history if "validation_loss" in row]
        epochs = [row["epoch"] for row in steps]
        window = max(1, len(steps) // 40)
        ax.plot(epochs, smooth([row["train_loss"] for row in steps], window), color=colour, alpha=0.55, linewidth=1,
                marker="." if len(steps) < 10 else "",  # a line needs two points, and few are seen better one by one
                label=f"{prefix}training (mean of {window} steps)" if window > 1 else f"{prefix}training")
        if not judged:
            continue
        ax.plot([row["epoch"] for row in judged], [row["validation_loss"] for row in judged], color=colour, linewidth=2,
                marker="o", markersize=4, label=f"{prefix}validation (last: {judged[-1]['validation_loss']:.3g})")
        best = min(judged, key=lambda row: row["validation_loss"])
        if judged[-1]["validation_loss"] > 1.01 * best["validation_loss"]:  # less is no rise, but chance
            ax.axvline(best["epoch"], color=colour, linestyle=":")
            ax.annotate("overfitting\nstarts", (best["epoch"], 0.03), xycoords=("data", "axes fraction"), va="bottom",
                        xytext=(4, 0), textcoords="offset points", fontsize=8, color=colour)

    ax.set(xlabel="epochs", ylabel="loss (nats per target)", yscale="log")
    ax.set_title(title, fontsize=9)
    low, high = ax.get_ylim()
    # 1, 2, 5, 10, ...; more of them in a range that may hold fewer than three; in a small one numbers at equal distances.
    subs = (1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 7)
    ax.yaxis.set_major_locator(LogLocator(subs=subs) if high > 3 * low else MaxNLocator(6))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    handles, labels = ax.get_legend_handles_labels()
    labels = [fill(label, 48) for label in labels]
    if len(labels) > 6:  # they would hide the curves
        ax.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=8)
    else:
        ax.legend(handles, labels)
    per_epoch = {round(history[-1]["tokens"] / history[-1]["epoch"]) for history in runs.values() if history[-1]["epoch"]}
    if len(per_epoch) == 1:  # an epoch is the same for all
        [tokens] = per_epoch
        unit, name = (1e6, "millions") if max(history[-1]["tokens"] for history in runs.values()) >= 1e5 else (1e3, "thousands")
        to_tokens, to_epochs = partial(np.multiply, tokens / unit), partial(np.multiply, unit / tokens)
        above = ax.secondary_xaxis("top", functions=(to_tokens, to_epochs))
        above.set_xlabel(f"tokens seen ({name})")
