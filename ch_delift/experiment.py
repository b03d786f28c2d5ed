"""The experiment of this chapter: one model, trained on different choices of the data under the same conditions."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ch_delift.baselines import gradient_scores, gradient_sketches, highest, random_subset
from ch_delift.greedy import maximize
from ch_delift.plots import draw_fractions
from ch_delift.selection import Similarities, SimilarityOf, budget_of, even_rows, objective
from ch_delift.support.delift_options import Delift
from ch_instruct import pipeline
from ch_instruct.perplexity import response_perplexities
from ch_instruct.pipeline import Arm, Work
from ch_instruct.prompts import one_line
from common.losses import next_token_loss
from common.support import files, plots
from common.support.checkpoints import Run
from common.support.console import is_main, say

FRACTIONS = (0.1, 0.2, 0.3, 0.5)  # of --curve
NOTHING = 1e-9  # a gain of no more is rounding


class Choice(NamedTuple):
    """A subset: places in the training part in the order of choice, and what each added (nothing without an objective)."""

    places: list[int]
    gains: list[float]


def score_choice(name: str, work: Work, goal: Work | None) -> np.ndarray:
    """The scores by which the arms "gradient", "high-loss" and "low-loss" choose, float [training examples].

    Gradients point to what is to be learnt: the training part of `goal`, or without one the data's validation part (where
    there is none, the training part itself).
    """
    train = work.examples["train"]
    if name == "gradient":  # a step along a candidate's gradient should lower the loss of what is wanted
        wanted = goal.examples["train"] if goal else work.examples["validation"] or train
        return gradient_scores(*(gradient_sketches(work.model, examples, work.precision) for examples in (train, wanted)))
    perplexities = response_perplexities(work.model, work.dataset("train", loss_on="response"), 2 * work.options.batch_size,
                                         work.precision).numpy()
    return perplexities if name == "high-loss" else -perplexities


def greedy_choice(arm: str, similarities: Similarities, given: Delift, budget: int) -> Choice:
    """What the arms "delift" and "se" choose: the same objective, of utilities or of hidden states."""
    similarity_of: SimilarityOf = similarities.by_utility if arm == "delift" else similarities.by_hidden_states
    if given.rows == "even":
        similarity_of = even_rows(similarity_of)
    function = objective(given.stage, similarity_of, given.flmi)
    places, gains = maximize(function, budget)
    useful = sum(gain > NOTHING for gain in gains)
    if useful < budget:  # greedy would take the others in the order of the file
        say(f"  Warning: after {useful:,} of {budget:,} records no other adds anything for {arm}; the other "
            f"{budget - useful:,} are drawn at random. Lower --fraction, or compare more pairs (--pairs).")
        rest = sorted({*range(function.n)} - {*places[:useful]})
        places[useful:] = random.Random(f"rest {given.seed}").sample(rest, budget - useful)
    return Choice(places, gains)


def choose_all(work: Work, other: Work | None, similarities: Similarities, given: Delift, budget: int) -> dict[str, Choice]:
    """The subset of every arm but "random".

    With --curve, the first one's is longer than the budget: greedy choices of all sizes begin alike.
    """
    most = max(budget, budget_of(max(FRACTIONS), len(work.train_ids))) if given.curve else budget  # greedy goes on so far
    chosen = {given.arm: greedy_choice(given.arm, similarities, given, most)}
    for arm in given.others:
        if arm == "se":
            chosen[arm] = greedy_choice(arm, similarities, given, budget)
        elif arm == "full":
            chosen[arm] = Choice(list(range(len(work.train_ids))), [])
        elif arm != "random":  # that one is drawn anew for each seed
            goal = other if given.stage == "task" else None
            chosen[arm] = Choice(highest(score_choice(arm, work, goal), budget), [])
    return chosen


@dataclass
class Experiment:
    """Trains the same model on different subsets, under the same conditions, and tests it."""

    work: Work  # whose training part is chosen from
    goal: Work  # whose validation part picks the checkpoint, and whose test every arm takes
    further: dict[str, Work]  # name -> a further test, reported as "ARM on NAME"

    def test(self, arm: str, run: Run | None = None) -> dict[str, Arm]:
        """The model as it is in every test."""
        return {arm: pipeline.test(self.goal, run)} | {
            f"{arm} on {name}": pipeline.test(work, run) for name, work in self.further.items()}

    def train(self, arm: str, places: Sequence[int], folder: Path, seed: int, equal_steps: bool = True) -> dict[str, Arm]:
        """Train on these training examples and test. With equal steps, as many as the full data would take in --epochs."""
        schedule = self.work.equal_steps() if equal_steps else {}
        told = f"{schedule['max_steps']} steps" if equal_steps else f"{self.work.options.epochs} epochs"
        say(f"\n{arm}: {len(places)} examples, {told}, seed {seed}")
        data = pipeline.example_dataset([self.work.examples["train"][i] for i in places], self.work.tokenizer,
                                        self.work.options.loss_on, seed)
        return self.test(arm, pipeline.train(self.goal, data, next_token_loss, folder, seed, **schedule))


def run_arms(experiment: Experiment, chosen: dict[str, Choice], given: Delift, base: dict[str, Arm], budget: int, folder: Path,
            seed: int) -> dict[str, dict]:
    """Train and test every arm, at equal steps and at equal epochs. Returns the arms of the report."""
    n, names, own = len(experiment.work.train_ids), (*given.others, given.arm), given.arm
    subsets = {arm: choice.places if arm == "full" else choice.places[:budget] for arm, choice in chosen.items()}
    if "random" in names:
        subsets["random"] = random_subset(n, budget, seed)
    arms = dict(base)
    # Equal steps: a share f of the data is seen 1/f times as often. Equal epochs: as often, in a share f of the steps. Both
    # are fair, and they answer different questions.
    for arm in names:
        arms |= experiment.train(arm, subsets[arm], folder if arm == own else folder / arm, seed)
    for arm in names:
        if arm != "full" and budget < n:
            arms |= experiment.train(f"{arm}, equal epochs", subsets[arm], folder / "equal-epochs" / arm, seed, False)
    drawn = list(dict.fromkeys(arm for arm in (own, "random", "full", *names) if arm in names))[:3]
    how = "" if own == "delift" else " with similarities of hidden states"
    method = (f"next-token prediction on {budget:,} of {n:,} records, chosen by DELIFT (arXiv 2411.04425){how}, "
              f"{given.stage} stage")
    pipeline.finish(experiment.work, folder, arms, {arm: arms[arm].history for arm in drawn}, own, method,
                    by_family=["base", *names], seed=seed, stage=given.stage, fraction=given.fraction, chosen=budget, of=n)
    return {name: arm.result for name, arm in arms.items()}


def curve(experiment: Experiment, arm: str, order: list[int], full: dict, folder: Path, seed: int) -> None:
    """Score against fraction: this arm's choice and three random ones at each, all at equal steps."""
    n = len(experiment.work.train_ids)
    measure = "exact_match" if full["families"] else "rouge_l"  # answers of one's own file have many right wordings
    scores: dict[float, dict[str, list[float]]] = {1.0: {"full": [full[measure]]}}
    for fraction in FRACTIONS:
        budget = budget_of(fraction, n)
        subsets = {arm: order[:budget]} | {f"random-{i}": random_subset(n, budget, seed + i) for i in range(3)}
        scores[fraction] = {arm: [], "random": []}
        for name, places in subsets.items():
            kind = name.partition("-")[0]
            told = f"{kind} at {fraction:.0%}"
            found = experiment.train(told, places, folder / "curve" / f"{fraction:g}-{name}", seed)
            scores[fraction][kind].append(found[told].result[measure])
    if is_main():
        files.write_json(folder / "curve.json", {"measure": measure, "scores": scores})
        plots.save_picture(folder / "fractions.png", lambda ax: draw_fractions(ax, scores, measure.replace("_", " ")))


def differences(own: str, arms: list[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Which arms to subtract: our own and each other one, at equal steps, at equal epochs ("full" is both), in every test."""
    pairs = []
    for first in (arm for arm in arms if arm.startswith(own)):
        schedule = first.removeprefix(own)
        for other in others:
            second = other + (schedule.replace(", equal epochs", "") if other == "full" else schedule)
            pairs.append((first, second))
    return pairs


def read_aloud(records: list[dict], places: list[int], gains: list[float]) -> None:
    """Print the first and the last choice, with what they added."""
    for title, span in (("First choices", slice(3)), ("last ones", slice(-2, None))):
        say(title)
        for place, gain in zip(places[span], gains[span]):
            say(f"  +{gain:8.4f}  {one_line(records[place])}")
