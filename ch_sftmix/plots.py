"""The chapter's pictures: how sure the model is of each example, and where the halves lie."""

from matplotlib.axes import Axes
from torch import Tensor

from common.plots import DARK, LIGHT

HALVES = (("confident half", DARK, "o"), ("unconfident half", LIGHT, "^"))


def draw_confidence(ax: Axes, perplexities: Tensor, halves: tuple[list[int], list[int]]) -> None:
    """Histogram of the mean perplexity of each response, the halves in two colours, the cut between them marked.

    Args:
        perplexities: float [C, N].
        halves: ids of the confident and of the unconfident examples.
    """
    means = perplexities.mean(dim=0)  # [N] = -confidence
    low, high = means.log10().min().item(), means.log10().max().item()
    edges = [10 ** (low + (high - low) * i / 40) for i in range(41)] if high > low else 10
    ax.hist([means[half].tolist() for half in halves], bins=edges, stacked=True, color=[colour for _, colour, _ in HALVES],
            label=[f"{name} ({len(half)})" for (name, _, _), half in zip(HALVES, halves)])
    ax.axvline(means.median().item(), color="black", linestyle="--", linewidth=1, label=f"median {means.median():.3f}")
    ax.set(xscale="log", xlabel="mean perplexity of the response over the checkpoints (= minus confidence)",
           ylabel="training examples")
    ax.legend()


def draw_data_map(ax: Axes, perplexities: Tensor, halves: tuple[list[int], list[int]]) -> None:
    """Data map (after Swayamdipta et al., 2020): each example's mean perplexity against its spread over checkpoints.

    Low left: easy from the start. Right: learnt on the way. High: hard to the end.
    """
    means = perplexities.mean(dim=0)
    spread = perplexities.std(dim=0, unbiased=False).clamp(min=1e-4)  # a logarithmic axis has no zero
    for (name, colour, marker), half in zip(HALVES, halves):
        ax.scatter(spread[half].tolist(), means[half].tolist(), s=9, alpha=0.55, color=colour, marker=marker,
                   linewidths=0, label=name)
    ax.set(xscale="log", yscale="log", xlabel="spread of the perplexity (standard deviation over the checkpoints)",
           ylabel="mean perplexity")
    ax.legend()
