"""The conditions of `where_it_pays.py`: kinds of data on which choosing could pay, and an oracle that says how much.

A data set is made by its seed alone: its records, which families are large, which questions are asked again, what the target
is, and the test questions. Nothing is kept for validation: someone who has so few records would train on them. `conditions.md`
says what was fixed before any method was tried.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np

from ch_pretrain import classroom

FIRST_SET = 1000  # data seed s is the classroom of seed 1000 + s: no question of the usual test part decides anything here


class Condition(NamedTuple):
    """One kind of data: what is chosen from, for which stage of DELIFT, and how much."""

    chosen: int  # of the training records
    stage: str = "instruction"


class DrawnData(NamedTuple):
    """The records of one data set."""

    training: list[dict]  # to choose from
    test: list[dict]
    target: list[dict]  # what the model is to become good at, other records than the other two; empty: everything

    @property
    def weights(self) -> dict[str, float]:
        """The share of each family in what is to be covered: the target, or else the training records."""
        counts = Counter(record["family"] for record in self.target or self.training)
        return {family: count / counts.total() for family, count in sorted(counts.items())}

    @property
    def small_families(self) -> set[str]:
        """The families that have the fewest records; none where all have as many."""
        weights = self.weights
        return {family for family, weight in weights.items() if weight == min(weights.values()) < max(weights.values())}


CONDITIONS = {"skewed": Condition(36), "redundant": Condition(36), "target": Condition(18, "task"), "noisy": Condition(36)}
PER_FAMILY = 20  # records, where all families have the same number
LARGE, SMALL = (3, 60), (15, 4)  # families and records of each, of skewed data
THINGS, POPULAR, COPIES = 5, 10, 15  # of redundant data: things of each family; things that are asked again, and how often
TARGETS = (4, 10)  # families of the target, and records of each that tell it
NOISE = 0.3  # share of wrong answers in noisy data


def thing(record: dict) -> tuple[str, str]:
    """What a record asks about, in whatever words."""
    return record["family"], record["key"]


def draw_data(condition: str, seed: int) -> DrawnData:
    """The data set of a condition (a name among `CONDITIONS`) with this seed, the same one each time."""
    rng = random.Random(f"{condition} {seed}")
    records = classroom.records(FIRST_SET + seed, noise=NOISE if condition == "noisy" else 0.0)
    test = [record for record in records if record["split"] == "test"]
    by_family: dict[str, list[dict]] = defaultdict(list)
    for record in records:
        if record["split"] == "train":
            by_family[record["family"]].append(record)
    families = rng.sample(sorted(by_family), len(by_family))
    sizes, target = dict.fromkeys(families, PER_FAMILY), []
    if condition == "skewed":
        sizes = {family: (LARGE if i < LARGE[0] else SMALL)[1] for i, family in enumerate(families)}
    if condition == "redundant":
        by_family = {family: list({thing(record): record for record in found}.values()) for family, found in by_family.items()}
        sizes = dict.fromkeys(families, THINGS)
    training = [record for family, size in sizes.items() for record in by_family[family][:size]]
    if condition == "redundant":
        training += [record | {"instruction": classroom.reword(record["instruction"], turn)}
                     for record in rng.sample(training, POPULAR) for turn in range(COPIES)]
    if condition == "target":
        wanted, each = families[:TARGETS[0]], TARGETS[1]
        target = [record for family in wanted for record in by_family[family][PER_FAMILY:PER_FAMILY + each]]
        test = [record for record in test if record["family"] in wanted]
    rng.shuffle(training)
    rng.shuffle(target)  # who takes turns by target records serves all families alike
    return DrawnData(training, test, target)


def oracle(data: DrawnData, budget: int) -> list[int]:
    """What one would choose who knows everything: right answers, of the target's families alone, the same number of each
    family, and of different things before any is asked again. Places in the training records."""
    wanted = {record["family"] for record in data.target or data.training}
    asked: Counter = Counter()
    by_family: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for place, record in enumerate(data.training):
        if "wrong" not in record and record["family"] in wanted:
            by_family[record["family"]].append((asked[thing(record)], place))  # how often it was asked before
            asked[thing(record)] += 1
    turns = sorted((turn, place) for found in by_family.values() for turn, (_, place) in enumerate(sorted(found)))
    return [place for _, place in turns[:budget]]  # a turn takes one record of each family


def what_was_chosen(data: DrawnData, places: Sequence[int]) -> dict[str, float | None]:
    """How many different things these training records ask about, from how many of the families that are to be covered they
    come, and which shares of them have a wrong answer and are of a small family (None if no family is small)."""
    chosen, small = [data.training[place] for place in places], data.small_families
    return {"different": len({thing(record) for record in chosen}),
            "kinds": len({record["family"] for record in chosen} & data.weights.keys()),
            "wrong": fmean("wrong" in record for record in chosen),
            "small_share": fmean(record["family"] in small for record in chosen) if small else None}


def measures(data: DrawnData, families: dict[str, float]) -> dict[str, float | None]:
    """Exact match, summed up in three ways.

    Args:
        families: exact match of each tested family.

    Returns:
        "macro", every family counting alike: for a user who cares for every kind of question; "pool", each by its share in the
        data (or the target): for a user whose questions come like his data; "small", the small families alone, None if none is.
    """
    small = [families[family] for family in sorted(data.small_families)]
    return {"macro": fmean(families.values()), "pool": sum(data.weights[family] * match for family, match in families.items()),
            "small": fmean(small) if small else None}


def known_similarity(data: DrawnData) -> np.ndarray:
    """The similarities that utilities would be if they told everything: 1 for the same thing, a half for the same family, 0 for
    others and for wrong answers. [target or else training records, training records]"""
    return np.array([[0.0 if "wrong" in b else ((thing(a) == thing(b)) + (a["family"] == b["family"])) / 2
                      for b in data.training] for a in data.target or data.training])


def family_sizes(data: DrawnData) -> np.ndarray:
    """How many of the records that are to be covered are of each one's family. [target or else training records]."""
    families = [record["family"] for record in data.target or data.training]
    return np.array([families.count(family) for family in families])
