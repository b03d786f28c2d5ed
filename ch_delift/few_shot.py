"""The other use of a subset: as examples in the prompt. No training; the model answers after reading some of them.

    python ch_delift/train.py --compare --out runs/chosen                                   # writes subset.json
    python ch_delift/few_shot.py --subset runs/chosen/subset.json --out few_shot.json       # with the untouched model
    python ch_delift/few_shot.py --subset runs/chosen/subset.json --model runs/chosen --out few_shot.json

Each test question is answered three times: without examples, after the nearest ones of the subset, and after the nearest ones
of a random subset of the same size. Near means: by the mean hidden state of the prompt. The nearest stands last, right before
the question. As many as fit into the model's context are shown.
"""

from pathlib import Path

import numpy as np

from ch_delift.baselines import random_subset
from ch_delift.embedding import mean_hidden_states, nearest
from ch_delift.utility import SEPARATOR, shown
from ch_instruct.encoding import encode_prompt, encode_record
from ch_instruct.records import load_records, split_places
from ch_instruct.scoring import score
from ch_instruct.subset import read_subset
from common import files, options, runs
from common.console import say, table
from common.device import evaluating, pick_device, pick_precision
from common.files import InputError
from common.generation import continue_all
from common.gpt2 import GPT2
from common.pretrained import load_pretrained
from common.tokenizer import Tokenizer


def prompts_with_examples(questions: list[list[int]], nearest_ids: np.ndarray, examples: list[list[int]],
                          longest: int) -> tuple[list[list[int]], list[int]]:
    """Put examples in front of each question, the nearest last, as many as fit into `longest` tokens.

    Args:
        questions: prompts, as ids.
        nearest_ids: int [questions, K], examples for each, nearest first.
        examples: as ids.

    Returns:
        The prompts, and how many examples each has.
    """
    prompts, counts = [], []
    for question, row in zip(questions, nearest_ids.tolist()):
        prompt, count = question, 0
        for example in row:
            if len(examples[example]) + len(prompt) > longest:
                break
            prompt, count = examples[example] + prompt, count + 1
        prompts.append(prompt)
        counts.append(count)
    return prompts, counts


def answer_after(model: GPT2, tokenizer: Tokenizer, records: list[dict], prompts: list[list[int]], max_new_tokens: int,
                 batch_size: int, precision: str = "fp32") -> list[dict]:
    """Greedy answers. An answer ends where the next example would begin: at the separator, or at end-of-text."""
    answers = []
    with evaluating(model, precision):
        found = continue_all(model, prompts, max_new_tokens, tokenizer.eot_id, batch_size)
    for record, new in zip(records, found):
        text, separator, _ = tokenizer.decode(new.ids).partition(SEPARATOR)
        answers.append(record | {"answer": text.strip(), "stopped": new.stopped or bool(separator)})
    return answers


def main() -> None:
    parser = options.Parser(__doc__)
    options.add(parser, options.ModelOption)
    parser.add_argument("--data", default="classroom", metavar="D",
                        help="the data that the subset was chosen from (default: %(default)s)")
    parser.add_argument("--subset", type=Path, required=True, metavar="FILE", help="a subset.json from ch_delift/train.py")
    parser.add_argument("--shots", type=options.whole, default=5, metavar="K",
                        help="examples in a prompt (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to write the answers, .json")
    options.add(parser, options.FormatOption)
    parser.add_argument("--max-new-tokens", type=options.whole, default=32, metavar="N",
                        help="longest answer in tokens (default: %(default)s)")
    parser.add_argument("--batch-size", type=options.whole, default=32, metavar="N",
                        help="records answered together (default: %(default)s)")
    parser.add_argument("--seed", type=options.natural, default=0,
                        help="seed of the split, as given when the subset was chosen, and of the random subset "
                             "(default: %(default)s)")
    options.add(parser, options.DeviceOption, options.PrecisionOption)
    args = parser.parse_args()
    if args.out.exists():
        raise InputError(f"--out {args.out} already exists; choose a new file.")
    records = load_records(args.data).records
    ids = read_subset(args.subset, runs.data_hash(records))
    places = split_places(records, args.seed)
    training, test = ([records[i] for i in places[split]] for split in ("train", "test"))
    may_be_shown = set(places["train"])
    chosen = [records[i] for i in ids if i in may_be_shown]
    if not chosen:
        raise InputError(f"--subset {args.subset} names no record of the training part; use the --seed it was chosen with.")
    by_chance = [training[i] for i in random_subset(len(training), len(chosen), args.seed)]

    device = pick_device(args.device)
    model, tokenizer = load_pretrained(args.model, device)
    precision, _ = pick_precision(args.precision, device)
    questions = [encode_prompt(record, tokenizer, args.format) for record in test]
    longest = model.config.n_positions - args.max_new_tokens
    if (most := max(map(len, questions))) > longest:
        raise InputError(f"A prompt of {most} tokens and --max-new-tokens {args.max_new_tokens} are more than {args.model} "
                         f"reads, {model.config.n_positions} tokens; lower --max-new-tokens or shorten that record.")
    how = (args.max_new_tokens, args.batch_size, precision)
    vectors = mean_hidden_states(model, questions, precision)
    responses = {"no examples": answer_after(model, tokenizer, test, questions, *how)}
    for name, pool in (("chosen", chosen), ("random", by_chance)):
        examples = [encode_record(record, tokenizer, args.format) for record in pool]
        prompts_of_pool = [e.ids[:e.prompt_length] for e in examples]
        near, _ = nearest(vectors, mean_hidden_states(model, prompts_of_pool, precision), args.shots)
        prompts, counts = prompts_with_examples(questions, near, [shown(e, tokenizer) for e in examples], longest)
        say(f"{name}: {len(pool)} examples, {min(counts)} to {max(counts)} in a prompt (mean {sum(counts) / len(counts):.1f})")
        responses[name] = answer_after(model, tokenizer, test, prompts, *how)

    args.out.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(args.out, responses)
    rows = []
    for name, answers in responses.items():
        scores = score(answers)
        rows.append([name, *(f"{scores[measure]:.1%}" for measure in ("exact_match", "rouge_l", "stopped"))])
    say("\n" + table(["examples", "exact match", "ROUGE-L", "stopped"], rows))
    say(f"\n{len(test)} test questions, answers in {args.out}")


if __name__ == "__main__":
    options.run_command(main)
