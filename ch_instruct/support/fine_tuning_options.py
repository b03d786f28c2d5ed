"""The options of every chapter that fine-tunes. PyTorch is not needed to read them, so a wrong one is refused at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ch_instruct.records import read_ahead
from ch_instruct.support.data_forms import RecordOptions
from common.support import options
from common.support.options import default_lr, option, rate, whole


@dataclass(frozen=True)
class FineTuning(options.RunOptions, options.PrecisionOption, options.DeviceOption, options.TrainingOptions,
                 options.FormatOption, RecordOptions, options.ModelOption):
    """The options of every chapter that trains on instruction records."""

    data: str = option("classroom", "classroom, a public set by name (alpaca, dolly, ultrachat, ...), the hub id of another, "
                       "or a .json, .jsonl, .csv, .tsv or .parquet file of records: Alpaca, OpenAI messages, ShareGPT, "
                       "prompt and completion, question and answer (default: %(default)s)", metavar="D")
    save_data: Path | None = option(None, "write the records as they were understood to this new .json or .jsonl file "
                                    "(default: nowhere)", Path, metavar="FILE")
    subset: Path | None = option(None, "train on these records of --data only, a subset.json from ch_delift/train.py "
                                 "(default: on all)", Path, metavar="FILE")
    test_limit: int = option(500, "most test questions to ask, drawn by --seed from a larger test part (default: %(default)s)",
                             whole, metavar="N")
    validation_limit: int = option(200, "the same for the validation part (default: %(default)s)", whole, metavar="N")
    loss_on: str = option("response", "what is learnt: the response alone, or the prompt too (default: %(default)s)",
                          choices=["response", "all"])
    lr: float | None = option(None, f"peak learning rate (default: {default_lr():g}, with --lora {default_lr(lora=True):g})",
                              rate, metavar="X")
    lora: int | None = option(None, "learn updates of this rank instead of the weights themselves (LoRA): far less memory, and "
                              "an adapter beside the checkpoint (default: all weights)", whole, metavar="RANK")
    max_length: int | None = option(None, "longest example in tokens, prompt and response together (default: what the model "
                                    "can read)", whole, metavar="N")
    over_length: str = option("drop", "what happens to longer ones: leave them out, cut the response, or stop (default: "
                              "%(default)s)", choices=["drop", "truncate", "error"])


SomeTuning = TypeVar("SomeTuning", bound=FineTuning)


def parse(some: type[SomeTuning], description: str) -> SomeTuning:
    """As `options.parse`; and read the data before the slow imports, so that a broken file is told at once."""
    given = options.parse(some, description)
    read_ahead(given.data, fields=given.fields, bad_rows=given.bad_rows)
    return given
