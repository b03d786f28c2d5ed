"""The chapter's pictures: what each position of a batch asks, scores by family, and losses of right and wrong answers."""

from matplotlib.axes import Axes

from ch_instruct.encoding import Example
from common.losses import IGNORE_INDEX
from common.support.plots import ACCENT, DARK, LIGHT
from common.tokenizer import Tokenizer
from notebooks.pictures.tokens import draw_grid

NOT_ASKED = f"not in the loss ({IGNORE_INDEX})"
# Fill colours; they differ in grey as well.
KINDS = {"prompt": "#d5deec", "response": "#ec9f4b", "end of text": DARK, "padding": "#f2f2f2", NOT_ASKED: "white"}


def token_kinds(example: Example, length: int) -> list[str]:
    """What each token of an example is, and padding up to `length`: keys of KINDS."""
    kinds = ["prompt"] * len(example.ids)
    for start, end in example.spans:
        kinds[start:end] = ["response"] * (end - start - 1) + ["end of text"]
    return kinds + ["padding"] * (length - len(kinds))


def draw_batch(ax: Axes, rows: list[tuple[str, list[int], list[str]]], tokenizer: Tokenizer) -> None:
    """Rows of a batch as a coloured table of tokens.

    Args:
        rows: a name, the ids, and what each of them is (see `token_kinds`). Ids that are IGNORE_INDEX are shown as such.
    """
    texts = [(name, [str(i) if i == IGNORE_INDEX else tokenizer.decode([i]) for i in ids]) for name, ids, _ in rows]
    kinds = [[NOT_ASKED if i == IGNORE_INDEX else kind for i, kind in zip(ids, line)] for _, ids, line in rows]
    draw_grid(ax, texts, kinds, KINDS)


def draw_families(ax: Axes, arms: dict[str, dict[str, float]]) -> None:
    """Exact match by family of questions, a bar per arm, the best family of the last arm on top.

    An arm with nothing right in any family has no bars; the axis says so. All families with 100 % share one bar.

    arms: name -> family -> share, of up to three arms.
    """
    empty = [name for name, shares in arms.items() if not any(shares.values())]
    arms = {name: shares for name, shares in arms.items() if name not in empty} or arms
    last = list(arms.values())[-1]
    full = [family for family, share in last.items() if share == 1]
    if len(full) > 1:
        name = f"{len(full)} families with 100 %"
        arms = {arm: {f: share for f, share in shares.items() if f not in full}
                | {name: sum(shares[f] for f in full) / len(full)} for arm, shares in arms.items()}
        last = list(arms.values())[-1]
    families = sorted(last, key=last.__getitem__)
    wide = 0.8 / len(arms)
    for i, ((name, shares), colour) in enumerate(zip(arms.items(), (LIGHT, DARK, ACCENT))):
        ax.barh([y + (i - (len(arms) - 1) / 2) * wide for y in range(len(families))], [shares[f] for f in families], wide,
                color=colour, label=name)
    ax.set_yticks(range(len(families)), [family.replace("_", " ") for family in families], fontsize=8)
    ax.set(xlabel=f"exact match{''.join(f' ({name}: 0 % everywhere)' for name in empty)}", xlim=(0, 1))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(arms), frameon=False)


def draw_answer_losses(ax: Axes, losses: list[float], right: list[bool]) -> None:
    """Histogram of the loss on each expected response, apart for questions answered rightly and wrongly.

    losses: nats per token, of each question; at least one of them above 0.
    """
    lowest = min(loss for loss in losses if loss > 0)
    low, high = max(lowest, 1e-5), max(losses)
    edges = [low * (high / low) ** (i / 30) for i in range(31)]
    parts = [[max(loss, low) for loss, r in zip(losses, right) if r == wanted] for wanted in (True, False)]
    ax.hist(parts, bins=edges, stacked=True, color=[DARK, LIGHT],
            label=[f"answered rightly ({len(parts[0])})", f"answered wrongly ({len(parts[1])})"])
    ax.set(xscale="log", xlabel="loss of the expected response (nats per token)", ylabel="test questions")
    ax.legend()
