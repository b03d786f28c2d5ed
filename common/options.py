"""The command line: options that several commands share, their checks, and how errors are told."""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

from common import distributed
from common.files import InputError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose help names defaults and whose errors are one sentence with exit status 2."""

    def __init__(self, description: str):
        super().__init__(description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> None:
        """End with one sentence and exit status 2."""
        self.exit(2, f"error: {message}; --help lists all options.\n")


def _integer(text: str, lowest: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = lowest - 1
    if value < lowest:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed, it must be a whole number from {lowest} up")
    return value


def whole(text: str) -> int:
    """A whole number from 1 up."""
    return _integer(text, 1)


def natural(text: str) -> int:
    """A whole number from 0 up."""
    return _integer(text, 0)


def _number(text: str, allowed: Callable[[float], bool], what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not allowed(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed, it must be {what}")
    return value


def positive(text: str) -> float:
    """A finite number above 0."""
    return _number(text, lambda value: 0 < value < math.inf, "a number above 0")


def not_negative(text: str) -> float:
    """A finite number from 0 up."""
    return _number(text, lambda value: 0 <= value < math.inf, "a number from 0 up")


def share(text: str) -> float:
    """A number from 0 to 1."""
    return _number(text, lambda value: 0 <= value <= 1, "a share between 0 and 1")


def add_model_option(parser: Parser) -> None:
    """--model."""
    parser.add_argument("--model", default="classroom", metavar="M",
                        help="classroom (ships with this repository), gpt2, gpt2-medium, gpt2-large, gpt2-xl, the hub id of "
                             "a GPT-2 model, or a checkpoint folder (default: %(default)s)")


def add_device_option(parser: Parser) -> None:
    """--device."""
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"],
                        help="auto takes a CUDA GPU if there is one, else the CPU (default: %(default)s)")


def add_sampling_options(parser: Parser, max_new_tokens: int) -> None:
    """--max-new-tokens, --greedy, --temperature and --top-k."""
    parser.add_argument("--max-new-tokens", type=whole, default=max_new_tokens, metavar="N",
                        help="longest continuation in tokens (default: %(default)s)")
    parser.add_argument("--greedy", action="store_true", help="always take the likeliest token")
    parser.add_argument("--temperature", type=positive, default=0.8, metavar="X",
                        help="below 1 is bolder, above 1 more varied (default: %(default)s)")
    parser.add_argument("--top-k", type=whole, metavar="N",
                        help="sample among the N likeliest tokens only (default: among all)")


def add_device_options(parser: Parser) -> None:
    """--device and --precision."""
    add_device_option(parser)
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"],
                        help="precision of matrix products; auto takes bf16 where the GPU computes it natively, or where a "
                             "short trial on this processor finds it a fifth faster (default: %(default)s)")


def add_run_options(parser: Parser, chapter: str) -> None:
    """--out, --resume, --seed and --smoke."""
    add_folder_options(parser, chapter)
    parser.add_argument("--seed", type=natural, default=0, help="seed of all randomness (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="try everything on very little data, in seconds")


def add_folder_options(parser: Parser, chapter: str) -> None:
    """--out and --resume."""
    parser.add_argument("--out", type=Path, metavar="FOLDER",
                        help=f"folder for everything this run writes (default: a new one, runs/{chapter}/001, 002, ...)")
    parser.add_argument("--resume", action="store_true", help="go on with the interrupted run in --out, same options")


def add_training_options(parser: Parser, epochs: int, batch_size: int) -> None:
    """--epochs, --batch-size and --accumulate."""
    parser.add_argument("--epochs", type=whole, default=epochs, metavar="N",
                        help="passes over the training data (default: %(default)s)")
    parser.add_argument("--batch-size", type=whole, default=batch_size, metavar="N",
                        help="examples in one forward pass (default: %(default)s)")
    parser.add_argument("--accumulate", type=whole, default=1, metavar="N",
                        help="forward passes in one optimizer step; more of them with a smaller batch size save memory "
                             "and change nothing else (default: %(default)s)")


def add_instruction_options(parser: Parser) -> None:
    """The options of every chapter that trains on instruction records."""
    parser.add_argument("--data", default="classroom", metavar="D",
                        help="classroom, a public set by name (alpaca, dolly, ultrachat, ...), or a .json or .jsonl file of "
                             "records with instruction, input and output, or with messages (default: %(default)s)")
    parser.add_argument("--subset", type=Path, metavar="FILE",
                        help="train on these records of --data only, a subset.json from ch_delift/train.py (default: on all)")
    add_format_option(parser)
    parser.add_argument("--loss-on", default="response", choices=["response", "all"],
                        help="what is learnt: the response alone, or the prompt too (default: %(default)s)")
    parser.add_argument("--lr", type=positive, metavar="X",
                        help="peak learning rate (default: 3e-4 for models as narrow as classroom, 5e-5 from width 512)")
    add_length_options(parser)


def add_format_option(parser: Parser) -> None:
    """--format."""
    parser.add_argument("--format", default="alpaca", choices=["alpaca", "phi3"],
                        help="prompt style (default: %(default)s)")


def add_length_options(parser: Parser) -> None:
    """--max-length and --over-length."""
    parser.add_argument("--max-length", type=whole, metavar="N",
                        help="longest example in tokens, prompt and response together (default: what the model can read)")
    parser.add_argument("--over-length", default="drop", choices=["drop", "truncate", "error"],
                        help="what happens to longer ones: leave them out, cut the response, or stop (default: %(default)s)")


def default_lr(width: int) -> float:
    """A peak learning rate for a model of this width: narrow models take, and need, larger steps."""
    return 3e-4 if width < 512 else 5e-5


def run_command(main: Callable[[], None]) -> None:
    """Run a command's `main`; turn what the user can mend into one sentence and exit status 2."""
    try:
        distributed.start()
        main()
    except InputError as error:
        if distributed.is_main():
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # no permission, disk full, ...
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nStopped. Go on with the same command and --resume --out FOLDER.", file=sys.stderr)
        sys.exit(130)
    finally:
        distributed.stop()
