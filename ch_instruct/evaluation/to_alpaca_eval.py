"""Write answers in AlpacaEval's form, a JSON list of {"instruction", "output", "generator"}.

    python ch_instruct/evaluation/to_alpaca_eval.py --responses runs/ch_sftmix/001/responses.json --arm sftmix --out sftmix.json

"output" is the model's answer there, not the expected one. AlpacaEval has no inputs, so an input follows its instruction after
an empty line. Write the answers of a second model likewise, and let alpaca_eval compare the two.
"""

from dataclasses import dataclass
from pathlib import Path

from common.support import files, options
from common.support.console import say
from common.support.options import REQUIRED, Options, new_file, option


@dataclass(frozen=True)
class AlpacaEvalOptions(Options):
    """The options of this command."""

    responses: Path = option(REQUIRED, "what respond.py wrote, or a run's responses.json", Path, metavar="FILE")
    arm: str | None = option(None, "whose answers, if FILE is a run's responses.json", metavar="NAME")
    generator: str | None = option(None, "what to call the model (default: the arm, or the file's name)", metavar="NAME")
    out: Path = option(REQUIRED, "where to write, .json", new_file, metavar="FILE")


if __name__ == "__main__":
    options.run_command(options.parse, AlpacaEvalOptions, __doc__)  # --help and wrong options end here: imports take seconds

from ch_instruct.evaluation.response_files import read_responses
from ch_instruct.prompts import question_text


def to_alpaca_eval(records: list[dict], generator: str) -> list[dict]:
    """Records with "instruction", "answer" and maybe "input" as AlpacaEval's model outputs."""
    return [{"instruction": question_text(record), "output": record["answer"], "generator": generator} for record in records]


def main() -> None:
    args = options.parse(AlpacaEvalOptions, __doc__)
    records = read_responses(args.responses, "--responses", args.arm, "--arm")
    files.write_json(args.out, to_alpaca_eval(records, args.generator or args.arm or args.responses.stem))
    say(f"{len(records)} answers in {args.out}")


if __name__ == "__main__":
    options.run_command(main)
