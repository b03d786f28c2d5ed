"""Public data sets: the known ones, by the names that --data takes, and any other by its hub id."""

import re
from glob import escape
from pathlib import Path
from typing import NamedTuple

from ch_instruct.support.data_files import READABLE, ending
from common.support.console import say
from common.support.files import InputError


class PublicSet(NamedTuple):
    """One data set. `fields` says which of its keys holds what: our key -> theirs.

    "messages" stands for a list of plain texts, the user's and the assistant's in turn.
    """

    repo: str
    file: str  # JSON or JSON lines; sets that the hub has in other forms only are not read
    revision: str
    licence: str
    fields: dict[str, str]

    def fetch(self, name: str) -> Path:
        """Print source and licence; give the file in the hub client's cache, downloaded at first use."""
        from common.support.hub import Pin, download  # here, as the hub's client takes long to load

        say(f"{name}: {self.file} of {self.repo} (revision {self.revision[:7]}), licence {self.licence}")
        folder = download(name, Pin(self.repo, self.revision), [self.file], kind="dataset")
        path = folder / self.file
        if not path.is_file():
            raise InputError(f"{self.repo} has no {self.file} in revision {self.revision}; copy a file of this set here and "
                             "use --data FILE.")
        return path

    def convert(self, row: dict) -> dict:
        """A row of theirs as a record of ours. What is missing becomes an empty text, so that the row is left out later."""
        record = {ours: row.get(theirs) or "" for ours, theirs in self.fields.items()}
        if "messages" in record:
            texts = record["messages"][:len(record["messages"]) // 2 * 2] or ["", ""]  # a last question without answer goes
            record["messages"] = [{"role": "assistant" if number % 2 else "user", "content": text or ""}
                                  for number, text in enumerate(texts)]
        return record


ALPACA_FIELDS = {"instruction": "instruction", "input": "input", "output": "output"}

# Repositories, files, fields, revisions and licences are those of the hub's pages and of public code that pins them.
PUBLIC_SETS = {
    # Stanford's own repository (tatsu-lab/alpaca) holds Parquet only. This copy in JSON lacks some 300 erroneous records;
    # the licence is that of the original data.
    "alpaca": PublicSet("llamafactory/alpaca_en", "alpaca_data_en_52k.json", "43dd78a8d4c94b15bf35de31b7051d51165e991e",
                        "CC BY-NC 4.0", ALPACA_FIELDS),
    "alpaca-cleaned": PublicSet("yahma/alpaca-cleaned", "alpaca_data_cleaned.json", "12567cabf869d7c92e573c7c783905fc160e9639",
                                "CC BY 4.0", ALPACA_FIELDS),
    "dolly": PublicSet("databricks/databricks-dolly-15k", "databricks-dolly-15k.jsonl",
                       "bdd27f4d94b9c1f951818a7da7fd7aeea5dbff1a", "CC BY-SA 3.0",
                       {"instruction": "instruction", "input": "context", "output": "response", "family": "category"}),
    # MedAlpaca's pages say "cc" and not which one.
    "medalpaca-flashcards": PublicSet("medalpaca/medical_meadow_medical_flashcards",
                                      "medical_meadow_wikidoc_medical_flashcards.json",
                                      "7597b32036d67c731cb91bae4f49717fcfe5d5f0", "Creative Commons", ALPACA_FIELDS),
    "medalpaca-wikidoc": PublicSet("medalpaca/medical_meadow_wikidoc", "medical_meadow_wikidoc.json",
                                   "976bce16fd66f55e6828422b71249a7405a11aa4", "Creative Commons", ALPACA_FIELDS),
    # The first of ten files, 964 MB; the whole has 1.5 million conversations.
    "ultrachat": PublicSet("stingning/ultrachat", "train_0.jsonl", "f220fe796ce3ed62fbe1681b45ce6cbc9c6cabe0", "MIT",
                           {"messages": "data"}),
}

ABOUT = ("config.json", "dataset_info.json", "dataset_infos.json", "state.json")  # files that tell of the data


def is_hub_id(data: str) -> bool:
    """Whether --data names a data set of the hub, OWNER/NAME, and no file."""
    return bool(re.fullmatch(r"\w[\w.-]*/[\w.-]+", data)) and not ending(data) and not Path(data).exists()


def choose_file(name: str, files: list[str]) -> str:
    """The one file of a data set that can be meant: the only one that `records` reads, or the only one of a train split.

    Raises:
        InputError: if there are several, or none.
    """
    readable = sorted(file for file in files if ending(file) and Path(file).name not in ABOUT)
    training = [file for file in readable if re.search(r"(?<![a-z])train(?![a-z])", file.lower())]
    for one in (readable, training):
        if len(one) == 1:
            return one[0]
    several = training or readable
    if not several:
        raise InputError(f"--data {name}: this data set has no {', '.join(READABLE)} file (it has "
                         f"{', '.join(sorted(files)[:5]) or 'none'}); turn it into one and use --data FILE.")
    raise InputError(f"--data {name}: {len(several)} files could be meant ({', '.join(several[:5])}"
                     f"{', ...' if len(several) > 5 else ''}); fetch one by hf download {name} FILE --repo-type dataset "
                     "--local-dir . and use --data FILE.")


def fetch_from_hub(name: str) -> Path:
    """Fetch the data file of any data set of the hub in its newest revision, and say what was fetched."""
    from common.support.hub import Pin, dataset_files, download

    file = choose_file(name, dataset_files(name))
    folder = download(name, Pin(name, "main"), [escape(file)], kind="dataset")
    say(f"{name}: {file} (revision {folder.name[:7]}); see its page for the licence")
    return folder / file
