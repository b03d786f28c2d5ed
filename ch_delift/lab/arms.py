"""The ways to choose that the map compares, as a table of functions. Each gives places in the training records.

"ρ" in a name: each row of the similarities is divided by how many are like it (`submodular.alike`).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ch_delift.baselines import highest, random_subset
from ch_delift.greedy import maximize
from ch_delift.lab import rivals
from ch_delift.lab.conditions import Condition, DrawnData, family_sizes, known_similarity, oracle, thing
from ch_delift.lab.less import less_scores
from ch_delift.selection import Similarities, SimilarityOf, even_rows, objective
from ch_instruct.pipeline import Work
from common.embedding import mean_hidden_states


@dataclass(frozen=True)
class Setting:
    """One data set, from which an arm chooses."""

    condition: Condition
    data: DrawnData
    work: Work  # its records encoded, and the untouched model
    similarities: Similarities
    turn: int = 0  # of what is drawn at random; `real_language.py` has several

    @property
    def n(self) -> int:
        """How many records there are to choose from."""
        return len(self.data.training)

    def greedy(self, similarity_of: SimilarityOf, form: str = "query", budget: int | None = None) -> list[int]:
        """The greedy choice for the objective of this stage; `budget` if another than the condition's."""
        return maximize(objective(self.condition.stage, similarity_of, form), budget or self.condition.chosen)[0]

    @property
    def vectors(self) -> np.ndarray:
        """Mean hidden states of the training records. [N, D]"""
        return self.similarities.hidden("data")


def as_the_oracle(s: Setting, counts: bool, copies: bool) -> list[int]:
    """SE's whole order, from which is taken what comes first, with ingredients of the oracle's choice: as many of each family
    (`counts`), and nothing that asks about the same thing again (`copies`)."""
    wanted = Counter(s.data.training[place]["family"] for place in oracle(s.data, s.condition.chosen))
    chosen: list[int] = []
    for place in s.greedy(s.similarities.by_hidden_states, budget=s.n):
        record, taken = s.data.training[place], [s.data.training[i] for i in chosen]
        full = counts and sum(one["family"] == record["family"] for one in taken) == wanted[record["family"]]
        if not full and not (copies and thing(record) in map(thing, taken)):
            chosen.append(place)
    return chosen[:s.condition.chosen]


def rds(s: Setting) -> list[int]:
    """RDS+, whose hidden states are weighted by position."""
    vectors, targets = (mean_hidden_states(s.work.model, [example.ids for example in s.work.examples[group]], later_more=True)
                        for group in ("train", "target"))
    return rivals.rds_plus(vectors, targets, s.condition.chosen)


def less(s: Setting) -> list[int]:
    """LESS, the target's families as its tasks."""
    tasks = [[example for example, record in zip(s.work.examples["target"], s.data.target) if record["family"] == family]
             for family in s.data.weights]
    return highest(less_scores(s.work.model, s.work.tokenizer, s.work.examples["train"], tasks, s.turn), s.condition.chosen)


ARMS: dict[str, Callable[[Setting], list[int]]] = {
    "random": lambda s: random_subset(s.n, s.condition.chosen, s.turn),
    "oracle": lambda s: oracle(s.data, s.condition.chosen),
    "full": lambda s: list(range(s.n)),
    "SE": lambda s: s.greedy(s.similarities.by_hidden_states),
    "SE-ρ": lambda s: s.greedy(even_rows(s.similarities.by_hidden_states)),
    "DELIFT": lambda s: s.greedy(s.similarities.by_utility),
    "DELIFT-ρ": lambda s: s.greedy(even_rows(s.similarities.by_utility)),
    # rivals
    "random, no copies": lambda s: rivals.without_copies(s.vectors, s.condition.chosen, s.turn),
    "k-means": lambda s: rivals.k_means(s.vectors, s.condition.chosen, s.turn),
    "k-centre": lambda s: rivals.k_centre(s.vectors, s.condition.chosen),
    "wICI": lambda s: rivals.wici(s.similarities.utility("data", "data"), s.vectors, s.condition.chosen),
    "RDS+": rds,
    "LESS": less,
    # the other functions called FLMI
    "SE, saturating": lambda s: s.greedy(s.similarities.by_hidden_states, "saturating"),
    "SE, data form": lambda s: s.greedy(s.similarities.by_hidden_states, "data"),
    "DELIFT, saturating": lambda s: s.greedy(s.similarities.by_utility, "saturating"),
    "DELIFT, data form": lambda s: s.greedy(s.similarities.by_utility, "data"),
    # one ingredient of the oracle's after the other
    "SE, family counts": lambda s: as_the_oracle(s, counts=True, copies=False),
    "SE, no copies": lambda s: as_the_oracle(s, counts=False, copies=True),
    "SE, counts, no copies": lambda s: as_the_oracle(s, counts=True, copies=True),
    "DELIFT by family": lambda s: s.greedy(lambda rows, columns: (  # by the true families; ρ needs none
        s.similarities.by_utility(rows, columns) / family_sizes(s.data)[:, None])),
    "known utility": lambda s: s.greedy(lambda rows, columns: known_similarity(s.data)),
}
