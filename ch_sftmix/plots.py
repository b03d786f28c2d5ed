"""The chapter's pictures: how sure the model is of each example, and where the halves lie."""

from matplotlib.axes import Axes
from torch import Tensor

from common.plots import DARK, LIGHT, draw_losses

HALVES = (("confident half", DARK, "o"), ("unconfident half", LIGHT, "^"))


def draw_both_losses(ax: Axes, ntp: list[dict], sftmix: list[dict]) -> None:
    """Loss curves of both runs. Validation losses compare; training losses do not, as one holds the mixup term."""
    draw_losses(ax, {"NTP": ntp, "SFTMix": sftmix})
    ax.set_title("SFTMix's training loss includes the mixup term", fontsize=9)


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
    edges = [10 ** (low + (high - low) * i / 40) for i in range(41)] if high > low else 10
    ax.hist([excess[half].tolist() for half in halves], bins=edges, stacked=True, color=[colour for _, colour, _ in HALVES],
            label=[f"{name} ({len(half)})" for (name, _, _), half in zip(HALVES, halves)])
    median = excess.median().item()
    ax.axvline(median, color="black", linestyle="--", linewidth=1, label=f"median: perplexity {1 + median:.4g}")
    ax.set(xscale="log", xlabel="mean perplexity of the response over the checkpoints, minus 1   (right: less confident)",
           ylabel="training examples")
    ax.legend()


def draw_data_map(ax: Axes, perplexities: Tensor, halves: tuple[list[int], list[int]]) -> None:
    """Data map (after Swayamdipta et al., 2020): each example's mean perplexity against its spread over checkpoints.

    Low left: easy from the start. Right: learnt on the way. High and left: hard to the end.
    """
    excess = above_one(perplexities)
    spread = perplexities.std(dim=0, unbiased=False).clamp(min=1e-5)  # a logarithmic axis has no zero
    for (name, colour, marker), half in zip(HALVES, halves):
        ax.scatter(spread[half].tolist(), excess[half].tolist(), s=10, alpha=0.6, color=colour, marker=marker,
                   linewidths=0, label=name)
    ax.set(xscale="log", yscale="log", xlabel="spread of the perplexity (standard deviation over the checkpoints)",
           ylabel="mean perplexity, minus 1")
    ax.legend()
