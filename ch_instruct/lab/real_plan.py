"""What `ch_delift/lab/real_language.py` and `ch_sftmix/lab/real_language.py` share: draws, training, measures. See
`real_language.md`."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from common.support.options import REQUIRED, FolderOptions, ModelOption, option

LONGEST = 128  # tokens of a record, prompt and answer together
TRAIN, TEST = 200, 100  # records of a draw: to choose from, and to test with
ASKED, NEW_TOKENS = 20, 64  # test questions that are answered, too, and the longest answer
PILOT_DRAWS, DRAWS = range(0, 2), range(2, 7)  # of records; no two share one
RANK, EPOCHS, BATCH = 16, 3, 4  # of LoRA; passes of each arm over its own records
RATES = (1e-4, 3e-4, 1e-3)  # peak learning rates of the pilot
LR = {20: 1e-3, 60: 3e-4, 200: 3e-4}  # of the map, by records: the best for random subsets of the pilot; 200 has that of 60


class Trial(NamedTuple):
    """One training and its test."""

    draw: int  # of the data
    arm: str
    records: int  # that it trains on
    lr: float  # peak learning rate
    turn: int = 0  # of what is drawn at random


@dataclass(frozen=True)
class RealOptions(FolderOptions, ModelOption):
    """The options of both commands."""

    model: str = "smollm2"
    data: Path = option(REQUIRED, "Alpaca records, .json", Path, metavar="FILE")
