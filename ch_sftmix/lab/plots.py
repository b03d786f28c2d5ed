"""How often a model is right, against how sure it is."""

from matplotlib.axes import Axes
from torch import Tensor

from common.support.plots import ACCENT, DARK, LIGHT


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
