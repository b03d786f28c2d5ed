"""The chapter's pictures: how sure the model is of each example, where the halves lie, and what is between them."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from torch import Tensor

from common.support.plots import ACCENT, DARK, LIGHT

HALVES = (("confident half", DARK, "o"), ("unconfident half", LIGHT, "^"))


def above_one(perplexities: Tensor) -> Tensor:
    """Mean perplexity over the checkpoints, minus 1, for a logarithmic axis. [C, N] -> [N].

    A perplexity of 1 is certainty, and well-learnt examples crowd just above it: their distance from 1 tells them apart.
    """
    return (perplexities.mean(dim=0) - 1).clamp(min=1e-5)


def draw_confidence(ax: Axes, perplexities: Tensor, halves: tuple[list[int], list[int]]) -> None:
    """Histogram of the mean perplexity of each response, the halves in two colours, the median marked.

    Args:
        perplexities: float [C, N].
        halves: ids of the confident and of the unconfident examples.
    """
    excess = above_one(perplexities)
    low, high = excess.log10().min().item(), excess.log10().max().item()
    edges = [10 ** (low + (high - low) * i / 40) for i in range(41)]
    edges[0], edges[-1] = excess.min().item(), excess.max().item()  # exactly: rounding would lose the last example
    ax.hist([excess[half].tolist() for half in halves], bins=edges if high > low else 10, stacked=True,
            color=[colour for _, colour, _ in HALVES],
            label=[f"{name} ({len(half)})" for (name, _, _), half in zip(HALVES, halves)])
    median = excess.median().item()
    ax.axvline(median, color="black", linestyle="--", linewidth=1, label=f"median: perplexity {1 + median:.4g}")
    ax.set(xscale="log", xlabel="mean perplexity of the response over the checkpoints, minus 1   (right: less confident)",
           ylabel="training examples")
    ax.legend()


def draw_data_map(ax: Axes, perplexities: Tensor, halves: tuple[list[int], list[int]], wrong: Sequence[int] = ()) -> None:
    """Data map (after Swayamdipta et al., 2020): each example's mean perplexity against its spread over checkpoints.

    Low left: easy from the start. Right: learnt on the way. High and left: hard to the end. Examples known to be wrong
    get a ring.
    """
    excess = above_one(perplexities)
    spread = perplexities.std(dim=0, unbiased=False).clamp(min=1e-5)  # a logarithmic axis has no zero
    size = min(30, 12 + 4000 / len(excess))  # many points must be smaller
    for (name, colour, marker), half in zip(HALVES, halves):
        ax.scatter(spread[half].tolist(), excess[half].tolist(), s=size, alpha=0.85, color=colour, marker=marker,
                   edgecolors="white", linewidths=0.4, label=name)
    if wrong:
        ax.scatter(spread[wrong].tolist(), excess[wrong].tolist(), s=3 * size, facecolors="none", edgecolors=ACCENT,
                   linewidths=1.2, label=f"wrong answer ({len(wrong)})")
    ax.set(xscale="log", yscale="log", xlabel="spread of the perplexity (standard deviation over the checkpoints)",
           ylabel="mean perplexity, minus 1")
    ax.legend()
