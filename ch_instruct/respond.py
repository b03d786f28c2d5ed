"""Answer a file of questions with any model. Score the answers where the file holds an expected one.

    python ch_instruct/respond.py --model runs/ch_instruct/001 --data questions.json --out answers.json
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from ch_instruct.support.data_forms import RecordOptions
from common.support import files, options
from common.support.console import say, table
from common.support.files import InputError
from common.support.options import REQUIRED, natural, new_file, option, whole


@dataclass(frozen=True)
class RespondOptions(options.AnswerPrecisionOption, options.DeviceOption, options.SamplingOptions, options.FormatOption,
                     RecordOptions, options.ModelOption):
    """The options of this command."""

    data: str = option("classroom", "a file of records as for training, which need no answers: those that have one are scored; "
                       "or classroom for its test part (default: %(default)s)", metavar="D")
    over_length: str = option("error", "what happens to questions that the model cannot read: stop, or leave them out "
                              "(default: %(default)s)", choices=["error", "drop"])
    out: Path = option(REQUIRED, "where to write the answers, .json; a page to read them goes beside it, .html", new_file,
                       metavar="FILE")
    part: str = option("all", "ask all records, or the held-out ones of the file that the model was trained on (default: "
                       "%(default)s)", choices=["all", "test"])
    temperature: float = 0.0  # the same answers, and so the same scores, every time (with the same --batch-size)
    seed: int = option(0, "seed of the sampling (default: %(default)s)", natural, metavar="N")
    batch_size: int | None = option(None, "records answered together (default: 64 where they take little memory, or 32)",
                                    whole, metavar="N")


if __name__ == "__main__":
    options.run_command(options.parse, RespondOptions, __doc__)  # --help and wrong options end here: imports take seconds

from ch_instruct import pipeline
from ch_instruct.encoding import encode_prompt
from ch_instruct.records import count_rows, different_questions, load_questions
from ch_instruct.scoring import score
from ch_instruct.support import html_page
from ch_instruct.support.held_out import choose_part
from ch_instruct.support.prompt_style import choose_style, end_as
from common.fast.answering import Continuation
from common.fast.int8 import precision_to_answer
from common.gpt2 import GPT2
from common.pretrained import load_pretrained
from common.sampling import asked_for
from common.support import runs
from common.support.device import pick_device
from common.support.reports import with_interval
from common.tokenizer import Tokenizer

KEPT = {"command": str, "number": int, "ids": [int], "stopped": bool}  # an answer, in the journal of an interrupted command


def answer_and_keep(args: RespondOptions, model: GPT2, tokenizer: Tokenizer, records: list[dict],
                    style: str) -> tuple[Path, list[dict]]:
    """Answer these records, and keep each answer at once in a file beside --out, so that the same command goes on after an
    interruption. Returns that file, and the records with their answers.

    Raises:
        InputError: if the file holds answers of another command.
    """
    precision, how = precision_to_answer(args.precision, model), asked_for(args)
    prompts = [encode_prompt(record, tokenizer, style) for record in records]
    command = runs.data_hash([runs.model_hash(model), args.precision, precision, asdict(how), args.max_new_tokens, args.seed,
                              tokenizer.eot_id, prompts])  # all that decides an answer
    kept = files.Journal(args.out.with_name(f"{args.out.name}.unfinished.jsonl"), KEPT, "no answer of an interrupted command")
    if any(entry["command"] != command for entry in kept.entries):
        raise InputError(f"{kept.path} holds answers of another interrupted command; delete it, or choose another --out.")
    if kept.entries:
        say(f"{len(kept.entries)} of {len(records)} answers are there, from a command that was interrupted ({kept.path})")
    try:
        return kept.path, pipeline.answer(
            model, tokenizer, records, style, args.max_new_tokens, args.batch_size, precision, how, args.seed,
            known={entry["number"]: Continuation(entry["ids"], entry["stopped"]) for entry in kept.entries},
            ended=lambda i, text: kept.append({"command": command, "number": i, "ids": text.ids, "stopped": text.stopped}))
    except KeyboardInterrupt:
        say(f"\n{len(kept.entries)} of {len(records)} answers are kept in {kept.path}; the same command goes on with them.")
        raise


def main() -> None:
    args = options.parse(RespondOptions, __doc__)
    page = args.out.with_suffix(".html")
    if args.out.suffix.lower() != ".json":
        raise InputError(f"--out {args.out}: the answers are JSON and the page beside them is .html; choose a .json name.")
    if page.exists():
        raise InputError(f"--out: {page} already exists; choose a new file.")

    loaded = choose_part(load_questions(args.data, "--data", args.fields, args.bad_rows), [args.model], args.part)
    device = pick_device(args.device)
    model, tokenizer = load_pretrained(args.model, device)
    style = choose_style(args.model, args.format)
    end_as(style, tokenizer)
    longest = model.config.n_positions - 1  # one token is for the answer
    lengths = [len(encode_prompt(record, tokenizer, style)) for record in loaded.records]
    long = [row for row, length in zip(loaded.rows, lengths) if length > longest]
    if long and (args.over_length == "error" or len(long) == len(lengths)):
        raise InputError(f"--data {args.data}: the prompts of {count_rows(long)} have more than {longest} tokens (the longest "
                         f"{max(lengths)}), which is all that {args.model} reads; shorten them"
                         + ("." if len(long) == len(lengths) else ", or leave them out by --over-length drop."))
    if long:
        say(f"--data {args.data}, left out, more than {longest} tokens: {count_rows(long)}")
    records = [record for record, length in zip(loaded.records, lengths) if length <= longest]

    kept, responses = answer_and_keep(args, model, tokenizer, records, style)
    files.write_json(args.out, responses)
    kept.unlink(missing_ok=True)
    merged = pipeline.merge_responses({args.model: responses})
    files.write_text(page, html_page.make_page(merged, f"{args.model}, {args.data}"))
    if known := different_questions([response for response in responses if response["output"].strip()]):
        scores = score(known)
        say(table(["", "exact match", "ROUGE-L", "stopped"], [
            [args.model, with_interval(scores["exact_match"], len(known)), f"{scores['rouge_l']:.1%}",
             f"{scores['stopped']:.1%}"]]) + "\n")
    say(f"{len(responses)} answers in {args.out}, {len(known)} of them scored, to read in {page}")


if __name__ == "__main__":
    options.run_command(main)
