"""One draw of real records: encoded, trained on, tested, and what a choice among them looks like."""

import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ch_instruct import pipeline
from ch_instruct.lab import real_plan as plan
from ch_instruct.lab.real_plan import RealOptions, Trial
from ch_instruct.pipeline import Work
from ch_instruct.prompts import question_text
from ch_instruct.records import different_questions
from ch_instruct.scoring import WORD, rouge_l, score
from ch_instruct.support.fine_tuning_options import FineTuning
from common.losses import evaluate, next_token_loss
from common.support import runs
from common.support.checkpoints import Run
from common.support.console import table
from common.support.files import InputError, Journal, sha256
from common.support.reports import difference_text, fenced, interval_of, paired

HEAD = """Test loss in nats for each token of the answers: below 0, a difference is a gain. Means over draws of records ± half
of the 95 % interval. What was compared, and what was fixed before, stands in ch_instruct/lab/real_language.md. Seconds are
those of one core."""
COPY = 0.7  # ROUGE-L of two questions from which one is a near-copy: Self-Instruct (arXiv 2212.10560), which made such records


def start(given: RealOptions) -> tuple[Work, Path, Journal]:
    """The model with all records that are short enough, the run's folder, and the journal of its trials.

    Raises:
        InputError: if there are too few records for all draws.
    """
    runs.check_run(given)
    work = pipeline.prepare(FineTuning(model=given.model, data=str(given.data), max_length=plan.LONGEST, precision="fp32",
                                       lora=plan.RANK, epochs=plan.EPOCHS, batch_size=plan.BATCH, lr=plan.LR[plan.TRAIN]))
    pool = different_questions(work.records["train"])
    if len(pool) < (needed := plan.DRAWS.stop * (plan.TRAIN + plan.TEST)):
        raise InputError(f"--data {given.data}: {len(pool)} training records of at most {plan.LONGEST} tokens with different "
                         f"questions are too few; give a file with {needed} or more.")
    work.records["train"] = random.Random("draws").sample(pool, len(pool))
    facts = {"file_sha256": sha256(given.data), "model_sha256": work.facts["model_sha256"]}
    folder = runs.open_run("real_language", given, facts)
    return work, folder, Journal(folder / "trials.jsonl", Trial.__annotations__, "no trial of real language")


def draw(work: Work, number: int) -> Work:
    """The records of this draw, no one of them in another: those to choose from, and a test part."""
    size = plan.TRAIN + plan.TEST
    some = work.records["train"][number * size:(number + 1) * size]
    return pipeline.with_records(work, {"train": some[:plan.TRAIN], "validation": [], "test": some[plan.TRAIN:]})


def train(work: Work, places: Sequence[int], folder: Path, trial: Trial) -> Run:
    """Some passes of plain training over these records, from the untouched model."""
    examples = pipeline.example_dataset([work.examples["train"][i] for i in places], work.tokenizer, seed=trial.turn)
    steps = work.train_options().total_steps(len(examples))
    return pipeline.train(work, examples, next_token_loss, folder, trial.turn, lr=trial.lr, max_steps=steps,
                          evaluate_every=steps)


def measure(work: Work, answers: bool = True) -> dict[str, float]:
    """Test loss in nats for each token of the answers, and ROUGE-L of greedy answers to some of the questions."""
    loss = evaluate(work.model, work.dataset("test"), next_token_loss, 2 * work.options.batch_size, work.precision)
    found = {"test_loss": round(loss, 5)}
    if answers:
        asked = work.records["test"][:plan.ASKED]
        scores = score(pipeline.answer(work.model, work.tokenizer, asked, work.options.style, plan.NEW_TOKENS,
                                       precision=work.precision))
        found |= {name: round(scores[name], 4) for name in ("rouge_l", "stopped")}
    return found


def pairs_of_words(records: Sequence[dict]) -> set[tuple[str, str]]:
    """All pairs of neighbouring words in questions and answers."""
    texts = (WORD.findall(f"{question_text(record)} {record['output']}".lower()) for record in records)
    return {pair for words in texts for pair in zip(words, words[1:])}


def look_of(records: Sequence[dict], places: Sequence[int]) -> dict[str, float]:
    """What a choice looks like: near-copies in it, different first words of instructions (mostly the verb of the task), mean
    words of questions and answers, and the share of the other records' pairs of words that it covers."""
    chosen = [records[i] for i in places]
    rest = pairs_of_words([record for i, record in enumerate(records) if i not in set(places)])
    questions = [question_text(record) for record in chosen]
    copies = sum(any(rouge_l(question, earlier) >= COPY for earlier in questions[:i]) for i, question in enumerate(questions))
    return {"copies": copies, "kinds": len({question.split()[0].lower() for question in questions}),
            "question": fmean(len(WORD.findall(question)) for question in questions),
            "answer": fmean(len(WORD.findall(record["output"])) for record in chosen),
            "covered": len(rest & pairs_of_words(chosen)) / max(len(rest), 1)}


def by_draw(entries: Sequence[dict], arm: str, records: int, measure: str = "test_loss") -> dict[int, Any]:
    """Draw -> this measure of an arm, where it was taken."""
    return {e["draw"]: e[measure] for e in entries
            if (e["arm"], e["records"]) == (arm, records) and e["draw"] in plan.DRAWS and measure in e}


def primary_text(entries: Sequence[dict], primary: Sequence[tuple[str, str, int]]) -> str:
    """The comparisons that were named beforehand, (arm, minus, records): tested where all draws have both arms."""
    return difference_text([
        {"name": f"{first} - {second}, {records} records", "of": len(plan.DRAWS),
         "differences": list(paired(*(by_draw(entries, arm, records) for arm in (first, second))).values())}
        for first, second, records in primary], "test loss", "+.4f")


def arm_table(entries: Sequence[dict], arms: Sequence[tuple[str, int]], beside: str) -> str:
    """What arms with so many records reach, means over draws, and the difference of test loss to the arm `beside` them."""
    rows = []
    for arm, records in arms:
        losses, overlap = (by_draw(entries, arm, records, name) for name in ("test_loss", "rouge_l"))
        if losses:
            gain = list(paired(losses, by_draw(entries, beside, records)).values())
            minus = "-" if arm == beside else interval_of(gain, "+.4f")
            rows.append([arm, str(records), f"{len(losses)} of {len(plan.DRAWS)}", interval_of(list(losses.values()), ".4f"),
                         minus, interval_of(list(overlap.values()))])
    return fenced(table(["arm", "records", "draws", "test loss", f"- {beside}", "ROUGE-L"], rows))
