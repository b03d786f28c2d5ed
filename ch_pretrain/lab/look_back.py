"""Does a model look back? We write words in no order twice: it could know all words of the second copy.

    python ch_pretrain/lab/look_back.py --models classroom runs/ch_pretrain/001

Without looking back, the second copy costs as much loss as the first. Induction heads (Olsson et al., 2022) find the place
where the present word stood before, and say what came next there. With them, the second copy costs little.
"""

import csv
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.support import options
from common.support.console import say, table
from common.support.files import FROM_0, check, reading, write_text
from common.support.options import Options, option


@dataclass(frozen=True)
class LookOptions(Options):
    """The options of this command."""

    models: tuple[str, ...] = option(("classroom",), "classroom, gpt2, another hub id, or a checkpoint folder (default: "
                                     "classroom)", nargs="+", metavar="M")


if __name__ == "__main__":
    options.run_command(options.parse, LookOptions, __doc__)  # --help and wrong options end here: imports take seconds

import torch
import torch.nn.functional as F
from torch import Tensor

from ch_pretrain.inside import head_scores
from ch_pretrain.pages import WORDS
from common.gpt2 import GPT2
from common.pretrained import load_pretrained
from common.support.device import evaluating
from common.tokenizer import Tokenizer

LISTS, WORDS_EACH = 24, 30
LOOKS_FILE = "looking_back.csv"
COLUMNS = ("step", "tokens", "first_copy", "second_copy", "induction")


def written_twice(tokenizer: Tokenizer, longest: int, seed: int = 0) -> list[Tensor]:
    """Random lists of words, each twice: end-of-text, the list's L tokens, and these once more. L differs.

    Args:
        longest: how many tokens a row may have; lists that are too long for that are cut.

    Returns:
        LISTS rows, int64 [1 + 2 L] each.
    """
    rng, rows = random.Random(seed), []
    for _ in range(LISTS):
        ids = tokenizer.encode(" " + " ".join(rng.choices(WORDS, k=WORDS_EACH)))[:(longest - 1) // 2]
        rows.append(torch.tensor([tokenizer.eot_id, *ids, *ids]))
    return rows


@torch.no_grad()
def losses_of_copies(model: GPT2, row: Tensor) -> Tensor:
    """Loss at each token of the first copy and of the second, in nats. int64 [1 + 2 L] -> float [2, L]."""
    row = row.to(model.device)
    return F.cross_entropy(model(row[None, :-1])[0].float(), row[1:], reduction="none").view(2, -1).cpu()


def copy_losses(model: GPT2, tokenizer: Tokenizer, seed: int = 0) -> tuple[float, float]:
    """Loss per token, in nats, of the first and of the second copy of random lists of words."""
    rows = written_twice(tokenizer, model.config.n_positions, seed)
    first, second = torch.cat([losses_of_copies(model, row) for row in rows], dim=1).mean(dim=1).tolist()
    return first, second


def place_losses(model: GPT2, rows: Sequence[Tensor]) -> Tensor:
    """Mean loss at each place of the first copy and of the second, in nats.

    Args:
        rows: int64 [1 + 2 L] each; L may differ.

    Returns:
        float [2, the smallest L].
    """
    losses = [losses_of_copies(model, row) for row in rows]
    shortest = min(both.size(1) for both in losses)
    return torch.stack([both[:, :shortest] for both in losses]).mean(dim=0)


def read_looks(path: Path) -> list[dict[str, float]]:
    """The rows of a file that `add_look` made, from the earliest step to the latest.

    Raises:
        InputError: if there is no such file, or it is damaged.
    """
    with reading(path, "no curve of looking back", "move it away"), open(path, encoding="utf-8", newline="") as file:
        rows = [{name: float(row[name]) for name in COLUMNS} for row in csv.DictReader(file)]
        check(rows, [dict.fromkeys(COLUMNS, FROM_0)])
    return rows


def add_look(path: Path, model: GPT2, tokenizer: Tokenizer, step: int, tokens: int) -> None:
    """See whether the model looks back after this step, and add a row to the CSV file: both losses, best induction score.

    Rows of later steps, which a run that was interrupted has left, give way.
    """
    with evaluating(model):
        first, second = copy_losses(model, tokenizer)
        induction, _ = head_scores(model, written_twice(tokenizer, model.config.n_positions))
    before = read_looks(path) if path.exists() else []
    rows = [list(row.values()) for row in before if row["step"] < step]
    rows.append([step, tokens, first, second, induction.max().item()])
    write_text(path, ",".join(COLUMNS) + "\n" + "".join("{:.0f},{:.0f},{:.4f},{:.4f},{:.4f}\n".format(*row) for row in rows))


def main() -> None:
    args = options.parse(LookOptions, __doc__)
    rows = []
    for name in args.models:
        model, tokenizer = load_pretrained(name)
        first, second = copy_losses(model, tokenizer)
        induction, _ = head_scores(model, written_twice(tokenizer, model.config.n_positions))
        layer, head = divmod(int(induction.argmax()), model.config.n_head)
        rows.append([Path(name).name, f"{first:.2f}", f"{second:.2f}", f"{second / first:.0%}",
                     f"{induction.max():.0%} (layer {layer}, head {head})"])
    say(table(["loss per token of", "the first copy", "the second", "share", "best induction score"], rows))


if __name__ == "__main__":
    options.run_command(main)
