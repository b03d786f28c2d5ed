"""Subset files: which records of a data file to train on. `ch_delift` and `ch_sftmix` write them; every fine-tuning command
reads them."""

import sys
from pathlib import Path

from common.support.files import InputError, parse_json, reading, regular, write_json


def write_subset(path: Path, ids: list[int], gains: list[float], facts: dict[str, object]) -> None:
    """Write a subset.

    Args:
        ids: places of the chosen records in the data (from 0, in the order in which they were chosen), whatever part they
            belong to.
        gains: what each added to the objective.
        facts: data_sha256, and how the subset came about; the command that made it is noted besides.
    """
    write_json(path, {"ids": ids, "gains": gains, "command": " ".join(["python", *sys.argv])} | facts)


def read_subset(path: Path, data_hash: str, records: int) -> list[int]:
    """The ids in a subset file, places among so many `records`.

    Raises:
        InputError: if it is no subset file, or one of other data (another `data_sha256`), or an id is no place in them.
    """
    with reading(f"--subset {path}", "no subset file with ids and data_sha256", "give one that ch_delift or ch_sftmix wrote"):
        content = parse_json(regular(path).read_text(encoding="utf-8"), {"ids": [int], "data_sha256": str})
    ids, of_data = content["ids"], content["data_sha256"]
    if of_data != data_hash:
        raise InputError(f"--subset {path} was chosen from other data (its data_sha256 is {of_data[:12]}..., that of --data is "
                         f"{data_hash[:12]}...); give the --data it was chosen from.")
    if not ids or len(set(ids)) < len(ids) or min(ids) < 0 or max(ids) >= records:
        raise InputError(f"--subset {path}: ids must be different whole numbers from 0 to {records - 1}, and at least one.")
    return ids
