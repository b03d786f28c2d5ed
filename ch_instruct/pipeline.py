"""What every fine-tuning chapter does before and after its own idea: load, encode, answer, score.

`ch_instruct/train.py` is the plain case; other chapters put their step in the middle.
"""

from argparse import Namespace
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ch_instruct.collate import Example, collate, encode_prompt
from ch_instruct.prompts import chat_template
from ch_instruct.records import encode_records, load_records, split_records
from ch_instruct.scoring import score
from ch_instruct.subset import read_subset
from common import distributed, options, runs
from common.console import say
from common.device import check_mps, pick_device, pick_precision, to_device
from common.files import InputError
from common.generation import continue_all
from common.gpt2 import GPT2
from common.losses import IGNORE_INDEX, next_token_loss
from common.pretrained import load_pretrained
from common.tokenizer import Tokenizer
from common.training import Dataset, TrainOptions, evaluate

MOST_NEW_TOKENS = 256  # no answer is longer, however long the training responses are


@dataclass
class Work:
    """Everything a chapter needs to train and to test."""

    args: Namespace
    model: GPT2
    tokenizer: Tokenizer
    records: dict[str, list[dict]]  # by split: train, validation, test
    examples: dict[str, list[Example]]  # the same, encoded
    train_ids: list[int]  # places of the training records in the data, from 0
    facts: dict[str, object]  # for run.json: hashes, counts, and what `auto` came to

    @property
    def precision(self) -> str:
        """fp32 or bf16."""
        return self.facts["precision"]

    def dataset(self, split: str, **changes: object) -> Dataset:
        """A split's examples, for plain next-token training; loss_on and seed as on the command line, or as given."""
        return example_dataset(self.examples[split], self.tokenizer, **{"loss_on": self.args.loss_on,
                                                                        "seed": self.args.seed} | changes)

    def train_options(self, **changes: object) -> TrainOptions:
        """The training options of the command line."""
        args = self.args
        return TrainOptions(**{"epochs": args.epochs, "batch_size": args.batch_size, "accumulate": args.accumulate,
                               "lr": self.facts["learning_rate"], "precision": self.precision} | changes)

    @property
    def max_new_tokens(self) -> int:
        """How long an answer may get: as long as the longest response in the training part."""
        longest = max(end - start for example in self.examples["train"] for start, end in example.spans)
        return min(longest, MOST_NEW_TOKENS)


def example_dataset(examples: list[Example], tokenizer: Tokenizer, loss_on: str = "response", seed: int = 0) -> Dataset:
    """Examples as the training loop takes them."""
    return Dataset(examples, partial(collate, pad_id=tokenizer.eot_id, loss_on=loss_on), lambda e: len(e.ids) - 1, seed)


def prepare(args: Namespace) -> Work:
    """Check the options, read and encode the data, load the model. Prints a report; writes nothing."""
    if args.smoke:
        args.epochs, args.batch_size = 1, min(args.batch_size, 8)
    runs.check_run(args)
    device = pick_device(args.device)
    loaded = load_records(args.data)
    if args.smoke:
        loaded.records = smoke_records(loaded.records)
    records = split_records(loaded.records, args.seed)
    place = {id(record): i for i, record in enumerate(loaded.records)}
    data_hash = runs.data_hash(loaded.records)
    if args.subset is not None:
        records["train"] = take_subset(records["train"], place, args.subset, data_hash)
    model, tokenizer = load_pretrained(args.model)
    tokenizer.chat_template = chat_template(args.format)  # saved with every checkpoint
    longest = model.config.n_positions
    if args.max_length is not None and args.max_length > longest:
        raise InputError(f"--max-length {args.max_length} is more than {args.model} can read, which is {longest} tokens.")

    say(f"Data {args.data}: {len(loaded.records)} records, {args.format} prompts")
    for note in loaded.notes:
        say(f"  {note}")
    records, examples = encode_splits(records, tokenizer, args, longest)
    lr = args.lr or options.default_lr(model.config.n_embd)
    model.to(device)
    first_batch = collate(examples["train"][:args.batch_size], tokenizer.eot_id, args.loss_on)
    check_mps(model, first_batch, next_token_loss)
    precision = pick_precision(runs.recorded_precision(args), model, to_device(first_batch, device), next_token_loss)
    _, targets = collate(examples["train"], tokenizer.eot_id, args.loss_on)
    supervised, tokens = int((targets != IGNORE_INDEX).sum()), sum(len(e.ids) - 1 for e in examples["train"])
    say(f"Model {args.model}: {sum(p.numel() for p in model.parameters()):,} parameters, {precision} on {device}")
    say(f"In the loss: {supervised:,} of {tokens:,} training tokens ({supervised / tokens:.0%}, --loss-on {args.loss_on}); "
        f"learning rate {lr:g}")
    facts = {"data_sha256": data_hash, "model_sha256": runs.model_hash(model), "precision": precision,
             "records": {split: len(part) for split, part in records.items()},
             "learning_rate": lr, "training_tokens": tokens, "supervised_tokens": supervised}
    return Work(args, model, tokenizer, records, examples, [place[id(record)] for record in records["train"]], facts)


def encode_splits(records: dict[str, list[dict]], tokenizer: Tokenizer, args: Namespace,
                  longest: int) -> tuple[dict[str, list[dict]], dict[str, list[Example]]]:
    """Encode every split and tell its lengths. Returns the records that are left, and their examples, by split."""
    kept: dict[str, list[dict]] = {split: [] for split in records}
    examples: dict[str, list[Example]] = {split: [] for split in records}
    for split, part in records.items():
        if part:
            kept[split], examples[split], note = encode_records(part, tokenizer, args.format, args.max_length or longest,
                                                                args.over_length)
            say(f"  {split}: {note}")
    return kept, examples


def take_subset(training: list[dict], place: dict[int, int], file: Path, data_hash: str) -> list[dict]:
    """Those training records whose places in the data a subset file names.

    Args:
        place: id() of each record of the data -> its place.

    Raises:
        InputError: if the file does not fit the data, or names no training record.
    """
    wanted = set(read_subset(file, data_hash))
    chosen = [record for record in training if place[id(record)] in wanted]
    if not chosen:
        raise InputError(f"--subset {file} names no record of the training part; use the --seed it was chosen with.")
    say(f"Subset {file}: {len(chosen)} of {len(training)} training records"
        + (f" ({len(wanted) - len(chosen)} of its ids are in other parts; was it chosen with another --seed?)"
           if len(wanted) > len(chosen) else ""))
    return chosen


def smoke_records(records: list[dict]) -> list[dict]:
    """A few records of each split, or of the file if it names none."""
    if "split" not in records[0]:
        return records[:60]
    return [r for split, n in (("train", 48), ("validation", 6), ("test", 6))
            for r in [r for r in records if r["split"] == split][:n]]


def answer(model: GPT2, tokenizer: Tokenizer, records: list[dict], style: str, max_new_tokens: int,
           batch_size: int = 32) -> list[dict]:
    """Greedy answers: each record with "answer" and "stopped" (whether the model ended by itself) added."""
    was_training = model.training
    model.eval()
    prompts = [encode_prompt(record, tokenizer, style) for record in distributed.my_share(records)]
    answers = distributed.put_together(continue_all(model, prompts, max_new_tokens, tokenizer.eot_id, batch_size))
    model.train(was_training)
    return [record | {"answer": tokenizer.decode(new.ids).strip(), "stopped": new.stopped}
            for record, new in zip(records, answers)]


def test(work: Work, seconds: float | None) -> tuple[dict, list[dict]]:
    """Put the model through the whole test part.

    Args:
        seconds: how long its training took, for the report.

    Returns:
        The arm of the report, and the responses.
    """
    loss = evaluate(work.model, work.dataset("test"), next_token_loss, work.args.batch_size, work.precision)
    responses = answer(work.model, work.tokenizer, work.records["test"], work.args.format, work.max_new_tokens)
    return runs.arm_result(loss, score(responses), seconds), responses


def merge_responses(by_arm: dict[str, list[dict]]) -> list[dict]:
    """One entry per test record: the record, and each arm's answer beside the expected one."""
    merged = []
    for together in zip(*by_arm.values()):
        record = {key: value for key, value in together[0].items() if key not in ("answer", "stopped")}
        record["answers"] = {arm: {"answer": r["answer"], "stopped": r["stopped"]} for arm, r in zip(by_arm, together)}
        merged.append(record)
    return merged


def show_answers(responses: list[dict], count: int = 4) -> None:
    """Print the first few test records with every arm's answer, for a look before trusting any score."""
    for response in responses[:count]:
        asked = " | ".join(filter(None, (response["instruction"], response.get("input", ""))))
        say(f"\n  {shorten(asked, 180)}")
        width = max(len("expected"), *map(len, response["answers"]))
        say(f"    {'expected'.ljust(width)}  {shorten(response['output'])}")
        for arm, given in response["answers"].items():
            say(f"    {arm.ljust(width)}  {shorten(given['answer'])}{'' if given['stopped'] else ' [did not stop]'}")


def shorten(text: str, length: int = 90) -> str:
    """The text on one line, cut to `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[:length - 3] + "..."
