"""Does a model learn from an example in its prompt? If not, its utilities say nothing. Ask before measuring for hours.

    python ch_delift/lab/ask_first.py --models classroom                                      # ours
    python ch_delift/lab/ask_first.py --models classroom gpt2 HuggingFaceTB/SmolLM2-135M      # others
    python ch_delift/lab/ask_first.py --models gpt2 --data my.json                            # your own records

One question of each of the classroom's families is a target. In front of it we put, in turn, the target itself with its answer,
other records of its family, and records of other families. If a model's utilities are to choose data, the first should help it
most, the second less, and the third hardly. More targets come from two families of which the classroom model never read a
question (`HELD_OUT` in `ch_pretrain/pages.py`): is it the example that helps, or a known family? If your records name no
family, the questions most similar to a target's (by ROUGE-L) count as its family. If you have many records, we take the
shorter half, and never more than eight families. So a model of gpt2's size takes minutes on two cores.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from ch_instruct.support.data_forms import RecordOptions
from common.support import options
from common.support.console import say, table
from common.support.files import InputError
from common.support.options import option, whole


@dataclass(frozen=True)
class AskOptions(RecordOptions):
    """The options of this command."""

    models: tuple[str, ...] = option(("classroom",), "classroom, gpt2, a hub id, or a folder (default: classroom)",
                                     nargs="+", metavar="M")
    data: str = option("classroom", "the records to ask with, as for training (default: %(default)s)", metavar="D")
    per_family: int = option(5, "examples of each family, besides the targets (default: %(default)s)", whole, metavar="N")
    precision: str = option("fp32", "of the matrix products; bf16 is faster where the processor has it (default: %(default)s)",
                            choices=["fp32", "bf16"])


if __name__ == "__main__":
    options.run_command(options.parse, AskOptions, __doc__)  # --help and wrong options end here: imports take seconds

import numpy as np

from ch_delift.utility import utility_matrix
from ch_instruct.encoding import encode_record
from ch_instruct.prompts import question_text
from ch_instruct.records import load_records, split_places
from ch_instruct.scoring import rouge_l
from ch_pretrain.pages import HELD_OUT
from common.pretrained import load_pretrained
from common.support.public_form import count_parameters
from common.tokenizer import Tokenizer

OWN_TARGETS = 8  # from records of one's own: a trial of minutes, whatever their number and length
ROOM = 8  # tokens between an example and a target
OF_HELD_OUT = 8  # targets of each family that stood in no interview


def choose_records(records: list[dict], per_family: int, families: tuple[str, ...] = (),
                   of_each: int = 1) -> tuple[list[dict], list[dict]]:
    """Of these records `of_each` of these families (of all, if none are named), and `per_family` others of every family."""
    by_family: dict[str, list[dict]] = {}
    for record in records:
        by_family.setdefault(record["family"], []).append(record)
    targets = [record for name in families or by_family for record in by_family[name][:of_each]]
    return targets, [r for records in by_family.values() for r in records[of_each:of_each + per_family]]


def group_by_likeness(records: list[dict], per_family: int) -> list[dict]:
    """Some records drawn at random, each followed by the `per_family` whose questions are most like its own: a family."""
    left = random.Random("targets").sample(records, len(records))
    found: list[dict] = []
    for number in range(min(OWN_TARGETS, len(records) // (per_family + 1))):
        target, *others = left
        others.sort(key=lambda record: rouge_l(question_text(record), question_text(target)), reverse=True)
        found += [record | {"family": f"like {number}"} for record in [target, *others[:per_family]]]
        left = others[per_family:]
    return found


def choose_parts(args: AskOptions, records: list[dict], tokenizer: Tokenizer,
                 context: int) -> dict[str, tuple[list[dict], list[dict]]]:
    """What is measured with the training records: its name -> targets and other examples.

    Raises:
        InputError: if there are not enough records of which two fit into what the model reads.
    """
    if args.data == "classroom":
        return {"one target of each family": choose_records(records, args.per_family),
                f"{OF_HELD_OUT} targets each of {' and '.join(HELD_OUT)}": choose_records(
                    records, args.per_family, HELD_OUT, OF_HELD_OUT)}
    lengths = [len(encode_record(record, tokenizer).ids) for record in records]
    plenty = len(records) >= 2 * OWN_TARGETS * (args.per_family + 1)
    most = min((context - ROOM) // 2, int(np.median(lengths)) if plenty else max(lengths))
    fit = [record for record, length in zip(records, lengths) if length <= most]
    if not all("family" in record for record in fit):
        fit = group_by_likeness(fit, args.per_family)
    families = list(dict.fromkeys(record["family"] for record in fit))[:OWN_TARGETS]
    targets, others = choose_records([record for record in fit if record["family"] in families], args.per_family)
    if len(targets) < 2:
        raise InputError(f"--data {args.data}: {len(fit)} short records of which this model reads two at once are too few "
                         f"for two targets with {args.per_family} examples each; lower --per-family, or give more records.")
    return {f"{len(targets)} targets of {args.data}": (targets, others)}


def summary(U: np.ndarray, targets: list[dict], examples: list[dict]) -> dict[str, float]:
    """Means over kinds of pairs, and what chooses. The targets are the first of the examples."""
    of_target, of_example = (np.array([record["family"] for record in records]) for records in (targets, examples))
    same, itself = of_target[:, None] == of_example, np.eye(*U.shape, dtype=np.bool_)
    best = of_example[np.where(itself, -np.inf, U).argmax(axis=1)]
    return {"mean utility of the target itself": U[itself].mean(), "mean utility of its family": U[same & ~itself].mean(),
            "mean utility of other families": U[~same].mean(),
            "targets whose best example is of their family": (best == of_target).mean(),
            "the same by chance": (same & ~itself).sum() / (~itself).sum(),
            "variance of the utilities that is due to the target": U.mean(axis=1).var() / U.var()}


def main() -> None:
    args = options.parse(AskOptions, __doc__)
    records = load_records(args.data, fields=args.fields, bad_rows=args.bad_rows).records
    records = [records[i] for i in split_places(records, 0)["train"]]
    columns: dict[str, list[dict]] = {}
    sizes = []
    for name in args.models:
        model, tokenizer = load_pretrained(name)
        sizes.append(f"{count_parameters(model.config):,}")
        for part, (targets, others) in choose_parts(args, records, tokenizer, model.config.n_positions).items():
            say(f"{name}: {len(targets)} targets, {len(targets + others)} examples")
            examples = [encode_record(record, tokenizer) for record in targets + others]
            U = utility_matrix(model, tokenizer, examples[:len(targets)], examples, args.precision)
            columns.setdefault(part, []).append(summary(U, targets, targets + others))
    rows = [["parameters", *sizes]]
    for part, found in columns.items():
        rows.append([f"-- {part}", *[""] * len(sizes)])
        rows += [[what, *(f"{column[what]:+.3f}" if what.startswith("mean") else f"{column[what]:.0%}" for column in found)]
                 for what in found[0]]
    say("\n" + table(["", *(Path(name).stem for name in args.models)], rows))


if __name__ == "__main__":
    options.run_command(main)
