"""The options of `ch_delift/train.py`. PyTorch is not needed to read them, so a wrong one is refused at once."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from ch_instruct.support.fine_tuning_options import FineTuning
from common.support.files import InputError
from common.support.options import option, positive_share, repeats

ARMS = ("random", "se", "gradient", "high-loss", "low-loss", "full")
OTHER = {"instruction": None, "task": "target", "continual": "known"}  # the second group of records each stage needs


@dataclass(frozen=True)
class Pairs:
    """Which pairs are compared: "all", or "neighbours": for each row the `number` of columns with the nearest hidden states."""

    kind: str
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> "Pairs":
        """all or neighbours:K.

        Raises:
            argparse.ArgumentTypeError: for anything else.
        """
        kind, _, number = text.partition(":")
        if text != "all" and not (kind == "neighbours" and number.isdecimal() and int(number)):
            raise argparse.ArgumentTypeError(f"{text!r} is not allowed, it must be all or neighbours:K, as in neighbours:64")
        return cls(kind, int(number or 0))


def pairs_option(text: str) -> str:
    """all or neighbours:K."""
    Pairs.parse(text)
    return text


@dataclass(frozen=True)
class Delift(FineTuning):
    """The options of this command."""

    stage: str = option("instruction", "instruction: cover the data (FL); task: cover --target (FLMI); continual: cover what "
                        "--known does not (FLCG) (default: %(default)s)", choices=list(OTHER))
    fraction: float = option(0.3, "share of the training records to choose (default: %(default)s)", positive_share, metavar="X")
    target: str | None = option(None, "records of the task to become good at; for --stage task", metavar="FILE")
    known: str | None = option(None, "records that the model has learnt already; for --stage continual", metavar="FILE")
    compare: tuple[str, ...] = option(
        ("random", "se", "full"), "what else to train on: random, random subsets; se, the same objective on hidden-state "
        "similarity; gradient, the nearest gradients (after LESS); high-loss or low-loss, the highest or lowest perplexity; "
        "full, all data (default: random se full)", nargs="*", choices=ARMS, metavar="ARM")
    pairs: str = option("neighbours:32", "whose utility is measured: all pairs, or neighbours:K, for each "
                        "target the K candidates with the nearest hidden states (default: %(default)s)", pairs_option,
                        metavar="P")
    similarity: str = option("utility", "what makes two records alike: that one helps the model with the other, as published, "
                             "or the cosine of their mean hidden states (default: %(default)s)", choices=["utility", "hidden"])
    rows: str = option("equal", "how much each record counts that is to be covered: equal, all the same, as published; or "
                       "even, each divided by how many similar records there are (at most K with neighbours:K), so that every "
                       "kind counts the same (default: %(default)s)", choices=["equal", "even"])
    kernel: str = option("positive", "similarity from utility: max(U, 0), or min-max over the matrix (default: %(default)s)",
                         choices=["positive", "minmax"])
    flmi: str = option("query", "which of three functions called FLMI, for --stage task. query needs only the utilities for "
                       "the targets. saturating, that of the authors' code, had higher scores on our data, with utilities; it "
                       "needs those of the records for each other, too (default: %(default)s)",
                       choices=["query", "saturating", "data"])
    kernel_model: str | None = option(None, "measure utilities and hidden states with this model instead of --model, say a "
                                      "fine-tuned one", metavar="M")
    utility: Path | None = option(None, "take the utilities that an earlier run measured; FOLDER is that run's folder", Path,
                                  metavar="FOLDER")
    curve: bool = option(False, "also train on 10, 20, 30 and 50 %% and draw score against fraction")
    seeds: int = option(1, "repeat all training with N seeds and print means and 95 %% intervals (default: %(default)s)",
                        repeats, metavar="N")

    @property
    def arm(self) -> str:
        """Our own arm in the report: "delift", or "se", which is the same with hidden states."""
        return {"utility": "delift", "hidden": "se"}[self.similarity]

    @property
    def others(self) -> tuple[str, ...]:
        """The arms that it is compared with."""
        return tuple(arm for arm in self.compare if arm != self.arm)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("target", self.target), ("known", self.known)):
            wanted = OTHER[self.stage] == name
            if (value is not None) != wanted:
                raise InputError(f"--stage {self.stage} {'needs' if wanted else 'does not use'} --{name}.")
        if self.arm == "se" and (self.utility is not None or self.kernel != Delift.kernel):
            raise InputError("--similarity hidden measures no utilities; leave --utility and --kernel out.")
        if self.flmi != Delift.flmi and self.stage != "task":
            raise InputError(f"--stage {self.stage} has no use for --flmi {self.flmi}; give --stage task, or leave it out.")
        if self.curve and "full" not in self.compare:
            raise InputError("--curve needs full among --compare, to know where the curve ends.")
