"""Subset files: which records of a data file to train on. `ch_delift` writes them; every fine-tuning command reads them."""

import json
from pathlib import Path

from common.files import InputError, write_json


def write_subset(path: Path, ids: list[int], gains: list[float] | None, facts: dict[str, object]) -> None:
    """Write a subset.

    Args:
        ids: places of the chosen records in the data (from 0, in the order in which they were chosen), whatever part they
            belong to.
        gains: what each added to the objective, if there was one.
        facts: data_sha256, and how the subset came about.
    """
    write_json(path, {"ids": ids, "gains": gains} | facts)


def read_subset(path: Path, data_hash: str) -> list[int]:
    """The ids in a subset file.

    Raises:
        InputError: if it is no subset file, or one of other data (another `data_sha256`).
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        ids, of_data = content["ids"], content["data_sha256"]
        whole = all(isinstance(i, int) and i >= 0 for i in ids) and len(set(ids)) == len(ids) > 0
    except FileNotFoundError as error:
        raise InputError(f"--subset {path}: there is no such file.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"--subset {path} is no subset file with ids and data_sha256, as ch_delift/train.py writes "
                         "it.") from error
    if not whole:
        raise InputError(f"--subset {path}: ids must be different whole numbers from 0 up, and at least one.")
    if of_data != data_hash:
        raise InputError(f"--subset {path} was chosen from other data (its data_sha256 is {of_data[:12]}..., that of --data is "
                         f"{data_hash[:12]}...); give the --data it was chosen from.")
    return ids
