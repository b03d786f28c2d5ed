"""What `where_it_pays.py` compares, and on which data sets; `conditions.md` says why."""

from typing import NamedTuple

LR, STEPS, BATCH = 5e-5, 100, 8  # of every training of the map: the best for random subsets in the pilot
RATES, STEP_COUNTS = (5e-5, 1e-4, 3e-4), (25, 50, 100, 225)  # of the pilot
# Data seeds, none of them in two maps. 0 to 7 were those of an earlier one, 300 to 305 of a first look,
# 400 to 415 of a larger size that was given up.
PILOT_SETS, SMALL_SETS, SETS = range(100, 102), range(200, 202), range(416, 432)


class Trial(NamedTuple):
    """One training and its test."""

    condition: str
    seed: int  # of the data set
    arm: str
    lr: float  # peak learning rate
    steps: int  # of training


class Series(NamedTuple):
    """The same comparison on several data sets of one kind."""

    condition: str
    arms: tuple[str, ...]
    seeds: range = SETS  # of the data sets
    lr: float = LR
    steps: int = STEPS


PRIMARY_ARMS = ("random", "oracle", "SE", "SE-ρ", "DELIFT", "DELIFT-ρ")
RIVALS = ("full", "random, no copies", "k-means", "k-centre", "wICI")
ANATOMY = ("SE, family counts", "SE, no copies", "SE, counts, no copies", "DELIFT by family", "known utility")
FORMS = ("SE, saturating", "SE, data form", "DELIFT, saturating", "DELIFT, data form")
# (condition, arm, minus): each is tested with every family of questions counting alike, and as the pool for equivalence
PRIMARY = tuple((condition, first, second) for condition in ("skewed", "redundant")
                for first, second in (("DELIFT-ρ", "DELIFT"), ("DELIFT-ρ", "SE"), ("DELIFT", "SE")))
MARGIN = 0.04  # weighted as the pool, a difference within this is none that matters

# Each plan is a list of phases. A phase is told when all its series are done.
PILOT = [[Series(name, (arm,), PILOT_SETS, lr, steps)
          for name in ("skewed", "redundant") for lr in RATES for steps in STEP_COUNTS] for arm in ("random", "oracle")]
SMALL = [[Series(name, PRIMARY_ARMS, SMALL_SETS) for name in ("skewed", "redundant")]]
MAP = [[Series(name, PRIMARY_ARMS) for name in ("skewed", "redundant")],
       [Series("target", ("random", "oracle", "SE", "DELIFT", "RDS+", "full")),
        *(Series(name, RIVALS + ANATOMY) for name in ("skewed", "redundant"))],
       [Series("target", ("LESS", *FORMS)), Series("noisy", ("random", "oracle", "SE", "DELIFT", "full"), range(416, 420))]]
