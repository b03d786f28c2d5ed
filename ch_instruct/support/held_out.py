"""Questions that a model was trained on tell nothing about it: which of a file's records were held out?"""

from collections.abc import Sequence
from pathlib import Path

from ch_instruct.records import Loaded, split_places
from common.pretrained import find_folder
from common.support import runs
from common.support.console import say
from common.support.files import NATURAL, InputError, check, reading
from common.support.options import read_run


def split_seeds(records: list[dict], models: Sequence[str]) -> dict[str, int]:
    """The models that were trained on a part of these very records, and the seed by which their run divided them."""
    of_these, found = runs.data_hash([record for record in records if record["output"].strip()]), {}
    for model in models:
        folder, run = _run_of(find_folder(model))
        if run["facts"].get("data_sha256") == of_these:
            with reading(folder / "run.json", "no run.json of a run", "put it back as it was"):
                check(run["options"], {"seed": NATURAL})
            found[model] = run["options"]["seed"]
    return found


def _run_of(folder: Path) -> tuple[Path, dict]:
    """The run that made a model. Its folder is the model's, or lies above it (ntp, seed-0, adapter)."""
    for place in (folder, *folder.resolve().parents[:2]):
        if (place / "run.json").exists():
            try:
                return place, read_run(place)
            except InputError:
                if place == folder:
                    raise  # above the model, it may be somebody else's
    return folder, {"facts": {}}


def warn_of_other_split(records: list[dict], model: str, seed: int, what: str) -> None:
    """Say so if the model was trained on a part of these very records and they are divided in another way now."""
    theirs = seed if all("split" in record for record in records) else split_seeds(records, [model]).get(model, seed)
    if theirs != seed:
        say(f"Warning: {model} learnt from {what} divided by --seed {theirs}; --seed {seed} divides it in another way, so it "
            f"knows most of the test questions. Use --seed {theirs}.")


def choose_part(loaded: Loaded, models: Sequence[str], part: str) -> Loaded:
    """What to ask these models: all, or with part = "test" the records that none of them was trained on or chosen by.

    Raises:
        InputError: if it is not known which those are.
    """
    records, seeds = loaded.records, split_seeds(loaded.records, models)
    if part == "all":
        if seeds:
            say(f"Warning: {' and '.join(seeds)} learnt from most of these records; --part test asks only those held out.")
        return loaded
    answered = [i for i, record in enumerate(records) if record["output"].strip()]
    if all("split" in record for record in records):
        held_out = [i for i in answered if records[i]["split"] == "test"]
    elif seeds:
        tested = [set(split_places([records[i] for i in answered], seed)["test"]) for seed in set(seeds.values())]
        held_out = [answered[i] for i in sorted(set.intersection(*tested))]
    else:
        raise InputError(f"--part test: {' and '.join(models)} is no run folder that was trained on this file, and its records "
                         "name no split; leave --part out, or give the --data of that run.")
    if unknown := [model for model in models if seeds and model not in seeds]:
        say(f"Warning: nothing shows which of these records {' and '.join(unknown)} learnt from.")
    if not held_out:
        raise InputError("--part test: no record was held out from all of these models; ask one of them alone.")
    say(f"Asked are the {len(held_out)} of {len(records)} records that were held out.")
    return Loaded([records[i] for i in held_out], [loaded.rows[i] for i in held_out])
