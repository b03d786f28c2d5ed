"""What every fine-tuning chapter does before and after its own idea: load, encode, train, answer, score, report.

`ch_instruct/train.py` is the plain case; other chapters put their step in the middle.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ch_instruct.collate import collate
from ch_instruct.encoding import Encoded, Example, encode_prompt, encode_record, encode_records
from ch_instruct.prompts import chat_template, question_text
from ch_instruct.records import different_questions, load_records, save_records, split_places, without_questions
from ch_instruct.scoring import score
from ch_instruct.support import html_page
from ch_instruct.support.fine_tuning_options import FineTuning
from ch_instruct.support.held_out import warn_of_other_split
from ch_instruct.support.model_card import model_card
from ch_instruct.support.prompt_style import choose_style, end_as
from ch_instruct.support.subset import read_subset
from common.fast.answering import continue_all
from common.fast.views import recompute_blocks
from common.gpt2 import GPT2
from common.losses import Loss, evaluate, next_token_loss
from common.pretrained import find_folder, load_pretrained, load_weights, public_name
from common.sampling import GREEDY, Sampling
from common.support import distributed, files, plots, reports, runs
from common.support.checkpoints import Run
from common.support.console import is_main, say, shorten
from common.support.device import check_mps, evaluating, pick_device, pick_precision
from common.support.files import InputError
from common.support.options import default_lr
from common.tokenizer import Tokenizer
from common.training import Dataset, TrainOptions, fit

SMOKE = {"train": 48, "validation": 6, "test": 6}  # records of each part that --smoke takes
MOST_NEW_TOKENS = 256  # no answer is longer, however long the training responses are


@dataclass
class Work:
    """Everything a chapter needs to train and to test."""

    options: FineTuning
    folder: Path  # the checkpoint from which every training begins
    model: GPT2
    tokenizer: Tokenizer
    records: dict[str, list[dict]]  # by split: train, validation, test
    examples: dict[str, list[Example]]  # the same, encoded
    precision: str = "fp32"  # what --precision came to
    train_ids: list[int] = field(default_factory=list)  # places of the training records in the data, from 0
    train_rows: list[int] = field(default_factory=list)  # their numbers in the file, from 1
    longest_response: int = 0  # tokens, in the whole training part, also of records that --subset leaves out; 0: in `examples`
    facts: dict[str, Any] = field(default_factory=dict)  # for run.json: hashes, counts, and what `auto` came to
    understood: list[dict] = field(default_factory=list)  # all records of the data, for --save-data

    @property
    def lr(self) -> float:
        """The peak learning rate."""
        return self.options.lr or default_lr(self.options.lora is not None)

    @property
    def max_new_tokens(self) -> int:
        """How long an answer may get: twice the longest response in the training part, and at most MOST_NEW_TOKENS.

        A right answer may be longer than any that was trained on; cut off, it would count as wrong. Twice leaves room for it
        and still ends the texts of a model that never stops. The expected answers of the test are not looked at. A subset of
        the training part changes nothing, so that tests after it can be compared.
        """
        return min(2 * (self.longest_response or longest_response(self.examples["train"])), MOST_NEW_TOKENS)

    def dataset(self, split: str, loss_on: str | None = None, seed: int | None = None) -> Dataset:
        """A split's examples, for plain next-token training; loss_on and seed as given, or as on the command line."""
        return example_dataset(self.examples[split], self.tokenizer, loss_on or self.options.loss_on,
                               self.options.seed if seed is None else seed)

    def train_options(self, **changes: Any) -> TrainOptions:
        """The training options of the command line."""
        given = self.options
        return replace(TrainOptions(given.epochs, given.batch_size, given.accumulate, self.lr, self.precision, lora=given.lora,
                                    base=public_name(given.model)), **changes)

    def equal_steps(self, times: int = 1) -> dict[str, Any]:
        """Changes for `train`: it takes `times` the steps of --epochs over the whole training part, also where it trains on
        less, and evaluates after the steps of each epoch."""
        per_epoch = self.train_options().steps_per_epoch(len(self.examples["train"]))
        return {"max_steps": times * self.options.epochs * per_epoch, "evaluate_every": per_epoch}


def longest_response(examples: Sequence[Example]) -> int:
    """How many tokens the longest response of these has."""
    return max(end - start for example in examples for start, end in example.spans)


def example_dataset(examples: list[Example], tokenizer: Tokenizer, loss_on: str = "response", seed: int = 0) -> Dataset:
    """Examples as the training loop takes them."""
    return Dataset(examples, partial(collate, pad_id=tokenizer.eot_id, loss_on=loss_on), lambda e: len(e.ids) - 1, seed)


def check_new_file(options: FineTuning) -> None:
    """Refuse a --save-data that cannot be written, that is one of the run's own files, or that is there and not by this run."""
    file = options.save_data
    if file is None:
        return
    inside = options.out is not None and options.out.resolve() in file.resolve().parents
    if file.suffix not in (".json", ".jsonl") or inside or (files.is_there(file) and not runs.is_resuming(options)):
        raise InputError(f"--save-data {file}: give a new file that ends in .json or .jsonl, outside of --out.")
    if place := files.unwritable(file):
        raise InputError(f"--save-data {file} cannot be written in {place}; choose another place.")


def prepare(options: FineTuning, held_out: Sequence[dict] = ()) -> Work:
    """Check the options, read and encode the data, load the model. Prints a report; writes nothing.

    held_out: records of another file; training records with one of their questions are left out.
    """
    runs.check_run(options)
    check_new_file(options)
    if options.smoke:
        options = replace(options, epochs=1, batch_size=min(options.batch_size, 8))
    device = pick_device(options.device)
    distributed.start(device)
    loaded = load_records(options.data, fields=options.fields, bad_rows=options.bad_rows)
    data = loaded.records
    places, data_hash = split_places(data, options.seed), runs.data_hash(data)
    places["train"] = whole = without_questions(data, places["train"], held_out)
    if options.subset is not None:
        places["train"] = take_subset(places["train"], options.subset, data_hash, len(data))
    if options.smoke:
        places = {split: ids[:SMOKE[split]] for split, ids in places.items()}
    folder = find_folder(options.model)
    options = replace(options, format=choose_style(options.model, options.format))
    warn_of_other_split(data, options.model, options.seed, f"--data {options.data}")
    model, tokenizer = load_pretrained(folder, device, dropout=options.dropout)
    if options.lora is not None and options.lora > model.config.n_embd:
        raise InputError(f"--lora {options.lora} is more than the width of {options.model}, which is {model.config.n_embd}; "
                         "8 or 16 is usual.")
    if options.recompute:
        recompute_blocks(model)
    tokenizer.chat_template = chat_template(options.style, tokenizer.chat_template)  # saved with every checkpoint
    end_as(options.style, tokenizer)

    say(f"Data {options.data}: {len(data)} records, {options.style} prompts"
        + (f", {sum(map(len, places.values()))} of them for --smoke" if options.smoke else "")
        + (f"; read: {loaded.form}" if loaded.form else ""))
    parts = encode_splits({split: [data[i] for i in ids] for split, ids in places.items()}, tokenizer, options,
                          model.config.n_positions)
    examples = {split: part.examples for split, part in parts.items()}
    name, why = pick_precision(options.precision, device)
    precision = distributed.from_main(runs.recorded_precision(options, name))  # machines may differ
    check_mps(model, collate(examples["train"][:options.batch_size], tokenizer.eot_id, options.loss_on), next_token_loss)
    train_ids = [places["train"][i] for i in parts["train"].places]
    work = Work(options, folder, model, tokenizer, {split: part.records for split, part in parts.items()}, examples,
                precision, train_ids, [loaded.rows[i] for i in train_ids], understood=loaded.records)
    if options.subset is not None:
        others = [encode_record(data[i], tokenizer, options.style) for i in sorted({*whole} - {*train_ids})]
        work.longest_response = longest_response([*examples["train"], *others])

    supervised, tokens = (sum(e.targets(loss_on) for e in examples["train"]) for loss_on in (options.loss_on, "all"))
    work.facts = {"data_sha256": data_hash, "train_sha256": runs.data_hash(train_ids),
                  "model_sha256": runs.model_hash(model), "precision": precision,
                  "records": {split: len(part) for split, part in work.records.items()},
                  "learning_rate": work.lr, "training_tokens": tokens, "supervised_tokens": supervised,
                  "max_new_tokens": work.max_new_tokens}
    if loaded.skipped:
        work.facts["skipped_rows"] = loaded.skipped  # row -> why
    say(f"Model {options.model}: {sum(p.numel() for p in model.parameters()):,} parameters, {precision} on {device} ({why})")
    if options.lora is not None:
        say(f"LoRA of rank {options.lora}: updates of the blocks' matrices are learnt, and nothing else")
    say(f"In the loss: {supervised:,} of {tokens:,} training tokens ({supervised / tokens:.0%}, --loss-on {options.loss_on}); "
        f"learning rate {work.lr:g}. In the test an answer may have {work.max_new_tokens} tokens")
    return work


def open_run(chapter: str, work: Work, **facts: object) -> Path:
    """Make the run folder, as `runs.open_run`, with further `facts`; and write --save-data, now that nothing is refused."""
    folder, file = runs.open_run(chapter, work.options, work.facts | facts), work.options.save_data
    if file is not None and is_main() and not files.is_there(file):  # what is there when a run is resumed stays as it is
        save_records(file, work.understood)
        say(f"Records as they were understood: {file}")
    return folder


def encode_splits(records: dict[str, list[dict]], tokenizer: Tokenizer, options: FineTuning,
                  longest: int) -> dict[str, Encoded]:
    """Encode every split, as long as the model can read, and tell its lengths. Of test and validation, no more than wanted.

    Raises:
        InputError: if --max-length is more than that.
    """
    if options.max_length is not None and options.max_length > longest:
        raise InputError(f"--max-length {options.max_length} is more than {options.model} can read, which is {longest} tokens.")
    parts = {}
    limits = {"test": options.test_limit, "validation": options.validation_limit}
    for split, part in records.items():
        parts[split] = Encoded([], [], [], "")
        if split == "test" and len(different := different_questions(part)) < len(part):
            say(f"  test: {len(part) - len(different)} of {len(part):,} questions repeat an earlier one and are asked once")
            part = different
        if len(part) > limits.get(split, len(part)):
            say(f"  {split}: {limits[split]:,} of {len(part):,} records are used (--{split}-limit)")
            places = sorted(random.Random(f"limit {options.seed}").sample(range(len(part)), limits[split]))
            part = [part[i] for i in places]
        if part:
            parts[split] = encode_records(part, tokenizer, options.style, options.max_length or longest, options.over_length,
                                          split, longest)
            say(f"  {split}: {parts[split].note}")
    if (count := len(parts["test"].records)) < reports.FEW_QUESTIONS and not options.smoke:
        say(reports.few_questions(count))
    return parts


def with_records(work: Work, records: dict[str, list[dict]]) -> Work:
    """The same work with other records, by part."""
    examples = {part: [encode_record(record, work.tokenizer, work.options.style) for record in found]
                for part, found in records.items()}
    return replace(work, records=records, examples=examples, longest_response=0)


def take_subset(training: list[int], file: Path, data_hash: str, records: int) -> list[int]:
    """Those training records, as places in the data (so many `records`), that a subset file names.

    Raises:
        InputError: if the file does not fit the data, or names no training record.
    """
    wanted = set(read_subset(file, data_hash, records))
    chosen = [place for place in training if place in wanted]
    if not chosen:
        raise InputError(f"--subset {file} names no record of the training part; use the --seed it was chosen with.")
    say(f"Subset {file}: {len(chosen)} of {len(training)} training records"
        + (f" ({len(wanted) - len(chosen)} of its ids are in other parts; was it chosen with another --seed?)"
           if len(wanted) > len(chosen) else ""))
    return chosen


def answer(model: GPT2, tokenizer: Tokenizer, records: list[dict], style: str, max_new_tokens: int,
           batch_size: int | None = None, precision: str = "fp32", how: Sampling = GREEDY, seed: int = 0,
           **more: Any) -> list[dict]:
    """Answers, greedy ones by default: each record with "answer" and "stopped" (whether the model ended by itself) added.
    `more` is for `continue_all`."""
    prompts = [encode_prompt(record, tokenizer, style) for record in distributed.my_share(records)]
    with evaluating(model, precision):
        answers = distributed.put_together(continue_all(model, prompts, max_new_tokens, tokenizer.eot_id, batch_size,
                                                        how=how, seed=seed + distributed.rank(), **more))
    return [record | {"answer": tokenizer.decode(new.ids).strip(), "stopped": new.stopped}
            for record, new in zip(records, answers)]


class Arm(NamedTuple):
    """One way to train, and how the model did in the test after it."""

    result: dict  # its row in the report
    responses: list[dict]
    history: list[dict]  # of the training; empty for the untouched model


def test(work: Work, run: Run | None = None) -> Arm:
    """Put the model through the whole test part. `run` is the training that it has behind it."""
    loss = evaluate(work.model, work.dataset("test"), next_token_loss, work.options.batch_size, work.precision)
    responses = answer(work.model, work.tokenizer, work.records["test"], work.options.style, work.max_new_tokens,
                       precision=work.precision)
    result = reports.arm_result(loss, score(responses), run.seconds if run else None)
    return Arm(result, responses, run.history if run else [])


def test_base(work: Work) -> Arm:
    """The same for the untouched model: its weights are read again, so its test, often the longest, can come last."""
    load_weights(work.model, work.folder)
    return test(work)


def train(work: Work, data: Dataset, loss: Loss, folder: Path, seed: int, after_step: Callable[[dict], None] | None = None,
          **changes: Any) -> Run:
    """Train on this data, from the pretrained model again: every arm of an experiment starts alike.

    Args:
        seed: of what the model itself draws (dropout); the order of the data has its own.
        changes: training options that differ from the command line's.
    """
    load_weights(work.model, work.folder)  # a resumed run then goes on with the weights that it has saved
    torch.manual_seed(seed)
    return fit(work.model, work.tokenizer, data, work.dataset("validation"), loss, work.train_options(**changes), folder,
               work.options.resume, after_step)


def finish(work: Work, folder: Path, arms: dict[str, Arm], curves: dict[str, list[dict]], tuned: str, method: str,
           title: str = "", by_family: list[str] | None = None, **facts: Any) -> None:
    """The end of every experiment: responses.json, the same as a page to read, the loss curves, the tables, report.json, and
    the model card.

    Args:
        arms: by name; those with " on " in it were tested on other questions, and their responses are left out.
        tuned, method: the arm whose checkpoint is in the folder, and how it was trained, in some words.
        curves: name -> history, at most three; `title` stands above them.
        by_family: whose families are printed (None: everybody's).
        facts: what else belongs into the report.
    """
    if not is_main():
        return
    responses = merge_responses({name: arm.responses for name, arm in arms.items() if " on " not in name})
    files.write_json(folder / "responses.json", responses)
    files.write_text(folder / "answers.html", html_page.make_page(responses, str(folder)))
    plots.save_picture(folder / "losses.png", lambda ax: plots.draw_losses(ax, curves, title))
    show_answers(responses)
    given, results = work.options, {name: arm.result for name, arm in arms.items()}
    if given.lora is not None:
        method += f", as LoRA of rank {given.lora}"
    files.write_text(folder / "README.md", model_card(
        given.model, given.data, work.tokenizer.chat_template or "", method, given, work.facts,
        {name: results[name] for name in ("base", tuned)}, len(responses), arms[tuned].history))
    tests = {name: {"questions": len(arm.responses), "sha256": runs.data_hash(
        [[question_text(r), r["output"]] for r in arm.responses])} for name, arm in arms.items()}
    limits = {"test_limit": given.test_limit, "validation_limit": given.validation_limit}
    counts = {name: work.facts[name] for name in ("records", "skipped_rows") if name in work.facts}
    reports.finish_run(folder, counts | limits | facts | {"tests": tests, "arms": results}, by_family)


def merge_responses(by_arm: dict[str, list[dict]]) -> list[dict]:
    """One entry per test record: the record, and each arm's answer beside the expected one."""
    merged = []
    for together in zip(*by_arm.values()):
        record = {key: value for key, value in together[0].items() if key not in ("answer", "stopped")}
        record["answers"] = {arm: {"answer": r["answer"], "stopped": r["stopped"]} for arm, r in zip(by_arm, together)}
        merged.append(record)
    return merged


def show_answers(responses: list[dict]) -> None:
    """Print the first few test records with every arm's answer, for a look before trusting any score."""
    for response in responses[:4]:
        say(f"\n  {shorten(question_text(response, ' | '), 180)}")
        width = max(len("expected"), *map(len, response["answers"]))
        say(f"    {'expected'.ljust(width)}  {shorten(response['output'])}")
        for arm, given in response["answers"].items():
            say(f"    {arm.ljust(width)}  {shorten(given['answer'])}{'' if given['stopped'] else ' [did not stop]'}")
