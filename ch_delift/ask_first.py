"""Does a model learn from an example in its prompt? If not, its utilities say nothing. Ask before measuring for hours.

    python ch_delift/ask_first.py --models classroom                                      # ours
    python ch_delift/ask_first.py --models classroom gpt2 HuggingFaceTB/SmolLM2-135M      # any that transformers reads
    python ch_delift/ask_first.py --models models/SmolLM2-135M-Instruct.Q4_1.gguf         # pip install gguf

One question of each of the classroom's families is a target. In front of it stand, in turn, it itself with its answer, other
records of its family, and records of other families. A model whose utilities are to choose data should be helped most by
the first, then by the second, and hardly by the third. Needs transformers (pip install -r requirements-dev.txt).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from ch_delift.utility import plain_utility
from ch_instruct.encoding import encode_record
from ch_pretrain import classroom
from common import options
from common.console import Progress, say, table
from common.device import autocast
from common.files import InputError
from common.pretrained import find_folder
from common.tokenizer import Tokenizer

AT_ONCE = 8  # examples, between two steps of the progress bar


class TheirTokenizer(Tokenizer):
    """What `encode_record` needs of a tokenizer, from one of transformers."""

    def __init__(self, tokenizer):
        self.tokenizer, self.eot_id = tokenizer, tokenizer.eos_token_id

    def encode(self, text: str) -> list[int]:
        """Text -> ids, without special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def read_model(name: str) -> tuple[Callable[[Tensor], Tensor], int, TheirTokenizer]:
    """Any causal language model: classroom, a public GPT-2, a hub id, a folder, or a .gguf file.

    Returns:
        A function from ids to logits, the number of parameters, and the tokenizer.

    Raises:
        InputError: if there is no such model, or transformers cannot read it.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()
    folder, extra = (Path(name).parent, {"gguf_file": Path(name).name}) if Path(name).is_file() else (find_folder(name), {})
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **extra).eval()
        return (lambda ids: model(ids, use_cache=False).logits, model.num_parameters(),
                TheirTokenizer(AutoTokenizer.from_pretrained(folder, **extra)))
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"transformers cannot read {name} ({reason}).") from error


def choose_records(per_family: int) -> tuple[list[dict], list[dict]]:
    """One training record of each family, and `per_family` others of each, or as many as there are."""
    by_family: dict[str, list[dict]] = {}
    for record in classroom.records():
        if record["split"] == "train":
            by_family.setdefault(record["family"], []).append(record)
    return ([records[0] for records in by_family.values()],
            [record for records in by_family.values() for record in records[1:per_family + 1]])


def main() -> None:
    parser = options.Parser(__doc__)
    parser.add_argument("--models", nargs="+", default=["classroom"], metavar="M",
                        help="classroom, gpt2, a hub id, a folder, or a .gguf file (default: classroom)")
    parser.add_argument("--per-family", type=options.whole, default=5, metavar="N",
                        help="examples of each family, besides the targets (default: %(default)s)")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"],
                        help="of the matrix products; bf16 is faster where the processor has it (default: %(default)s)")
    args = parser.parse_args()
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise InputError("This needs transformers: pip install -r requirements-dev.txt") from error
    targets, others = choose_records(args.per_family)
    examples = targets + others
    family_of = {who: np.array([r["family"] for r in records]) for who, records in (("i", targets), ("j", examples))}
    same = family_of["i"][:, None] == family_of["j"]  # [targets, examples]
    itself = np.eye(len(targets), len(examples), dtype=np.bool_)
    columns = []
    for name in args.models:
        model, parameters, tokenizer = read_model(name)
        say(f"{name}: {len(targets)} targets, {len(examples)} examples")
        encoded, parts = [encode_record(record, tokenizer) for record in examples], []
        with autocast(torch.device("cpu"), args.precision), Progress("utilities", same.size, "pairs") as progress:
            for start in range(0, len(examples), AT_ONCE):
                parts.append(plain_utility(model, tokenizer, encoded[:len(targets)], encoded[start:start + AT_ONCE]))
                progress.advance(parts[-1].size)
        U = np.concatenate(parts, axis=1)
        best = family_of["j"][np.where(itself, -np.inf, U).argmax(axis=1)]  # of the best example but the target itself
        columns.append([Path(name).stem, f"{parameters:,}",
                        *(f"{U[pairs].mean():+.3f}" for pairs in (itself, same & ~itself, ~same)),
                        f"{(best == family_of['i']).mean():.0%}", f"{U.mean(axis=1).var() / U.var():.0%}"])
    what = ["", "parameters", "mean utility of the target itself", "mean utility of its family",
            "mean utility of other families", "targets whose best example is of their family",
            "variance of the utilities that is due to the target"]
    head, *rows = zip(what, *columns)
    say(f"\n{table(list(head), [list(row) for row in rows])}\n\n"
        f"By chance the best example would be of the target's family for {1 / len(targets):.0%} of the targets.")


if __name__ == "__main__":
    options.run_command(main)
