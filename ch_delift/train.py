"""DELIFT: choose the data that teaches most, train on it, and compare with other choices of the same size.

    python ch_delift/train.py                                             # the classroom, minutes on a laptop
    python ch_delift/train.py --model gpt2 --data my.json --fraction 0.3  # your own Alpaca-format file
    python ch_delift/train.py --stage task --target mine.json             # what helps with the records of mine.json?
    python ch_delift/train.py --stage continual --known old.json --model runs/ch_instruct/001
    python ch_delift/train.py --similarity hidden --data my.json          # hidden states instead of utilities: 100 times faster
    python ch_delift/train.py --seeds 5                                   # with 95 % intervals

Four steps: (1) measure the utility of training examples for each other (or for the target set) with the untouched model;
(2) choose a subset that covers the data (instruction), the target set (task), or what known data does not cover (continual);
(3) train on the subset, on other subsets of the same size, and on everything, with as many optimizer steps, and once more
with as many epochs; (4) give all of them the same test. Every fine-tuning command takes the choice: --data D --subset
subset.json.

The method: Agarwal et al., "DELIFT", arXiv 2411.04425.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ch_delift.support.delift_options import OTHER, Delift, Pairs
from ch_instruct.support.fine_tuning_options import parse
from common.support import files, options
from common.support.console import is_main, say
from common.support.files import InputError

if __name__ == "__main__":
    options.run_command(parse, Delift, __doc__)  # --help and wrong options end here: the imports below take seconds

from ch_delift import plots
from ch_delift.experiment import FRACTIONS, Experiment, choose_all, curve, differences, read_aloud, run_arms
from ch_delift.selection import Similarities, budget_of, check_matrices, check_pairs, check_utility, needed_matrices
from ch_instruct import pipeline
from ch_instruct.pipeline import Work
from ch_instruct.records import load_records, split_records
from ch_instruct.support import cost
from ch_instruct.support.held_out import warn_of_other_split
from ch_instruct.support.subset import write_subset
from common.losses import next_token_loss
from common.pretrained import load_pretrained
from common.support import reports, runs


def load_other(given: Delift, name: str) -> tuple[list[dict], dict[str, list[dict]]]:
    """Read --target or --known: its records, and the same by split."""
    path = str(getattr(given, name))
    records = load_records(path, f"--{name}", given.fields, bad_rows=given.bad_rows).records
    say(f"{name.capitalize()} records, {path}: {len(records)} records")
    warn_of_other_split(records, given.model, given.seed, f"--{name} {path}")
    parts = split_records(records, given.seed)
    return records, {split: part[:pipeline.SMOKE[split]] for split, part in parts.items()} if given.smoke else parts


def with_other(work: Work, name: str, records: list[dict], split: dict[str, list[dict]]) -> Work:
    """The same work with these records instead of the data."""
    say(f"{name.capitalize()} records, encoded:")
    parts = pipeline.encode_splits(split, work.tokenizer, work.options, work.model.config.n_positions)
    work.facts[f"{name}_sha256"] = runs.data_hash(records)
    return replace(work, records={split: part.records for split, part in parts.items()},
                   examples={split: part.examples for split, part in parts.items()})


def open_similarities(work: Work, other: Work | None, given: Delift) -> tuple[Path, Similarities]:
    """Check that everything fits together, make the run folder, and get ready to compare examples."""
    n, pairs = len(work.train_ids), Pairs.parse(given.pairs)
    # All that can be refused is refused before anything is written.
    if n < 2:
        raise InputError("One training record leaves nothing to choose from; DELIFT needs at least 2.")
    if given.curve and n * min(FRACTIONS) < 1:
        raise InputError(f"--curve trains on {min(FRACTIONS):.0%} of the data too, and of {n} training records that is less "
                         "than one; leave it out.")
    groups = {"data": work.examples["train"]}
    if other is not None:
        groups[str(OTHER[given.stage])] = other.examples["train"]
    matrices = needed_matrices(given.stage, given.flmi, given.rows)
    if pairs.kind == "all":
        check_pairs(sum(len(groups[rows]) * len(groups[columns]) for rows, columns in matrices))
    model, tokenizer = work.model, work.tokenizer  # untouched: utility asks what helps before anything is learnt
    if given.kernel_model:
        model, tokenizer = load_pretrained(given.kernel_model, work.model.device)
        longest = max(len(example.ids) for examples in groups.values() for example in examples)
        if not tokenizer.same_as(work.tokenizer) or model.config.n_positions < longest:
            raise InputError(f"--kernel-model {given.kernel_model} cannot read what {given.model} is trained on: it must have "
                             f"the same vocabulary and read {longest} tokens; use a model fine-tuned from the same one.")
    # What the matrices depend on, kept beside them: --utility takes none that was measured otherwise.
    facts: dict[str, Any] = {"model_sha256": runs.model_hash(model), "format": work.options.style, "pairs": given.pairs}
    for group, examples in groups.items():  # the examples as they are trained on, cut ones as cut
        facts[f"{group}_sha256"] = runs.data_hash([[example.ids, example.spans] for example in examples])
    if given.utility is not None:
        check_utility(given.utility, facts, matrices)
        check_matrices(given.utility, {group: len(examples) for group, examples in groups.items()}, pairs)
    folder = pipeline.open_run("ch_delift", work, kernel_model_sha256=facts["model_sha256"])
    utilities = (given.utility or folder) / "utility"
    if given.utility is None and given.arm == "delift" and is_main():
        files.write_json(utilities / "facts.json", facts)
    return folder, Similarities(model, tokenizer, groups, utilities, work.precision, pairs, given.kernel)


def tell_cost(experiment: Experiment, similarities: Similarities, given: Delift, budget: int) -> None:
    """Say what the run will cost. (What the arms gradient, high-loss and low-loss read in order to choose is left out.)"""
    work, arms = experiment.work, len(given.others) + 1  # and our own
    n, small = len(work.train_ids), arms - ("full" in given.others) if budget < len(work.train_ids) else 0
    drawn = 4 * len(FRACTIONS) if given.curve else 0  # further trainings, of one seed
    seen = given.seeds * (arms * n + small * budget) + drawn * n  # examples in an epoch of every training
    training = cost.Training(work.dataset("train"), next_token_loss, work.train_options(), given.epochs * seen,
                             given.seeds * (arms + small) + drawn)
    matrices = [] if given.utility or given.arm == "se" else needed_matrices(given.stage, given.flmi, given.rows)
    cost.tell(experiment.goal, [training], 1 + len(matrices), [experiment.goal, *experiment.further.values()],
              lambda: {"utilities": sum(similarities.estimate(*pair) for pair in matrices)})  # hidden states, each d(i)


def main() -> None:
    given = parse(Delift, __doc__)
    name = OTHER[given.stage]
    others, split = load_other(given, name) if name else ([], {})
    work = pipeline.prepare(given, split.get("validation", []) + split.get("test", []))
    n = len(work.train_ids)
    budget = budget_of(given.fraction, n)
    other = with_other(work, name, others, split) if name else None
    folder, similarities = open_similarities(work, other, given)
    goal = other if other and name == "target" else work
    experiment = Experiment(work, goal, {"known": other} if other and name == "known" else {})
    tell_cost(experiment, similarities, given, budget)

    say(f"\n1. Similarity by {given.similarity}, {given.stage} stage")
    chosen = choose_all(work, other, similarities, given, budget)
    say(f"\n2. Chosen: {budget} of {n} training records")
    places, gains = chosen[given.arm]
    for group in similarities.groups:
        similarities.hidden(group)  # for the map; all processes share this work
    if is_main():
        write_subset(folder / "subset.json", [work.train_ids[i] for i in places[:budget]], gains[:budget], {
            "data_sha256": work.facts["data_sha256"], "model_sha256": runs.model_hash(similarities.model), "stage": given.stage,
            "fraction": given.fraction, "options": runs.plain_options(given)})
        rows = None if given.arm == "se" else needed_matrices(given.stage, given.flmi)[0][0]
        families = {group: [record.get("family", "") for record in part.records["train"]]
                    for group, part in (("data", work), (name, other)) if group and part}
        plots.save_choice(folder, similarities, places, gains, budget, rows, name, families)
        read_aloud(work.records["train"], places, gains)

    say("\n3. Training")
    base = experiment.test("base")
    seeds = list(range(given.seed, given.seed + given.seeds))
    repeats = [run_arms(experiment, chosen, given, base, budget, folder if given.seeds == 1 else folder / f"seed-{seed}", seed)
               for seed in seeds]
    if given.seeds > 1 and is_main():
        reports.finish_comparison(folder, seeds, repeats, differences(given.arm, list(repeats[0]), given.others))
    if given.curve:
        curve(experiment, given.arm, places, repeats[0]["full"], folder, given.seed)


if __name__ == "__main__":
    options.run_command(main)
