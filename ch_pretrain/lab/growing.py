"""A recording of a training: losses, induction score and five sentences at each snapshot, for the X-ray's view "growing".

    python ch_pretrain/train.py --snapshots 40 --out runs/base
    python ch_pretrain/lab/growing.py --run runs/base --out ch_pretrain/growing.json    # the X-ray shows the file of this name
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.support import options
from common.support.console import say
from common.support.files import InputError, write_text
from common.support.options import REQUIRED, Options, new_file, option


@dataclass(frozen=True)
class GrowingOptions(Options):
    """The options of this command."""

    run: Path = option(REQUIRED, "a training with --snapshots", Path, metavar="FOLDER")
    out: Path = option(REQUIRED, "where the recording is written, as JSON", new_file, metavar="FILE")


if __name__ == "__main__":
    options.run_command(options.parse, GrowingOptions, __doc__)  # --help and wrong options end here: imports take seconds

import torch

from ch_pretrain.inside import head_scores, logit_lens, token_losses
from ch_pretrain.lab.look_back import copy_losses, written_twice
from ch_pretrain.pages import pages
from common.gpt2 import GPT2
from common.pretrained import load_pretrained
from common.tokenizer import Tokenizer

SNAPSHOTS = "snapshots"  # the folder of a run in which each is a checkpoint, named by how many tokens were read
FIVE = ("The capital of Norway is", "The opposite of hot is", "red blue green dog red blue green",
        "Anna lives in the mill. Ben lives in the school. Anna lives in the", "Plurals\n\ncat: cats\ndog:")
HELD_OUT = 40  # pages, by a seed that no training uses
Spoken = list[tuple[str, float | None, str, float]]  # for each token: its loss, what should come next, how probable that is


def spoken(model: GPT2, tokenizer: Tokenizer, ids: list[int]) -> Spoken:
    """What a model says of a text, position by position. The first token has no loss."""
    lens = logit_lens(model, torch.tensor(ids), 1)
    losses = [None, *(round(loss, 3) for loss in token_losses(lens.logits, torch.tensor(ids)).tolist())]
    words = [[tokenizer.decode([i]) for i in part] for part in (ids, lens.tokens[-1, :, 0].tolist())]
    return list(zip(words[0], losses, words[1], [round(p, 3) for p in lens.p[-1, :, 0].tolist()]))


def snapshots_of(run: Path) -> list[Path]:
    """The snapshots of a training, the earliest first.

    Raises:
        InputError: if there is none.
    """
    found = sorted(path for path in (run / SNAPSHOTS).glob("*") if path.name.isdecimal())
    if not found:
        raise InputError(f"{run} holds no snapshots; train with: python ch_pretrain/train.py --snapshots 20")
    return found


@torch.no_grad()
def moment(snapshot: Path) -> dict[str, Any]:
    """What the recording keeps of one snapshot. "loss" is that of held-out pages, in nats per token."""
    model, tokenizer = load_pretrained(snapshot)
    first, second = copy_losses(model, tokenizer)
    induction, _ = head_scores(model, written_twice(tokenizer, model.config.n_positions))
    rows = [torch.tensor(tokenizer.encode(page)[:model.config.n_positions]) for page in pages(HELD_OUT, 2)]
    losses = torch.cat([token_losses(model(ids[None])[0], ids) for ids in rows])
    return {"tokens": int(snapshot.name), "loss": round(losses.mean().item(), 4), "first_copy": round(first, 4),
            "second_copy": round(second, 4), "induction": round(induction.max().item(), 4),
            "sentences": [spoken(model, tokenizer, tokenizer.encode(text)[:model.config.n_positions]) for text in FIVE]}


def main() -> None:
    args = options.parse(GrowingOptions, __doc__)
    moments = [moment(snapshot) for snapshot in snapshots_of(args.run)]
    write_text(args.out, "[" + ",\n".join(json.dumps(one, ensure_ascii=False) for one in moments) + "]\n")
    say(f"Wrote {args.out}: {len(moments)} snapshots, {args.out.stat().st_size:,} bytes.")


if __name__ == "__main__":
    options.run_command(main)
