"""DELIFT: choose the data that teaches most, train on it, and compare with other choices of the same size.

    python ch_delift/train.py                                             # the classroom, minutes on a laptop
    python ch_delift/train.py --model gpt2 --data my.json --fraction 0.3  # your own Alpaca-format file
    python ch_delift/train.py --stage task --target mine.json             # what helps with the records of mine.json?
    python ch_delift/train.py --stage continual --known old.json --model runs/ch_instruct/001
    python ch_delift/train.py --seeds 5                                   # with 95 % intervals

What happens: (1) the utility of training examples for each other (or for the target set) is measured with the untouched
model; (2) a subset is chosen that covers the data (instruction), the target set (task), or what known data does not cover
(continual); (3) the model is trained on the subset, on other subsets of the same size, and on everything, with as many
optimizer steps, and once more with as many epochs; (4) all take the same test. subset.json can be given to every
fine-tuning command: --data D --subset subset.json.

The method: Agarwal et al., "DELIFT", arXiv 2411.04425.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ch_delift import plots as delift_plots
from ch_delift.baselines import gradient_scores, gradient_sketches, highest, random_subset
from ch_delift.selection import Comparison, Pairs, budget_of, check_memory, check_utility, objective
from ch_instruct import answers, pipeline
from ch_instruct.perplexity import response_perplexities
from ch_instruct.records import load_records, split_records
from ch_instruct.subset import write_subset
from common import distributed, files, options, plots, runs
from common.console import say
from common.files import InputError
from common.losses import next_token_loss
from common.pretrained import load_pretrained
from common.training import Run, fit

MOST_CELLS = 300  # rows and columns of the heat map; more than these cannot be told apart
ARMS = ("random", "se", "gradient", "high-loss", "low-loss", "full")
FRACTIONS = (0.1, 0.2, 0.3, 0.5)  # of --curve
OTHER = {"instruction": None, "task": "target", "continual": "known"}  # the second group of records each stage needs


def pairs_option(text: str) -> str:
    """all, columns:M or neighbours:K."""
    try:
        Pairs.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not allowed, it must be all, columns:M or neighbours:K, as in neighbours:64") from error
    return text


def fraction_option(text: str) -> float:
    """A share above 0, at most 1."""
    value = options.share(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed, it must be a share above 0 and at most 1")
    return value


def parse() -> argparse.Namespace:
    parser = options.Parser(__doc__)
    parser.add_argument("--stage", default="instruction", choices=list(OTHER),
                        help="instruction: cover the data (FL); task: cover --target (FLMI); continual: cover what "
                             "--known does not (FLCG) (default: %(default)s)")
    parser.add_argument("--fraction", type=fraction_option, default=0.3, metavar="X",
                        help="share of the training records to choose (default: %(default)s)")
    parser.add_argument("--target", metavar="FILE", help="records of the task to become good at; for --stage task")
    parser.add_argument("--known", metavar="FILE", help="records that the model has learnt already; for --stage continual")
    parser.add_argument("--compare", nargs="*", default=["random", "se", "full"], choices=ARMS, metavar="ARM",
                        help="what else to train on: random, random subsets; se, the same objective on hidden-state "
                             "similarity; gradient, the nearest gradients (after LESS); high-loss or low-loss, the highest or "
                             "lowest perplexity; full, all data (default: random se full)")
    parser.add_argument("--pairs", type=pairs_option, default="neighbours:32", metavar="P",
                        help="whose utility is measured: all pairs; columns:M, M random candidates; neighbours:K, for each "
                             "target the K candidates with the nearest hidden states (default: %(default)s)")
    parser.add_argument("--kernel", default="positive", choices=["positive", "minmax"],
                        help="similarity from utility: max(U, 0), or min-max over the matrix (default: %(default)s)")
    parser.add_argument("--flmi", default="query", choices=["query", "saturating"],
                        help="which of two functions called FLMI, for --stage task (default: %(default)s)")
    parser.add_argument("--kernel-model", metavar="M",
                        help="measure utilities and hidden states with this model instead of --model, say a fine-tuned one")
    parser.add_argument("--utility", type=Path, metavar="FOLDER",
                        help="take the utilities that an earlier run measured; FOLDER is that run's folder")
    parser.add_argument("--curve", action="store_true",
                        help="also train on 10, 20, 30 and 50 %% and draw score against fraction")
    parser.add_argument("--seeds", type=options.whole, default=1, metavar="N",
                        help="repeat all training with N seeds and print means and 95 %% intervals (default: %(default)s)")
    options.add_model_option(parser)
    options.add_instruction_options(parser)
    options.add_training_options(parser, epochs=3, batch_size=16)
    options.add_device_options(parser)
    options.add_run_options(parser, "ch_delift")
    args = parser.parse_args()
    for name in ("target", "known"):
        if (getattr(args, name) is not None) != (OTHER[args.stage] == name):
            needed = "needs" if OTHER[args.stage] == name else "does not use"
            parser.error(f"--stage {args.stage} {needed} --{name}")
    if args.curve and "full" not in args.compare:
        parser.error("--curve needs full among --compare, to know where the curve ends")
    return args


def load_other(work: pipeline.Work, name: str) -> pipeline.Work:
    """Read --target or --known; return the same work with these records instead of the data."""
    path = getattr(work.args, name)
    try:
        loaded = load_records(path)
        records = split_records(loaded.records, work.args.seed)
    except InputError as error:
        raise InputError(str(error).replace("--data", f"--{name}")) from error
    say(f"{name.capitalize()} records, {path}: {len(loaded.records)} records")
    records, examples = pipeline.encode_splits(records, work.tokenizer, work.args, work.model.config.n_positions)
    work.facts[f"{name}_sha256"] = runs.data_hash(loaded.records)
    return replace(work, records=records, examples=examples)


def score_choice(name: str, work: pipeline.Work, other: pipeline.Work | None) -> np.ndarray:
    """The scores by which the arms "gradient", "high-loss" and "low-loss" choose, float [training examples]."""
    args = work.args
    if name == "gradient":  # what is to be learnt: the task, or else what the data's validation part asks
        goal = other.examples["train"] if args.stage == "task" else work.examples["validation"] or work.examples["train"]
        sketches = (gradient_sketches(work.model, examples, work.precision) for examples in (work.examples["train"], goal))
        return gradient_scores(*sketches)
    perplexities = response_perplexities(work.model, work.dataset("train", loss_on="response"), 2 * args.batch_size,
                                         work.precision).numpy()
    return perplexities if name == "high-loss" else -perplexities


def choose_all(work: pipeline.Work, other: pipeline.Work | None, comparison: Comparison, budget: int,
               most: int) -> dict[str, tuple[list[int], list[float] | None]]:
    """The subset of every arm but "random": places in the training part, and gains where there is an objective.

    DELIFT's has `most` places, of which the first `budget` are its choice: greedy choices of all sizes begin alike.
    """
    args = work.args
    chosen = {"delift": comparison.choose(objective(args.stage, comparison.by_utility, args.flmi), most)}
    for arm in args.compare:
        if arm == "se":
            chosen[arm] = comparison.choose(objective(args.stage, comparison.by_hidden_states, args.flmi), budget)
        elif arm == "full":
            chosen[arm] = (list(range(len(work.train_ids))), None)
        elif arm != "random":
            chosen[arm] = (highest(score_choice(arm, work, other), budget), None)
    return chosen


class Trainer:
    """Trains the same model on different subsets, under the same conditions, and tests it.

    Args:
        tests: "" -> what every arm is tested on; another name -> a further test, whose results are "ARM on NAME".
    """

    def __init__(self, work: pipeline.Work, tests: dict[str, pipeline.Work]):
        self.work, self.tests = work, tests
        self.initial = {name: tensor.clone() for name, tensor in work.model.state_dict().items()}
        self.steps_per_epoch = -(-len(work.train_ids) // (work.args.batch_size * work.args.accumulate))  # of the full data

    def test(self, arm: str, seconds: float | None) -> dict[str, tuple[dict, list[dict]]]:
        """Results and responses of the model as it is, by name."""
        return {f"{arm} on {name}" if name else arm: pipeline.test(work, seconds) for name, work in self.tests.items()}

    def train(self, arm: str, places: list[int], folder: Path, seed: int,
              equal_steps: bool = True) -> tuple[dict[str, tuple[dict, list[dict]]], Run]:
        """Train on these training examples and test. With equal steps, as many as the full data would take in --epochs."""
        work, args = self.work, self.work.args
        steps = args.epochs * self.steps_per_epoch
        schedule = {"steps": steps, "evaluate_every": self.steps_per_epoch} if equal_steps else {}
        say(f"\n{arm}: {len(places)} examples, {f'{steps} steps' if equal_steps else f'{args.epochs} epochs'}, seed {seed}")
        work.model.load_state_dict(self.initial)
        torch.manual_seed(seed)
        data = pipeline.example_dataset([work.examples["train"][i] for i in places], work.tokenizer, args.loss_on, seed)
        run = fit(work.model, work.tokenizer, data, self.tests[""].dataset("validation"), next_token_loss,
                  work.train_options(**schedule), folder, args.resume)
        return self.test(arm, run.seconds), run


def compare(trainer: Trainer, chosen: dict[str, tuple[list[int], list[float] | None]], base: dict, budget: int, folder: Path,
            seed: int) -> dict[str, dict]:
    """Train and test every arm, at equal steps and at equal epochs. Returns the arms of the report."""
    args = trainer.work.args
    subsets = {arm: places[:budget] if arm == "delift" else places for arm, (places, _) in chosen.items()}
    if "random" in args.compare:
        subsets["random"] = random_subset(len(trainer.work.train_ids), budget, seed)
    results, histories = dict(base), {}
    for arm in (*args.compare, "delift"):
        found, run = trainer.train(arm, subsets[arm], folder if arm == "delift" else folder / arm, seed)
        results |= found
        histories[arm] = run.history
    for arm in (*args.compare, "delift"):
        if arm != "full" and budget < len(trainer.work.train_ids):
            results |= trainer.train(f"{arm}, equal epochs", subsets[arm], folder / "equal-epochs" / arm, seed, False)[0]
    arms = {name: result for name, (result, _) in results.items()}
    if distributed.is_main():
        drawn = [arm for arm in ("delift", "random", "full", *args.compare) if arm in histories][:3]
        plots.save_picture(folder / "losses.png", lambda ax: plots.draw_losses(ax, {arm: histories[arm] for arm in drawn}))
        responses = pipeline.merge_responses({name: given for name, (_, given) in results.items() if " on " not in name})
        files.write_json(folder / "responses.json", responses)
        answers.write_page(folder / "answers.html", responses, str(folder))
        pipeline.show_answers(responses)
        runs.finish_run(folder, {"seed": seed, "stage": args.stage, "fraction": args.fraction, "chosen": budget,
                                 "of": len(trainer.work.train_ids), "arms": arms},
                        by_family=["base", *args.compare, "delift"])
    return arms


def curve(trainer: Trainer, order: list[int], full: dict, folder: Path, seed: int) -> None:
    """Score against fraction: DELIFT's choice and three random ones at each, all at equal steps."""
    n = len(trainer.work.train_ids)
    measure = "exact_match" if full["families"] else "rouge_l"
    scores: dict[float, dict[str, list[float]]] = {1.0: {"full": [full[measure]]}}
    for fraction in FRACTIONS:
        budget = budget_of(fraction, n)
        subsets = {"delift": order[:budget]} | {f"random-{i}": random_subset(n, budget, seed + i) for i in range(3)}
        scores[fraction] = {"delift": [], "random": []}
        for name, places in subsets.items():
            arm = f"{name.partition('-')[0]} at {fraction:.0%}"
            found, _ = trainer.train(arm, places, folder / "curve" / f"{fraction:g}-{name}", seed)
            scores[fraction][name.partition("-")[0]].append(found[arm][0][measure])
    if distributed.is_main():
        files.write_json(folder / "curve.json", {"measure": measure, "scores": scores})
        plots.save_picture(folder / "fractions.png", lambda ax: delift_plots.draw_fractions(
            ax, scores, measure.replace("_", " ")))


def draw(work: pipeline.Work, comparison: Comparison, chosen: tuple[list[int], list[float]], budget: int, folder: Path) -> None:
    """The pictures of the choice: gain curve, map, and heat map of the utilities."""
    places, gains = chosen
    other = OTHER[work.args.stage]
    plots.save_picture(folder / "gains.png", lambda ax: delift_plots.draw_gains(ax, gains, len(comparison.candidates)))
    vectors = comparison.hidden("data")
    plots.save_picture(folder / "map.png", lambda ax: delift_plots.draw_map(
        ax, vectors, places[:budget], comparison.hidden(other) if other else None, other or ""))

    # Like stands by like: sorted by family, and within by the main direction of the hidden states.
    direction = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)[2][0]

    def order(group: str, ids: list[int]) -> tuple[list[int], list[str]]:
        along, families = comparison.hidden(group) @ direction, [r.get("family", "") for r in comparison.groups[group]]
        ids = sorted(ids, key=lambda i: (families[i], along[i]))
        ids = ids[::-(-len(ids) // MOST_CELLS)]  # every n-th where there are too many
        return ids, [families[i] for i in ids]

    rows = "target" if work.args.stage == "task" and work.args.flmi == "query" else "data"
    row_ids, row_families = order(rows, list(range(len(comparison.groups[rows]))))
    column_ids, column_families = order("data", comparison.candidates)
    grid = comparison.grid(rows, row_ids, column_ids)
    plots.save_picture(folder / "utility.png", lambda ax: delift_plots.draw_utility(
        ax, grid, np.isin(column_ids, places[:budget]), row_families, column_families), height=5.6)


def differences(arms: list[str], others: list[str]) -> list[tuple[str, str]]:
    """Which arms to subtract: DELIFT and each other one, at equal steps, at equal epochs ("full" is both), in every test."""
    pairs = []
    for first in (arm for arm in arms if arm.startswith("delift")):
        schedule = first.removeprefix("delift")
        for other in others:
            second = other + (schedule.replace(", equal epochs", "") if other == "full" else schedule)
            pairs.append((first, second))
    return pairs


def main() -> None:
    args = parse()
    work = pipeline.prepare(args)
    n = len(work.train_ids)
    budget = budget_of(args.fraction, n)
    name = OTHER[args.stage]
    other = load_other(work, name) if name else None
    pairs = Pairs.parse(args.pairs)
    most = max(budget, budget_of(max(FRACTIONS), n)) if args.curve else budget
    if pairs.kind == "columns" and not most <= pairs.number <= n:
        raise InputError(f"--pairs {pairs} must have at least the {most} candidates that will be chosen, and at most all {n}.")
    if pairs.kind != "neighbours":
        check_memory(n, pairs.number or n)
    groups = {"data": work.records["train"]} | ({name: other.records["train"]} if name else {})
    model, tokenizer = work.model, work.tokenizer
    if args.kernel_model:
        model, tokenizer = load_pretrained(args.kernel_model, work.model.device)
    facts = {"model_sha256": runs.model_hash(model), "format": args.format, "pairs": args.pairs, "seed": args.seed} | {
        f"{group}_sha256": runs.data_hash(records) for group, records in groups.items()}
    if args.utility is not None:
        check_utility(args.utility, facts)
    folder = runs.open_run("ch_delift", args, work.facts | {"kernel_model_sha256": facts["model_sha256"]})

    say(f"\n1. Utility, {args.stage} stage")
    utilities = (args.utility or folder) / "utility"
    if args.utility is None and distributed.is_main():
        utilities.mkdir(exist_ok=True)
        files.write_json(utilities / "facts.json", facts)
    comparison = Comparison(model, tokenizer, groups, utilities, args.format, work.precision, pairs, args.kernel, args.seed)
    chosen = choose_all(work, other, comparison, budget, most)
    places, gains = chosen["delift"]
    say(f"\n2. Chosen: {budget} of {n} training records")
    for group in groups:
        comparison.hidden(group)  # for the map; all processes share this work
    if distributed.is_main():
        write_subset(folder / "subset.json", [work.train_ids[i] for i in places[:budget]], gains[:budget], {
            "data_sha256": work.facts["data_sha256"], "model_sha256": facts["model_sha256"], "stage": args.stage,
            "fraction": args.fraction, "options": runs.plain_options(args)})
        draw(work, comparison, chosen["delift"], budget, folder)
        read_aloud(work.records["train"], places, gains)

    say("\n3. Training")
    tests = {"": other if name == "target" else work} | ({"known": other} if name == "known" else {})
    trainer = Trainer(work, tests)
    base = trainer.test("base", None)
    seeds = range(args.seed, args.seed + args.seeds)
    repeats = [compare(trainer, chosen, base, budget, folder if args.seeds == 1 else folder / f"seed-{seed}", seed)
               for seed in seeds]
    if args.seeds > 1 and distributed.is_main():
        say(f"\n{args.seeds} seeds, mean ± half of the 95 % interval")
        runs.finish_comparison(folder, list(seeds), repeats, differences(list(repeats[0]), args.compare))
    if args.curve:
        curve(trainer, places, repeats[0]["full"], folder, args.seed)


def read_aloud(records: list[dict], places: list[int], gains: list[float]) -> None:
    """Print the first and the last choice, with what they added."""
    for title, span in (("First choices", slice(3)), ("last ones", slice(-2, None))):
        say(title)
        for place, gain in zip(places[span], gains[span]):
            record = records[place]
            asked = " | ".join(filter(None, (record["instruction"], record.get("input", ""))))
            say(f"  +{gain:8.4f}  {pipeline.shorten(asked, 60)} -> {pipeline.shorten(record['output'], 40)}")


if __name__ == "__main__":
    options.run_command(main)
