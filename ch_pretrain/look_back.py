"""Does a model look back? Words in no order are written down twice: the second time they could all be known.

    python ch_pretrain/look_back.py --models classroom runs/ch_pretrain/001

A model that only knows which words there are loses as much on the second copy as on the first. One with induction heads (Olsson
et al., 2022), which find the place where the present word stood before and say what came next there, loses little.
"""

import random
from pathlib import Path

import torch
import torch.nn.functional as F

from ch_pretrain.pages import WORDS
from common import options
from common.console import say, table
from common.gpt2 import GPT2
from common.pretrained import load_pretrained
from common.tokenizer import Tokenizer

LISTS, WORDS_EACH = 24, 30


@torch.no_grad()
def copy_losses(model: GPT2, tokenizer: Tokenizer, seed: int = 0) -> tuple[float, float]:
    """Loss per token, in nats, of the first and of the second copy of random lists of words."""
    rng, first, second, tokens = random.Random(seed), 0.0, 0.0, 0
    for _ in range(LISTS):
        ids = tokenizer.encode(" " + " ".join(rng.choices(WORDS, k=WORDS_EACH)))
        row = torch.tensor([[tokenizer.eot_id, *ids, *ids]], device=model.device)
        losses = F.cross_entropy(model(row[:, :-1])[0].float(), row[0, 1:], reduction="none")  # [2 * len(ids)]
        first, second = first + losses[:len(ids)].sum().item(), second + losses[len(ids):].sum().item()
        tokens += len(ids)
    return first / tokens, second / tokens


def main() -> None:
    parser = options.Parser(__doc__)
    parser.add_argument("--models", nargs="+", default=["classroom"], metavar="M",
                        help="classroom, gpt2, the hub id of a GPT-2 model, or a checkpoint folder (default: classroom)")
    args = parser.parse_args()
    rows = []
    for name in args.models:
        model, tokenizer = load_pretrained(name)
        model.eval()
        first, second = copy_losses(model, tokenizer)
        rows.append([Path(name).name, f"{first:.2f}", f"{second:.2f}", f"{second / first:.0%}"])
    say(table(["loss per token of", "the first copy", "the second", "share"], rows))


if __name__ == "__main__":
    options.run_command(main)
