"""Known public data sets, by the names that --data takes: where each is on the hub, and how its rows become ours."""

from pathlib import Path
from typing import NamedTuple

from common.console import say
from common.files import InputError
from common.hub import Pin, download


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
