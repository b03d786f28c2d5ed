"""Reading answers that a command has written, whichever command it was, into one form."""

import json
import reprlib
from collections.abc import Callable
from pathlib import Path

from ch_instruct.records import check_characters, read_rows
from common.support.files import InputError


def read_responses(path: Path, option: str, arm: str | None, arm_option: str) -> list[dict]:
    """The answers that `respond.py` wrote (a list of records with "answer"), or one arm of a run's `responses.json`.

    Args:
        arm: whose answers, in a file with the answers of several ("answers": {arm: {"answer": ...}}).
        option, arm_option: the options that these came from, for errors.

    Returns:
        Records with the texts "instruction", "answer", and maybe "input" and "output" (the expected answer).

    Raises:
        InputError: if the file is no such file, or the arm is missing, unknown, or has nothing to choose among.
    """
    rows = read_rows(path, option)
    records = []
    for number, row in enumerate(rows, 1):
        where = f"{option} {path}, record {number}"
        if not isinstance(row, dict):
            raise InputError(f"{where} is a {type(row).__name__}; it must be an object with instruction and answer.")
        arms = row.get("answers")
        if isinstance(arms, dict):
            if arm is None or not isinstance(arms.get(arm), dict):
                problem = f"has the answers of {', '.join(arms)}" + (f", none of {arm!r}" if arm else "")
                raise InputError(f"{where} {problem}; choose one of them with {arm_option}.")
            row = row | arms[arm]
        elif arm is not None:
            raise InputError(f"{arm_option} {arm}: {path} holds one model's answers; leave out {arm_option}.")
        for key in ("instruction", "answer"):
            if key not in row:
                raise InputError(f"{where} has no {key!r} (it has {', '.join(map(repr, row)) or 'nothing'}); give a file that "
                                 "respond.py wrote, or a run's responses.json.")
        record = {key: row[key] for key in ("instruction", "input", "output", "answer") if key in row}
        for key, text in record.items():
            _check_text(text, f"{where}: {key!r}")
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
    questions = _by_id(questions_path, "--questions", lambda row: row["turns"])
    answers = _by_id(path, "--responses", lambda row: row["choices"][0]["turns"])
    for question_id in questions.keys() ^ answers.keys():
        raise InputError(f"question_id {question_id!r} is in one of {questions_path} and {path} alone; both must hold the same "
                         "questions.")
    records = []
    for question_id, (question, turns) in questions.items():
        _, given = answers[question_id]
        if len(given) > len(turns):
            raise InputError(f"--responses {path}: question_id {question_id!r} has {len(given)} answers to {len(turns)} turns.")
        where = f"--questions {questions_path}: question_id {question_id!r}"
        references = _texts(question["reference"], "reference", where) if question.get("reference") else []
        for turn, (text, answer) in enumerate(zip(turns, given)):
            record = {"question_id": question_id, "turn": turn + 1, "instruction": text, "answer": answer,
                      "history": [list(pair) for pair in zip(turns[:turn], given[:turn])]}
            if turn < len(references):
                record["output"] = references[turn]
            records.append(record)
    return records


def _by_id(path: Path, option: str, turns: Callable[[dict], object]) -> dict[object, tuple[dict, list[str]]]:
    """question_id -> the row and its turns."""
    found = {}
    for number, row in enumerate(read_rows(path, option), 1):
        where = f"{option} {path}, line {number}"
        try:
            question_id, texts = row["question_id"], turns(row)
            repeated = question_id in found
        except (LookupError, TypeError) as error:
            raise InputError(f"{where} is not in MT-Bench's form ({type(error).__name__}: {error}); a question needs "
                             "question_id and turns, an answer question_id and choices[0].turns.") from error
        if repeated:
            raise InputError(f"{where}: question_id {question_id!r} stands there a second time.")
        check_characters(json.dumps(row, ensure_ascii=False), where)
        found[question_id] = row, _texts(texts, "turns", where)
    return found


def _texts(value: object, key: str, where: str) -> list[str]:
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: {key!r} must be a list of texts, at least one.")
    for text in value:
        _check_text(text, f"{where}: {key!r}")
    return value


def _check_text(text: object, where: str) -> None:
    if not isinstance(text, str):
        raise InputError(f"{where} is {reprlib.repr(text)}; it must be a text.")
    check_characters(text, where)
