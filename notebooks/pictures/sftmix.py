"""Pictures of notebook 03: mixing two examples, and what a model says between them."""

import torch
from matplotlib.axes import Axes
from torch import Tensor

from ch_sftmix.plots import HALVES
from common.support.plots import ACCENT


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
