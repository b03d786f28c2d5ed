"""Pictures of tokens: how text is cut, and what a batch holds. Each function draws into given axes."""

from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from common.support.plots import DARK
from common.tokenizer import visible

PLAIN, NEW = "#eef1f6", "#f2c48d"  # fill colours; they differ in grey as well


def draw_tokens(ax: Axes, rows: list[tuple[str, list[str]]], new: list[str | None] | None = None) -> None:
    """Lines of text cut into tokens, one box each, as wide as it has characters.

    Args:
        rows: a name and the tokens of each line.
        new: for each row the token to set off in colour, if any.
    """
    for y, (_, tokens) in enumerate(rows):
        x = 0
        for token in tokens:
            width = len(visible(token))
            fill = NEW if new is not None and token == new[y] else PLAIN
            ax.add_patch(Rectangle((x + 0.06, y - 0.38), width - 0.12, 0.76, facecolor=fill, edgecolor=DARK, linewidth=0.8))
            ax.text(x + width / 2, y, visible(token), ha="center", va="center", fontsize=8, family="monospace")
            x += width
    _frame(ax, max(sum(len(visible(token)) for token in tokens) for _, tokens in rows), [name for name, _ in rows])


def draw_grid(ax: Axes, rows: list[tuple[str, list[str]]], kinds: list[list[str]], colours: dict[str, str]) -> None:
    """A batch as a table: one line for each row of the tensor, one cell for each position, coloured by kind.

    Args:
        rows: a name and the texts of each line; lines may differ in length.
        kinds: the kind of each cell, a key of `colours`. A kind named "" is left out of the legend.
        colours: kind -> fill colour.
    """
    longest = max(len(texts) for _, texts in rows)
    cell = 72 * ax.get_window_extent().width / ax.figure.dpi / longest  # its width in points
    for y, ((_, texts), line) in enumerate(zip(rows, kinds)):
        for x, (text, kind) in enumerate(zip(texts, line)):
            ax.add_patch(Rectangle((x, y - 0.42), 1, 0.84, facecolor=colours[kind], edgecolor="white", linewidth=1.2))
            size = min(8.0, 1.5 * cell / max(len(visible(text)), 1))  # a letter is about 0.6 times as wide as the font is high
            ax.text(x + 0.5, y, visible(text), ha="center", va="center", fontsize=size,
                    color="white" if colours[kind] == DARK else "black")
    _frame(ax, longest, [name for name, _ in rows])
    ax.set_xticks([x + 0.5 for x in range(longest)], [str(x) for x in range(longest)], fontsize=7)
    ax.tick_params(axis="x", length=0)
    ax.set_xlabel("position")
    used = {kind for line in kinds for kind in line}
    ax.legend(handles=[Patch(facecolor=colour, edgecolor="0.5", label=kind) for kind, colour in colours.items()
                       if kind in used and kind],
              loc="lower left", bbox_to_anchor=(0, 1), ncols=len(colours), fontsize=8, frameon=False)


def _frame(ax: Axes, width: int, names: list[str]) -> None:
    ax.set(xlim=(0, width), ylim=(len(names) - 0.5, -0.5), xticks=[])
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.tick_params(axis="y", length=0)
    ax.spines[:].set_visible(False)
