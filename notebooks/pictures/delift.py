"""Pictures of notebook 04: one utility, and a choice step by step."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from common.support.plots import ACCENT, DARK, LIGHT, draw_numbers


def draw_pair(ax: Axes, tokens: list[str], alone: np.ndarray, shown: np.ndarray) -> None:
    """The probabilities p_k of a target's response tokens, without and with an example in front of its prompt.

    Args:
        tokens: the N response tokens as text.
        alone, shown: float [N].
    """
    x = np.arange(len(tokens))
    ax.bar(x - 0.2, alone, width=0.4, color=LIGHT, label="without an example")
    ax.bar(x + 0.2, shown, width=0.4, color=DARK, label="with the example")
    ax.set(xticks=x, xticklabels=[repr(token) for token in tokens], ylim=(0, 1.2), yticks=(0, 0.5, 1),
           xlabel="response token k of the target", ylabel="probability $p_k$")
    ax.tick_params(axis="x", labelsize=8)
    ax.legend(loc="upper center", ncols=2)


def draw_steps(ax: Axes, similarity: np.ndarray, picks: list[int]) -> None:
    """What each greedy choice adds to the cover of each row, one on top of the other.

    Args:
        similarity: float [rows, candidates].
        picks: the chosen candidates, in order; at most five can be told apart.
    """
    covers = np.maximum.accumulate(similarity[:, picks], axis=1)  # [rows, picks], max over the first k choices
    added = np.diff(covers, axis=1, prepend=0)
    colours = (DARK, LIGHT, ACCENT, "0.85", "black")
    for k, colour in zip(range(len(picks)), colours):
        ax.bar(np.arange(len(similarity)), added[:, k], width=1.0, bottom=covers[:, k] - added[:, k], color=colour,
               label=f"choice {k + 1}: +{added[:, k].sum():.2f}")
    ax.set(xlim=(-0.5, len(similarity) - 0.5), xlabel="target i", ylabel=r"cover $\max_{j \in A} s_{ij}$")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=8, ncols=len(picks), frameon=False)


def draw_choice(ax: Axes, similarity: np.ndarray, chosen: list[int], gains: np.ndarray) -> None:
    """A step of greedy choice on a matrix small enough to be read: what covers each target, and what each candidate adds.

    Args:
        similarity: float [targets, candidates].
        chosen: the candidates in A; the cell of each target's best helper among them is filled.
        gains: float [candidates], what each would add to f(A).
    """
    covering = np.zeros(similarity.shape, dtype=bool)
    if chosen:
        best = np.array(chosen)[similarity[:, chosen].argmax(axis=1)]
        covering[np.arange(len(similarity)), best] = similarity[np.arange(len(similarity)), best] > 0
    draw_numbers(ax, similarity, [f"target {i}" for i in range(len(similarity))],
                 [f"{j}\n{'chosen' if j in chosen else f'+{gain:.1f}'}" for j, gain in enumerate(gains)], covering, ".1f")


def draw_trace(ax: Axes, asked: list[tuple[int, Sequence[int]]], picks: list[int], order: np.ndarray) -> None:
    """Which gains a greedy choice computed in which step, and what it chose.

    Args:
        asked: the step, from 0, and the candidates whose gains were computed; any number of times in a step.
        picks: the chosen candidates, one in each step.
        order: int [candidates], from top to bottom.
    """
    place = np.argsort(order)  # of each candidate
    computed = np.zeros((len(order), len(picks)))
    for step, candidates in asked:
        computed[place[list(candidates)], step] = 1
    ax.imshow(computed, aspect="auto", cmap="Blues", vmin=0, vmax=2.5, interpolation="nearest")
    ax.plot(range(len(picks)), place[picks], "o", color=ACCENT, markersize=4)
    ax.set(xlabel="step", ylabel="candidate, by its first gain")
