"""Ask a model questions of two turns each, where the second turn follows on the answer to the first.

    python ch_instruct/evaluation/two_turn.py --model runs/ch_instruct/001 --out answers.jsonl    # our dozen
    python ch_instruct/evaluation/two_turn.py --model runs/ch_instruct/001 --questions question.jsonl --out answers.jsonl

Both files have MT-Bench's formats (Zheng et al., 2023), a JSON object per line, so its questions can be asked and its
tools can judge the answers:

    question   question_id, category, turns [two texts] and perhaps reference [the right answers]
    answer     question_id, answer_id, model_id, choices [{index, turns}], tstamp

Answers are greedy. Where a question has a reference, each turn is scored by exact match and ROUGE-L.
"""

import json
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from common.support import files, options
from common.support.console import say, shorten, table
from common.support.files import InputError
from common.support.options import REQUIRED, new_file, option

QUESTIONS = Path(__file__).with_name("two_turn_questions.jsonl")  # a dozen about the classroom world


@dataclass(frozen=True)
class TwoTurnOptions(options.PrecisionOption, options.DeviceOption, options.NewTokensOption, options.FormatOption,
                     options.ModelOption):
    """The options of this command."""

    questions: Path = option(QUESTIONS, "a question file, .jsonl (default: a dozen questions about the classroom world)", Path,
                             metavar="FILE")
    out: Path = option(REQUIRED, "where to write the answers, .jsonl", new_file, metavar="FILE")


if __name__ == "__main__":
    options.run_command(options.parse, TwoTurnOptions, __doc__)  # --help and wrong options end here: imports take seconds

from ch_instruct.encoding import encode_prompt
from ch_instruct.evaluation.response_files import read_questions
from ch_instruct.scoring import score
from ch_instruct.support.prompt_style import choose_style, end_as
from common.fast.answering import continue_all
from common.gpt2 import GPT2
from common.pretrained import load_pretrained
from common.support.device import evaluating, pick_device, pick_precision
from common.tokenizer import Tokenizer


def load_questions(path: Path) -> list[dict]:
    """The questions of a file of MT-Bench's form, each with two turns and references to them: two, one or none.

    Raises:
        InputError: naming the question that is not so.
    """
    questions = read_questions(path)
    for question_id, question in questions.items():
        if len(question["turns"]) != 2 or len(question["reference"]) > 2:
            raise InputError(f"--questions {path}: question_id {question_id!r} has {len(question['turns'])} turns and "
                             f"{len(question['reference'])} references; it must have two turns, and no more references.")
    return list(questions.values())


def answer_both(model: GPT2, tokenizer: Tokenizer, questions: list[dict], style: str, max_new_tokens: int) -> list[list[dict]]:
    """The answers to the first turns of all questions, and those to the second turns, which see the first answers.

    Returns:
        Two lists with an entry per question: "answer" and "stopped" (whether the model ended by itself).

    Raises:
        InputError: if a question leaves no room for its answers; before any work, save in one case: an answer of bytes
            that are no characters needs more tokens to be read than to be written.
    """
    talks = [[{"role": "user", "content": question["turns"][0]}] for question in questions]

    def prompts(talks: list[list[dict]], to_come: int) -> list[list[int]]:
        encoded = [encode_prompt({"messages": talk}, tokenizer, style) for talk in talks]
        for question, ids in zip(questions, encoded):
            if len(ids) + to_come >= model.config.n_positions:
                raise InputError(f"Question {question['question_id']} has {len(ids)} tokens, and its first answer may add "
                                 f"{to_come}; this model reads {model.config.n_positions}: shorten it, or lower "
                                 "--max-new-tokens.")
        return encoded

    def follow(answers: list[str]) -> list[list[dict]]:
        return [[*talk, {"role": "assistant", "content": answer}, {"role": "user", "content": question["turns"][1]}]
                for talk, answer, question in zip(talks, answers, questions)]

    def answer(encoded: list[list[int]], what: str) -> list[dict]:
        found = continue_all(model, encoded, max_new_tokens, tokenizer.eot_id, what=what)
        return [{"answer": tokenizer.decode(one.ids).strip(), "stopped": one.stopped} for one in found]

    prompts(follow([""] * len(talks)), max_new_tokens)  # only to see whether everything fits
    first = answer(prompts(talks, 0), "first turns")
    second = answer(prompts(follow([one["answer"] for one in first]), 0), "second turns")
    return [first, second]


def answer_lines(questions: list[dict], turns: list[list[dict]], model_id: str) -> str:
    """The answers in MT-Bench's format, one JSON object per line."""
    return "".join(json.dumps({
        "question_id": question["question_id"], "answer_id": uuid.uuid4().hex, "model_id": model_id,
        "choices": [{"index": 0, "turns": [one["answer"] for one in both]}], "tstamp": time.time()}, ensure_ascii=False) + "\n"
        for question, both in zip(questions, zip(*turns)))


def score_turns(questions: list[dict], turns: list[list[dict]]) -> list[dict | None]:
    """The scores of each turn, over the questions with a reference for it, and their number ("count"); None without any."""
    found = []
    for number, answers in enumerate(turns):
        known = [one | {"output": question["reference"][number]} for question, one in zip(questions, answers)
                 if "".join((question.get("reference") or [])[number:number + 1]).strip()]  # "" is none
        found.append(score(known) | {"count": len(known)} if known else None)
    return found


def main() -> None:
    args = options.parse(TwoTurnOptions, __doc__)
    questions = load_questions(args.questions)
    device = pick_device(args.device)
    model, tokenizer = load_pretrained(args.model, device)
    style = choose_style(args.model, args.format)
    end_as(style, tokenizer)

    with evaluating(model, pick_precision(args.precision, device)[0]):
        turns = answer_both(model, tokenizer, questions, style, args.max_new_tokens)
    files.write_text(args.out, answer_lines(questions, turns, args.model))
    for question, first, second in list(zip(questions, *turns))[:4]:
        for text, given in zip(question["turns"], (first, second)):
            say(f"  {shorten(text)}\n      {shorten(given['answer'])}{'' if given['stopped'] else ' [did not stop]'}")
        say()
    rows = [[f"turn {number}", str(scores["count"]), *(f"{scores[name]:.1%}" for name in ("exact_match", "rouge_l", "stopped"))]
            for number, scores in enumerate(score_turns(questions, turns), 1) if scores]
    if rows:
        say(table(["", "questions", "exact match", "ROUGE-L", "stopped"], rows) + "\n")
    say(f"{len(questions)} questions of two turns; answers in {args.out}")


if __name__ == "__main__":
    options.run_command(main)
