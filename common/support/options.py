"""The command line: options that several commands share, their checks, and how errors are told.

The options of a command are a dataclass, one field each, which also says what --help prints and what is allowed. So a
notebook that writes `FineTuning(epochs=2)` gets the defaults and the checks of the command.
"""

import argparse
import io
import math
import os
import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from common.support.console import CONTROL, is_main
from common.support.files import InputError, check, is_there, out_of_memory, read_json, reading, release, unwritable


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one sentence with exit status 2."""

    latest: "Parser"  # that of the running command
    folder: Path | None = None  # the run folder that it has opened
    reached: tuple[Path, int] | None = None  # where a training has begun in it, and the last step that was saved

    def __init__(self, description: str):
        super().__init__(description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.register("type", Path, _path)
        Parser.latest, Parser.folder, Parser.reached = self, None, None

    def parse_args(self, args=None, namespace=None):  # type: ignore[override]
        """Read the command line. What could not be written into a file again is refused, whatever the option."""
        for text in sys.argv[1:] if args is None else args:
            if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
                self.error(f"{text!r} is not allowed, it holds what is no character in UTF-8")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """End with one sentence and exit status 2."""
        self.exit(2, f"error: {one_line(message)}; --help lists all options.\n")

    def what_takes_memory(self) -> str:
        """Options of this command that take memory, for a sentence."""
        names = ("--batch-size", "--num-samples", "--max-length", "--max-new-tokens", "--width")
        return " or ".join([*(name for name in names if name in self._option_string_actions), "the size of the model"])


def _path(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed, it must be the name of a file or folder")
    return Path(text)


def new_file(text: str) -> Path:
    """A name that nothing has yet, where a file can be written: else long work would be lost."""
    path = _path(text)
    if is_there(path):
        raise argparse.ArgumentTypeError(f"{path} already exists, choose a new file")
    if place := unwritable(path):
        raise argparse.ArgumentTypeError(f"{path} cannot be written in {place}, choose another place")
    return path


def _number(allowed: Callable[[float], bool], what: str, kind: type[int] | type[float] = float) -> Callable[[str], float]:
    """What makes a number of a text, for `option`. what: an allowed one is, for errors."""
    def read(text: str) -> float:
        try:
            value: float = kind(text)
        except ValueError:
            value = math.nan
        if not allowed(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not allowed, it must be {what}")
        return value

    return read


whole = _number(lambda value: 1 <= value < 2**31, f"a whole number from 1 up to {2**31 - 1}", int)  # 32 bits hold it
# Such as a seed: several seeds count up from there, and PyTorch takes 64 bits.
natural = _number(lambda value: 0 <= value < 2**63, f"a whole number from 0 up to {2**63 - 1}", int)
repeats = _number(lambda value: 1 <= value <= 1000, "a whole number from 1 up to 1000", int)  # of what takes minutes at least
seconds = _number(lambda value: 0 < value <= 86_400, "a number of seconds above 0, at most 86400")  # a day
share = _number(lambda value: 0 <= value <= 1, "a share between 0 and 1")
positive_share = _number(lambda value: 0 < value <= 1, "a share above 0 and at most 1")
not_negative = _number(lambda value: 0 <= value <= 1e30, "a number from 0 up (to 1e30)")  # float32 can hold it
# The shape of a beta distribution. Below 0.01, Python's draws are rounded to 0 far more often than to 1.
beta_shape = _number(lambda value: 0.01 <= value <= 1e30, "a number from 0.01 up (to 1e30)")
# AdamW moves each weight by about as much as the learning rate, so that beyond 1 nothing is learnt.
rate = _number(lambda value: 1e-30 <= value <= 1, "a learning rate above 0, at most 1")
# Logits are divided by it, or it is 0.
temperature = _number(lambda value: value == 0 or 1e-30 <= value <= 1e30, "0 or a number above 0 (from 1e-30 to 1e30)")
penalty = _number(lambda value: 0.1 <= value <= 10, "a number from 0.1 to 10")  # a factor for logits


REQUIRED: Any = MISSING


def option(default: Any, help: str, type: Callable[[str], Any] = str, **more: Any) -> Any:
    """A field of an `Options` class.

    Args:
        default: its value if nothing is said; False makes it a flag, REQUIRED has it given each time.
        help: a sentence for --help; where it holds "%(default)s", the default is shown.
        type: makes a value of a text, or says why that is not possible.
        more: as for `add_argument`: choices, metavar, nargs. With positional=True it is given by its place, without a name.
    """
    return field(default=default, kw_only=True, metadata={"help": help} | (
        {"action": "store_true"} if default is False else {"type": type} | more))


@dataclass(frozen=True)
class Options:
    """Options of a command. Values that do not come from the command line are checked by the same rules.

    Raises:
        InputError: for a value that is not allowed.
    """

    def __init_subclass__(cls) -> None:
        """An inherited option may get another default, as in `temperature: float = 0.0`, and is the same otherwise."""
        inherited = {part.name: part for some in cls.__mro__[:0:-1] if issubclass(some, Options) for part in fields(some)}
        for name, default in vars(cls).copy().items():
            if name in inherited and not isinstance(default, Field):
                setattr(cls, name, field(default=default, kw_only=True, metadata=inherited[name].metadata))

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


@dataclass(frozen=True)
class ModelOption(Options):
    """Which model."""

    model: str = option("classroom", "classroom (ships with this repository), gpt2, gpt2-medium, gpt2-large, gpt2-xl, "
                        "smollm2, the hub id of a GPT-2, Llama or Qwen2 model, or a checkpoint folder (default: %(default)s)",
                        metavar="M")


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
class AnswerPrecisionOption(Options):
    """The same where a model only answers."""

    precision: str = option("auto", "precision of matrix products; auto takes bf16 where the GPU or the processor has "
                            "instructions for it; int8 (CPU) reads a quarter of the bytes: faster. In bf16 and "
                            "int8, now and then a word differs, also with the other texts of a batch (default: %(default)s)",
                            choices=["auto", "fp32", "bf16", "int8"])


@dataclass(frozen=True)
class FormatOption(Options):
    """How records become prompts."""

    format: str | None = option(None, "prompt style (default: the one that the model was trained in, as its folder's chat "
                                "template says; alpaca for a model without one)", choices=["alpaca", "phi3", "chatml"])

    @property
    def style(self) -> str:
        """The prompt style to use, once the model's folder has been asked (`choose_style`)."""
        return self.format or "alpaca"


@dataclass(frozen=True)
class NewTokensOption(Options):
    """How long texts may get."""

    max_new_tokens: int = option(128, "longest answer or continuation, in tokens (default: %(default)s)", whole, metavar="N")


@dataclass(frozen=True)
class SamplingOptions(NewTokensOption):
    """How texts go on."""

    greedy: bool = option(False, "always take the likeliest token, as --temperature 0 does")
    temperature: float = option(0.8, "below 1 keeps to likely tokens, above 1 is more varied, 0 takes the likeliest (default: "
                                "%(default)s)", temperature, metavar="X")
    top_k: int | None = option(None, "draw among the N likeliest tokens only (default: among all)", whole, metavar="N")
    top_p: float = option(1.0, "draw among the fewest likeliest tokens that together have this probability; 0.9 is usual "
                          "(default: %(default)s, among all)", positive_share, metavar="X")
    repetition_penalty: float = option(1.0, "above 1: make every token of the prompt or answer less likely to come "
                                       "again; 1.1 to 1.3 against loops (default: %(default)s, no penalty)", penalty,
                                       metavar="X")
    no_repeat_ngram: int | None = option(None, "let no run of N tokens of the prompt or answer come twice (default: let "
                                        "them)", whole, metavar="N")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.greedy and self.temperature not in (0, type(self).temperature):  # the second is the default
            raise InputError(f"--greedy always takes the likeliest token, and --temperature {self.temperature:g} draws one; "
                             "give only one of the two.")
        if (self.greedy or self.temperature == 0) and (self.top_k is not None or self.top_p != 1):
            raise InputError("--top-k and --top-p say how to draw, and at temperature 0 nothing is drawn; "
                             + ("leave out --greedy" if self.greedy else "add --temperature 0.8") + ", or leave these two out.")


@dataclass(frozen=True)
class FolderOptions(Options):
    """Where a run writes."""

    out: Path | None = option(None, "folder for everything this run writes (default: a new one, runs/CHAPTER/001, 002, ...)",
                              Path, metavar="FOLDER")
    resume: bool = option(False, "go on with the interrupted run in --out; its other options need not be given again")


def parse(some: type[SomeOptions], description: str) -> SomeOptions:
    """Read the command line of a command that has these options. With --resume, what is not given is as in the run's folder."""
    parser, resuming = Parser(description), "--resume" in sys.argv
    for part in sorted(fields(some), key=lambda part: part.default is not REQUIRED):  # what must be given is told first
        rules = {"default": part.default, **part.metadata}
        if rules.pop("positional", False):
            parser.add_argument(part.name, **{"nargs": None if part.default is REQUIRED else "?"} | rules)
        else:
            parser.add_argument(flag(part.name), required=part.default is REQUIRED and not resuming, **rules)
    args = parser.parse_args()
    if issubclass(some, FolderOptions) and is_resuming(args):
        args = parser.parse_args(namespace=recorded_options(some, args.out))  # what it holds is the default
    if missing := [flag(name) for name, value in vars(args).items() if value is REQUIRED]:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    return some(**vars(args))


def recorded_options(some: type[Options], folder: Path) -> argparse.Namespace:
    """The options of the run in this folder, but --out and --resume.

    Raises:
        InputError: if they are those of another command, or damaged.
    """
    run, ours = read_run(folder), {part.name: part for part in fields(some)}
    if run["options"].keys() != ours.keys():
        raise InputError(f"--resume: the run in {folder} was made by {run.get('command')!r}, whose options are not those of "
                         "this command; go on with that one, or start a new run.")
    with reading(folder / "run.json", "no run.json of a run", "put it back as it was, or start a new run"):
        return argparse.Namespace(**{name: _of_kind(run["options"][name], part) for name, part in ours.items()
                            if name not in ("out", "resume")})


def _of_kind(value: Any, part: Field) -> Any:
    """What the command line makes of this value, which JSON holds as a number, a text or a list.

    Raises:
        ValueError or argparse.ArgumentTypeError: if it could not be given.
    """
    rules = part.metadata
    if "type" not in rules:
        check(value, bool, flag(part.name))
    if "type" not in rules or (value is None and part.default is None):  # a flag, or not given
        return value
    check(value, list if rules.get("nargs") else (str, int, float), flag(part.name))
    return tuple(rules["type"](str(one)) for one in value) if rules.get("nargs") else rules["type"](str(value))


def is_resuming(args: FolderOptions | argparse.Namespace) -> bool:
    """Whether there is a run to go on with: --resume in a folder without run.json begins anew."""
    return bool(args.resume and args.out and is_there(args.out / "run.json"))


def read_run(folder: Path) -> dict[str, Any]:
    """What `runs.open_run` wrote into this folder."""
    return read_json(folder / "run.json", {"options": {str: object}, "facts": {str: object}}, "no run.json of a run",
                           "put it back as it was, or start a new run")


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


def one_line(message: object) -> str:
    """A message for the terminal. A value in it may hold line breaks and control characters, and be very long."""
    text = " ".join(str(message).splitlines()).translate(CONTROL)
    return text if len(text) < 1000 else f"{text[:500]} ... {text[-300:]}"  # the value is in the middle


def _stop_early(*_: object) -> None:
    os.write(2, b"\nStopped.\n")
    os._exit(130)


def how_to_go_on() -> str:
    """The command that continues an interrupted run, for the end of a sentence; empty where nothing has begun."""
    if Parser.folder is None:
        return ""
    launcher = "torchrun, as before, with" if "LOCAL_RANK" in os.environ else "python"
    folder, step = Parser.reached or (Parser.folder, 0)
    which = "" if folder == Parser.folder else f" of the training in {folder}"
    where = f" (it goes on after step {step}{which})" if step else ""  # after no step, it begins anew
    return f" Go on with: {launcher} {shlex.quote(sys.argv[0])} --resume --out {shlex.quote(str(Parser.folder))}{where}"


AT_END: list[Callable[[], None]] = []  # what else is to be done when a command ends, however it ends


def refuse_other_copy() -> None:
    """Raise InputError if the script lies in another copy of this project than the code that it has imported."""
    script, ours = Path(getattr(sys.modules["__main__"], "__file__", None) or "").resolve(), Path(__file__).resolve()
    place = ours.relative_to(ours.parents[2])  # common/support/options.py
    for folder in script.parents:
        if (folder / place).exists() and folder != ours.parents[2]:
            raise InputError(f"{script} would run the code of {ours.parents[2]}, another copy; run pip install -e . in "
                             f"{folder}.")


def run_command(main: Callable[..., object], *given: object) -> None:
    """Run `main` of a command, or `parse` with its options; turn what can be mended into one sentence and exit status 2."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, mode))
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what a terminal cannot spell is no reason to end
    if signal.getsignal(signal.SIGINT) is _stop_early:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        refuse_other_copy()
        main(*given)
        if main.__name__ == "parse" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _stop_early)  # while the rest is imported, where Ctrl-C would end in a traceback
    except InputError as error:
        if is_main():
            print("error:", one_line(error), file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        print(f"error: nobody reads any more what this command prints.{how_to_go_on()}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # no permission, disk full, ...
        print("error:", one_line(f"{error.filename or 'a file'}: {error.strerror or error}."), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # leaving takes a second or two, in which one is pressed again
        if is_main():
            print(f"\nStopped.{how_to_go_on()}", file=sys.stderr)
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
        try:
            sys.stdout.flush()
        except OSError:  # nobody reads it; Python would try once more, and tell that it failed
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
