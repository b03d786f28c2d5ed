"""Reading answers that a command has written, whichever command it was, into one form."""

import json
from pathlib import Path

from ch_instruct.records import check_characters, read_rows
from common.support.files import InputError, check, reading


def read_responses(path: Path, option: str, arm: str | None, arm_option: str) -> list[dict]:
    """The answers that `respond.py` wrote (a list of records with "answer"), or one arm of a run's `responses.json`.

    Args:
        arm: whose answers, in a file with the answers of several ("answers": {arm: {"answer": ...}}).
        option, arm_option: the options that these came from, for errors.

    Returns:
        Records with the texts "instruction", "answer", and maybe "input", "output" (the expected answer) and, of conversations,
        "earlier" (their input once more: what was said before).

    Raises:
        InputError: if the file is no such file, or the arm is missing, unknown, or has nothing to choose among.
    """
    records = []
    for number, row in enumerate(read_rows(path, option), 1):
        where = f"{option} {path}, record {number}"
        with reading(where, "no record with an answer", "give a file that respond.py wrote, or a run's responses.json"):
            check(row, dict)
            arms = row.get("answers")
            if isinstance(arms, dict):
                if arm is None or not isinstance(arms.get(arm), dict):
                    problem = f"has the answers of {', '.join(arms)}" + (f", none of {arm!r}" if arm else "")
                    raise InputError(f"{where} {problem}; choose one of them with {arm_option}.")
                row = row | arms[arm]
            elif arm is not None:
                raise InputError(f"{arm_option} {arm}: {path} holds one model's answers; leave out {arm_option}.")
            record = {key: row[key] for key in ("instruction", "input", "output", "answer") if key in row}
            check(record, {"instruction": str, "answer": str, str: str})
        check_characters("".join(record.values()), where)
        if "messages" in row:  # a conversation: the input is what was said before the request
            record["earlier"] = record.get("input", "")
        records.append(record)
    return records


def read_mt_bench(path: Path, questions_path: Path) -> list[dict]:
    """An MT-Bench answer file and its question file (JSON lines, as FastChat's llm_judge has them).

    A question is {"question_id", "turns": [text, ...], "reference": [text, ...] (optional)}; an answer is {"question_id",
    "choices": [{"turns": [text, ...]}]}. The first choice counts.

    Returns:
        A record for each turn: "question_id", "turn" (from 1), "instruction", "answer", "output" if there is a reference,
        and "history", the earlier [question, answer] pairs.

    Raises:
        InputError: if a file has another form, or the two do not hold the same questions.
    """
    questions = read_questions(questions_path)
    answers = _by_id(path, "--responses", {"question_id": (int, str), "choices": [{"turns": [str]}]})
    for question_id in questions.keys() ^ answers.keys():
        raise InputError(f"question_id {question_id!r} is in one of {questions_path} and {path} alone; both must hold the same "
                         "questions.")
    records = []
    for question_id, question in questions.items():
        turns, references, choices = question["turns"], question["reference"], answers[question_id]["choices"]
        given = choices[0]["turns"] if choices else []
        if not 0 < len(given) <= len(turns):
            raise InputError(f"--responses {path}: question_id {question_id!r} has {len(given)} answers to {len(turns)} turns.")
        for turn, (text, answer) in enumerate(zip(turns, given)):
            record = {"question_id": question_id, "turn": turn + 1, "instruction": text, "answer": answer,
                      "history": [list(pair) for pair in zip(turns[:turn], given[:turn])]}
            if turn < len(references):
                record["output"] = references[turn]
            records.append(record)
    return records


def read_questions(path: Path) -> dict[int | str, dict]:
    """The questions of an MT-Bench question file by their question_id: objects with "turns" and, maybe empty, "reference".

    Raises:
        InputError: if the file has another form.
    """
    questions = _by_id(path, "--questions", {"question_id": (int, str), "turns": [str]})
    for question_id, question in questions.items():
        question["reference"] = question.get("reference") or []
        where = f"--questions {path}: question_id {question_id!r}"
        with reading(where, "not in MT-Bench's form", "mend its turns or reference"):
            check(question["reference"], [str], "'reference'")
            if not question["turns"]:
                raise ValueError("it has no turns")
    return questions


def _by_id(path: Path, option: str, kind: dict) -> dict[int | str, dict]:
    """question_id -> the row, which is of this kind (see `check`)."""
    found: dict[int | str, dict] = {}
    for number, row in enumerate(read_rows(path, option), 1):
        where = f"{option} {path}, line {number}"
        with reading(where, "not in MT-Bench's form", "a question needs question_id and turns, an answer choices with turns"):
            check(row, kind)
        if row["question_id"] in found:
            raise InputError(f"{where}: question_id {row['question_id']!r} stands there a second time.")
        check_characters(json.dumps(row, ensure_ascii=False), where)
        found[row["question_id"]] = row
    return found
