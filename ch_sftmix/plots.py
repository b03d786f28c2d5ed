"""The chapter's pictures: how sure the model is of each example, where the halves lie, and what is between them."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor

from common.plots import ACCENT, DARK, LIGHT

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


def draw_mixup(ax: Axes, confident: Tensor, unconfident: Tensor, lam: float, words: list[tuple[str, str]]) -> None:
    """One pair's hidden states in the plane of their two main directions, joined position by position, with the points
    between them that mixup trains on.

    Args:
        confident, unconfident: float [S, D], at the S positions that the pair shares.
        lam: λ of the pair: 1 is at the confident end.
        words: the targets at each position, of the confident and of the unconfident example.
    """
    both = torch.cat([confident, unconfident])  # [2S, D]
    centre = both.mean(dim=0)
    plane = torch.linalg.svd(both - centre, full_matrices=False).Vh[:2].T  # [D, 2]
    c, u = (confident - centre) @ plane, (unconfident - centre) @ plane  # [S, 2] each
    mixed = lam * c + (1 - lam) * u
    ax.plot([c[:, 0], u[:, 0]], [c[:, 1], u[:, 1]], color="0.7", linewidth=1, zorder=1)
    for (name, colour, marker), points in zip(HALVES, (c, u)):
        ax.scatter(points[:, 0], points[:, 1], color=colour, marker=marker, s=34, label=name.replace("half", "example"))
    ax.scatter(mixed[:, 0], mixed[:, 1], color=ACCENT, marker="D", s=24, label=f"mixed, λ = {lam:.2f}")
    for n, pair in enumerate(words):
        for word, point, xytext in zip(pair, (c[n], u[n]), ((5, 4), (5, -10))):
            ax.annotate(f"{n + 1}: {word!r}", point.tolist(), xytext=xytext, textcoords="offset points", fontsize=7.5)
    ax.margins(x=0.15)
    ax.set(xlabel="first main direction of the hidden states", ylabel="second main direction")
    ax.legend()


def draw_between(ax: Axes, lams: Tensor, found: dict[str, Tensor]) -> None:
    """What models predict between two examples, as λ goes from the unconfident one (0) to the confident one (1).

    Args:
        lams: float [L].
        found: model -> float [L, 2], the probability of the confident and of the unconfident example's token.
    """
    ax.plot(lams, lams, color="black", linestyle=":", linewidth=1, label="soft target: λ and 1 - λ")
    ax.plot(lams, 1 - lams, color="black", linestyle=":", linewidth=1)
    for (name, p), style in zip(found.items(), ("-", "--")):
        for column, (half, colour, _) in enumerate(HALVES):
            ax.plot(lams, p[:, column], color=colour, linestyle=style, linewidth=2,
                    label=f"{name}: token of the {half.removesuffix(' half')} one")
    ax.set(xlabel="λ   (0: the unconfident example, 1: the confident one)", ylabel="probability", ylim=(0, 1.02))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, fontsize=8, frameon=False)  # off the lines


def draw_reliability(ax: Axes, binned: dict[str, Tensor]) -> None:
    """Reliability diagram (Guo et al., 2017): how many tokens are right against how sure the model was. On the dotted line both
    are equal; below it the model is too sure.

    Args:
        binned: at most three models -> float [M, 3], what `calibration.reliability` gives. Empty bins are not drawn.
    """
    ax.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=1, label="as sure as right")
    for (name, bins), colour, marker in zip(binned.items(), (DARK, LIGHT, ACCENT), "o^D"):
        count, confidence, accuracy = bins[bins[:, 0] > 0].unbind(dim=1)
        ax.plot(confidence / count, accuracy / count, color=colour, marker=marker, markersize=5, label=name)
    ax.set(xlabel="probability of the likeliest token (mean of a bin)", ylabel="share of these tokens that are right",
           xlim=(0, 1.02), ylim=(0, 1.02))
    ax.legend()
