"""The command line: options that several commands share, their checks, and how errors are told.

Options of training commands are a dataclass, one field each, which also says what --help prints and what is allowed. So
a notebook that writes `FineTuning(epochs=2)` gets the defaults and the checks of the command.
"""

import argparse
import io
import math
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from common.support.console import is_main
from common.support.files import InputError, out_of_memory, release


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one sentence with exit status 2."""

    latest: "Parser"  # that of the running command

    def __init__(self, description: str):
        super().__init__(description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.register("type", Path, _path)
        Parser.latest = self

    def parse_args(self, args=None, namespace=None):  # type: ignore[override]
        """Read the command line. What could not be written into a file again is refused, whatever the option."""
        for text in sys.argv[1:] if args is None else args:
            if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
                self.error(f"{text!r} is not allowed, it holds what is no character in UTF-8")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """End with one sentence and exit status 2."""
        self.exit(2, f"error: {' '.join(message.splitlines())}; --help lists all options.\n")

    def has(self, name: str) -> bool:
        """Whether the command takes this option."""
        return name in self._option_string_actions

    def what_takes_memory(self) -> str:
        """Options of this command that take memory, for a sentence."""
        names = filter(self.has, ("--batch-size", "--num-samples", "--max-length", "--max-new-tokens", "--width"))
        return " or ".join([*names, "the size of the model"])


def _path(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed, it must be the name of a file or folder")
    return Path(text)


def new_file(text: str) -> Path:
    """A name that nothing has yet."""
    path = _path(text)
    if path.exists():
        raise argparse.ArgumentTypeError(f"{path} already exists, choose a new file")
    return path


def _integer(text: str, lowest: int, highest: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = lowest - 1
    if value < lowest:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed, it must be a whole number from {lowest} up")
    if value > highest:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed, it must be at most {highest}")
    return value


def whole(text: str) -> int:
    """A whole number from 1 up that 32 bits hold."""
    return _integer(text, 1, 2**31 - 1)


def natural(text: str) -> int:
    """A whole number from 0 up, such as a seed. 63 bits hold it: several seeds count up from there, and PyTorch takes 64."""
    return _integer(text, 0, 2**63 - 1)


def _number(text: str, allowed: Callable[[float], bool], what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not allowed(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed, it must be {what}")
    return value


def positive(text: str) -> float:
    """A number above 0 whose inverse and product with others float32 can hold."""
    return _number(text, lambda value: 1e-30 <= value <= 1e30, "a number above 0 (from 1e-30 to 1e30)")


def seconds(text: str) -> float:
    """A time above 0, a day at most."""
    return _number(text, lambda value: 0 < value <= 86_400, "a number of seconds above 0, at most 86400")


def not_negative(text: str) -> float:
    """A number from 0 up that float32 can hold."""
    return _number(text, lambda value: 0 <= value <= 1e30, "a number from 0 up (to 1e30)")


def share(text: str) -> float:
    """A number from 0 to 1."""
    return _number(text, lambda value: 0 <= value <= 1, "a share between 0 and 1")


def option(default: Any, help: str, type: Callable[[str], Any] = str, **more: Any) -> Any:
    """A field of an `Options` class.

    Args:
        default: its value if nothing is said; False makes it a flag.
        help: a sentence for --help; where it holds "%(default)s", the default is shown.
        type: makes a value of a text, or says why that is not possible.
        more: as for `add_argument`: choices, metavar, nargs.
    """
    return field(default=default, metadata={"help": help} | ({"action": "store_true"} if default is False
                                                             else {"type": type} | more))


@dataclass(frozen=True)
class Options:
    """Options of a command. Values that do not come from the command line are checked by the same rules.

    Raises:
        InputError: for a value that is not allowed.
    """

    def __post_init__(self) -> None:
        for part in fields(self):
            value, rules = getattr(self, part.name), part.metadata
            if value == part.default or "type" not in rules:
                continue
            for one in value if rules.get("nargs") else [value]:
                try:
                    rules["type"](str(one))
                except argparse.ArgumentTypeError as error:
                    raise InputError(f"{flag(part.name)}: {error}.") from error
                if one not in rules.get("choices", [one]):
                    raise InputError(f"{flag(part.name)}: {one!r} is not allowed, choose from {', '.join(rules['choices'])}.")


SomeOptions = TypeVar("SomeOptions", bound=Options)


def flag(name: str) -> str:
    """batch_size -> --batch-size."""
    return "--" + name.replace("_", "-")


def add(parser: Parser, *classes: type[Options]) -> None:
    """Give a parser the options of these classes."""
    for part in (part for some in classes for part in fields(some)):
        parser.add_argument(flag(part.name), default=part.default, **part.metadata)


def parse(some: type[SomeOptions], description: str) -> SomeOptions:
    """Read the command line of a command that has these options."""
    parser = Parser(description)
    add(parser, some)
    return some(**vars(parser.parse_args()))


@dataclass(frozen=True)
class ModelOption(Options):
    """Which model."""

    model: str = option("classroom", "classroom (ships with this repository), gpt2, gpt2-medium, gpt2-large, gpt2-xl, the hub "
                        "id of a GPT-2 model, or a checkpoint folder (default: %(default)s)", metavar="M")


@dataclass(frozen=True)
class DeviceOption(Options):
    """Where to compute."""

    device: str = option("auto", "auto takes a CUDA GPU if there is one, else the CPU (default: %(default)s)",
                         choices=["auto", "cpu", "cuda", "mps"])


@dataclass(frozen=True)
class PrecisionOption(Options):
    """How exactly to compute."""

    precision: str = option("auto", "precision of matrix products; auto takes bf16 where the GPU or the processor has "
                            "instructions for it (default: %(default)s)", choices=["auto", "fp32", "bf16"])


@dataclass(frozen=True)
class FormatOption(Options):
    """How records become prompts."""

    format: str = option("alpaca", "prompt style (default: %(default)s)", choices=["alpaca", "phi3"])


@dataclass(frozen=True)
class SamplingOptions(Options):
    """How texts go on."""

    greedy: bool = option(False, "always take the likeliest token")
    temperature: float = option(0.8, "below 1 keeps to likely tokens, above 1 is more varied (default: %(default)s)", positive,
                                metavar="X")
    top_k: int | None = option(None, "sample among the N likeliest tokens only (default: among all)", whole, metavar="N")


@dataclass(frozen=True)
class FolderOptions(Options):
    """Where a run writes."""

    out: Path | None = option(None, "folder for everything this run writes (default: a new one, runs/CHAPTER/001, 002, ...)",
                              Path, metavar="FOLDER")
    resume: bool = option(False, "go on with the interrupted run in --out, same options")


@dataclass(frozen=True)
class RunOptions(FolderOptions):
    """What every training command has."""

    seed: int = option(0, "seed of all randomness (default: %(default)s)", natural, metavar="N")
    smoke: bool = option(False, "try everything on very little data, in seconds")


@dataclass(frozen=True)
class TrainingOptions(Options):
    """How to train."""

    epochs: int = option(3, "passes over the training data (default: %(default)s)", whole, metavar="N")
    batch_size: int = option(16, "examples in one forward pass (default: %(default)s)", whole, metavar="N")
    accumulate: int = option(1, "forward passes in one optimizer step; more of them with a smaller batch size save memory and "
                             "change nothing else (default: %(default)s)", whole, metavar="N")
    recompute: bool = option(False, "keep few activations and compute them again on the way back: a third more work, far less "
                             "memory for long texts and large models; changes nothing else")
    dropout: float = option(0.0, "share of activations set to zero in training, against overfitting (default: %(default)s)",
                            share, metavar="X")


def default_lr(lora: bool = False) -> float:
    """A peak learning rate for fine-tuning; LoRA takes tenfold steps ("LoRA Without Regret", Schulman et al., 2025)."""
    return 5e-4 if lora else 5e-5


AT_END: list[Callable[[], None]] = []  # what else is to be done when a command ends, however it ends


def run_command(main: Callable[[], object]) -> None:
    """Run `main`, or `parse`, of a command; turn what the user can mend into one sentence and exit status 2."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what a terminal cannot spell is no reason to end
    try:
        main()
    except InputError as error:
        if is_main():
            print("error:", *str(error).splitlines(), file=sys.stderr)  # on one line, even if a name holds a line break
        sys.exit(2)
    except OSError as error:  # no permission, disk full, ...
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # leaving takes a second or two, in which one is pressed again
        advice = " Go on with the same command and --resume --out FOLDER." * Parser.latest.has("--resume")
        if is_main():
            print(f"\nStopped.{advice}", file=sys.stderr)
        sys.exit(130)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        print(f"error: there is not enough memory; lower {Parser.latest.what_takes_memory()}.", file=sys.stderr)
        sys.exit(2)
    finally:
        release()
        for act in AT_END:
            act()
