"""Another use of a subset: as examples in the prompt. Nothing is trained; the model reads some examples and answers.

    python ch_delift/train.py --compare --out runs/chosen                                   # writes subset.json
    python ch_delift/lab/few_shot.py --subset runs/chosen/subset.json --out few_shot.json       # with the untouched model
    python ch_delift/lab/few_shot.py --subset runs/chosen/subset.json --model runs/chosen --out few_shot.json
    python ch_delift/lab/few_shot.py --same-family 0 1 3 --out few_shot.json                    # are examples of any use?

Each test question is answered three times: without examples, after the nearest ones of the subset, and after the nearest ones
of a random subset of the same size. Prompts are near if their mean hidden states are. The nearest one is last, right before
the question. With --same-family instead of a subset, the examples are random training records of the question's own family.
As many as fit into the model's context are shown.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from ch_instruct.support.data_forms import RecordOptions
from common.support import files, options
from common.support.console import say, table
from common.support.files import InputError
from common.support.options import REQUIRED, natural, new_file, option, whole


@dataclass(frozen=True)
class FewShotOptions(options.PrecisionOption, options.DeviceOption, options.NewTokensOption, options.FormatOption,
                     RecordOptions, options.ModelOption):
    """The options of this command. Either `subset` or `same_family` is given."""

    data: str = option("classroom", "the data that the subset was chosen from, or the questions come from (default: "
                       "%(default)s)", metavar="D")
    subset: Path | None = option(None, "a subset.json from ch_delift/train.py", Path, metavar="FILE")
    same_family: tuple[int, ...] | None = option(None, "so many random training records of the question's family; several "
                                                 "numbers, several tries", natural, nargs="+", metavar="K")
    shots: int = option(5, "examples in a prompt, with --subset (default: %(default)s)", whole, metavar="K")
    out: Path = option(REQUIRED, "where to write the answers, .json", new_file, metavar="FILE")
    max_new_tokens: int = 32  # the examples need the room
    batch_size: int | None = option(None, "records answered together (default: 64 where they take little memory, or 32)",
                                    whole, metavar="N")
    seed: int = option(0, "seed of the split, as given when the subset was chosen, and of the random subset (default: "
                       "%(default)s)", natural)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.subset is None and self.same_family is None:
            raise InputError("one of the arguments --subset --same-family is required; --help lists all options.")
        if self.subset is not None and self.same_family is not None:
            raise InputError("argument --same-family: not allowed with argument --subset; --help lists all options.")


if __name__ == "__main__":
    options.run_command(options.parse, FewShotOptions, __doc__)  # --help and wrong options end here: imports take seconds

import numpy as np

from ch_delift.baselines import random_subset
from ch_delift.utility import SEPARATOR, shown
from ch_instruct.encoding import encode_prompt, encode_record
from ch_instruct.pipeline import take_subset
from ch_instruct.records import load_records, split_places
from ch_instruct.scoring import score
from ch_instruct.support.prompt_style import choose_style, end_as
from common.embedding import mean_hidden_states, nearest
from common.fast.answering import continue_all
from common.gpt2 import GPT2
from common.pretrained import load_pretrained
from common.support import runs
from common.support.device import evaluating, pick_device, pick_precision
from common.support.reports import family_table
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
                 batch_size: int | None, precision: str = "fp32") -> list[dict]:
    """Greedy answers. An answer ends where the next example would begin: at the separator, or at end-of-text."""
    answers = []
    with evaluating(model, precision):
        found = continue_all(model, prompts, max_new_tokens, tokenizer.eot_id, batch_size)
    for record, new in zip(records, found):
        text, separator, _ = tokenizer.decode(new.ids).partition(SEPARATOR)
        answers.append(record | {"answer": text.strip(), "stopped": new.stopped or bool(separator)})
    return answers


def same_family(questions: list[dict], pool: list[dict], shots: int, seed: int) -> np.ndarray:
    """For each question the numbers of `shots` random records of its family in the pool, int [questions, shots].

    A smaller number of shots takes the first ones of a larger.

    Raises:
        InputError: if a record names no family, or the pool holds fewer of one.
    """
    if any("family" not in record for record in questions + pool):
        raise InputError("--same-family needs records that all name their family.")
    rng = random.Random(f"examples {seed}")
    by_family: dict[str, list[int]] = {}
    for i, record in enumerate(pool):
        by_family.setdefault(record["family"], []).append(i)
    few = [name for name in sorted({q["family"] for q in questions}) if len(by_family.get(name, [])) < shots]
    if few:
        raise InputError(f"--same-family {shots}: the training part holds fewer records of {', '.join(few)}.")
    orders = [rng.sample(by_family[question["family"]], len(by_family[question["family"]])) for question in questions]
    return np.array([order[:shots] for order in orders], dtype=int)


def pools_of_subset(subset: Path, records: list[dict], training: list[int], seed: int) -> dict[str, list[dict]]:
    """The records of the subset, and as many random ones of the training part, whose places are given."""
    chosen = take_subset(training, subset, runs.data_hash(records), len(records))
    by_chance = [training[i] for i in random_subset(len(training), len(chosen), seed)]
    return {name: [records[i] for i in places] for name, places in (("chosen", chosen), ("random", by_chance))}


def tell_prompts(name: str, questions: list[list[int]], ids: np.ndarray, examples: list[list[int]],
                 longest: int) -> list[list[int]]:
    """`prompts_with_examples`, and a line about how many there are in each."""
    prompts, counts = prompts_with_examples(questions, ids, examples, longest)
    say(f"{name}: {len(examples)} examples, {min(counts)} to {max(counts)} in a prompt (mean {sum(counts) / len(counts):.1f})")
    return prompts


def show_scores(responses: dict[str, list[dict]], args: FewShotOptions) -> None:
    """Print the scores of each kind of prompt and, where records name one, of each family."""
    scores = {name: score(answers) for name, answers in responses.items()}
    say("\n" + table(["examples", "exact match", "ROUGE-L", "stopped"],
                     [[name, *(f"{found[measure]:.1%}" for measure in ("exact_match", "rouge_l", "stopped"))]
                      for name, found in scores.items()]))
    if next(iter(scores.values()))["families"]:
        say("\n" + family_table(scores))
    say(f"\n{len(next(iter(responses.values())))} test questions, answers in {args.out}")


def main() -> None:
    args = options.parse(FewShotOptions, __doc__)
    records = load_records(args.data, fields=args.fields, bad_rows=args.bad_rows).records
    places = split_places(records, args.seed)
    training, test = ([records[i] for i in places[split]] for split in ("train", "test"))
    pools = {} if args.subset is None else pools_of_subset(args.subset, records, places["train"], args.seed)
    drawn = {f"{shots} of its family": same_family(test, training, shots, args.seed) for shots in args.same_family or ()}

    device = pick_device(args.device)
    model, tokenizer = load_pretrained(args.model, device)
    precision, _ = pick_precision(args.precision, device)
    style = choose_style(args.model, args.format)
    end_as(style, tokenizer)
    questions = [encode_prompt(record, tokenizer, style) for record in test]
    longest = model.config.n_positions - args.max_new_tokens
    if (most := max(map(len, questions))) > longest:
        raise InputError(f"A prompt of {most} tokens and --max-new-tokens {args.max_new_tokens} are more than {args.model} "
                         f"reads, {model.config.n_positions} tokens; lower --max-new-tokens or shorten that record.")
    prompts_of: dict[str, list[list[int]]] = {}
    if pools:
        prompts_of["no examples"], vectors = questions, mean_hidden_states(model, questions, precision)
    for name, pool in pools.items():
        examples = [encode_record(record, tokenizer, style) for record in pool]
        prompts_of_pool = [e.ids[:e.prompt_length] for e in examples]
        near, _ = nearest(vectors, mean_hidden_states(model, prompts_of_pool, precision), args.shots)
        prompts_of[name] = tell_prompts(name, questions, near, [shown(e, tokenizer) for e in examples], longest)
    fronts = [shown(encode_record(record, tokenizer, style), tokenizer) for record in training] if drawn else []
    for name, ids in drawn.items():
        prompts_of[name] = tell_prompts(name, questions, ids, fronts, longest)
    responses = {name: answer_after(model, tokenizer, test, prompts, args.max_new_tokens, args.batch_size, precision)
                 for name, prompts in prompts_of.items()}
    files.write_json(args.out, responses)
    show_scores(responses, args)


if __name__ == "__main__":
    options.run_command(main)
