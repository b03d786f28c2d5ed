"""Answer a file of questions with any model, and score the answers to those that come with an expected one.

    python ch_instruct/respond.py --model runs/ch_instruct/001 --data questions.json --out answers.json
"""

import argparse

from common.support import files, options
from common.support.console import say, table
from common.support.files import InputError


def parse() -> argparse.Namespace:
    parser = options.Parser(__doc__)
    options.add(parser, options.ModelOption)
    parser.add_argument("--data", default="classroom", metavar="D",
                        help="a .json or .jsonl file of records with instruction, perhaps input, and output if the answers "
                             "are to be scored, or with messages; or classroom for its test part (default: %(default)s)")
    parser.add_argument("--out", type=options.new_file, required=True, metavar="FILE",
                        help="where to write the answers, .json; a page to read them goes beside it, .html")
    options.add(parser, options.FormatOption)
    parser.add_argument("--max-new-tokens", type=options.whole, default=128, metavar="N",
                        help="longest answer in tokens (default: %(default)s)")
    parser.add_argument("--batch-size", type=options.whole, default=32, metavar="N",
                        help="records answered together (default: %(default)s)")
    options.add(parser, options.DeviceOption, options.PrecisionOption)
    return parser.parse_args()


if __name__ == "__main__":
    options.run_command(parse)  # --help and wrong options end here: the imports below take seconds

from ch_instruct import pipeline
from ch_instruct.encoding import encode_prompt
from ch_instruct.records import load_questions
from ch_instruct.scoring import score
from ch_instruct.support import html_page
from common.pretrained import load_pretrained
from common.support.device import pick_device, pick_precision


def main() -> None:
    args = parse()
    page = args.out.with_suffix(".html")
    if page == args.out:
        raise InputError(f"--out {args.out}: the answers are JSON and the page beside them is .html; choose a .json name.")
    if page.exists():
        raise InputError(f"--out: {page} already exists; choose a new file.")

    records = load_questions(args.data)
    device = pick_device(args.device)
    model, tokenizer = load_pretrained(args.model, device)
    longest = max(len(encode_prompt(record, tokenizer, args.format)) for record in records)
    if longest >= model.config.n_positions:
        raise InputError(f"--data {args.data}: a prompt has {longest} tokens; {args.model} reads at most "
                         f"{model.config.n_positions - 1} and answers after that. Shorten or leave out that record.")

    responses = pipeline.answer(model, tokenizer, records, args.format, args.max_new_tokens, args.batch_size,
                                pick_precision(args.precision, device)[0])
    files.write_json(args.out, responses)
    merged = pipeline.merge_responses({args.model: responses})
    files.write_text(page, html_page.make_page(merged, f"{args.model}, {args.data}"))
    if known := [response for response in responses if response["output"].strip()]:
        scores = score(known)
        say(table(["", "exact match", "ROUGE-L", "stopped"],
                  [[args.model, *(f"{scores[name]:.1%}" for name in ("exact_match", "rouge_l", "stopped"))]]) + "\n")
    say(f"{len(responses)} answers in {args.out}, {len(known)} of them scored, to read in {page}")


if __name__ == "__main__":
    options.run_command(main)
