from types import SimpleNamespace

import numpy as np
import pytest

from ch_delift.greedy import maximize
from ch_delift.lab import arms
from ch_delift.lab.arms import ARMS, Setting
from ch_delift.lab.conditions import Condition, DrawnData, oracle
from ch_delift.lab.plan import ANATOMY, MAP, PILOT, PRIMARY, PRIMARY_ARMS, RIVALS, SMALL
from ch_delift.submodular import FacilityLocation, alike
from tests.ch_delift.lab.test_conditions import records

# Two large kinds and a small one; "a1" is there three times.
DATA = DrawnData(records("a1", "a1", "a1", "a2", "a3", "b1", "b2", "b3", "b4", "c1"), [], [])
FAMILIES = np.array([record["family"] for record in DATA.training])
HIDDEN, UTILITY = (np.where(FAMILIES[:, None] == FAMILIES, np.random.default_rng(seed).uniform(0.1, 0.9, (10, 10)), 0.01)
                   + 0.3 * np.eye(10) for seed in (1, 2))


def setting(data: DrawnData = DATA, chosen: int = 3, stage: str = "instruction", **more) -> Setting:
    """A data set whose similarities are HIDDEN and UTILITY, in whatever groups."""
    similarities = SimpleNamespace(by_hidden_states=lambda rows, columns: HIDDEN, hidden=lambda group: HIDDEN,
                                   by_utility=lambda rows, columns: UTILITY, utility=lambda rows, columns: UTILITY)
    return Setting(Condition(chosen, stage), data, more.get("work"), similarities, more.get("turn", 0))


def families(places: list[int]) -> str:
    return "".join(sorted(FAMILIES[places]))


@pytest.mark.parametrize("arm", [*PRIMARY_ARMS, *RIVALS[1:], *ANATOMY])
def test_every_arm_chooses_as_many_different_records_as_it_should(arm):
    for chosen in (2, 5):
        places = ARMS[arm](setting(chosen=chosen))
        assert len(places) == len(set(places)) == chosen and set(places) <= set(range(10))
        assert all(type(place) is int for place in places)  # the journal is JSON


def test_the_same_objective_on_other_similarities_and_rows():
    """Family a has five records, b four, c one; whose likes are not all as near as half of the nearest."""
    sizes = np.array([5] * 5 + [4] * 4 + [1])[:, None]
    wanted = {"SE": HIDDEN, "SE-ρ": HIDDEN / alike(HIDDEN)[:, None], "DELIFT": UTILITY,
              "DELIFT-ρ": UTILITY / alike(UTILITY)[:, None], "DELIFT by family": UTILITY / sizes}
    found = {arm: ARMS[arm](setting(chosen=6)) for arm in wanted}
    assert found == {arm: maximize(FacilityLocation(matrix), 6)[0] for arm, matrix in wanted.items()}
    assert found["DELIFT"] != found["DELIFT-ρ"] != found["SE-ρ"] and (alike(UTILITY)[:, None] != sizes).any()
    assert ARMS["full"](setting()) == list(range(10))


def test_one_ingredient_of_the_oracle_after_the_other():
    wanted = families(oracle(DATA, 6))
    counted, no_copies, both = (ARMS[f"SE, {name}"](setting(chosen=6)) for name in
                                ("family counts", "no copies", "counts, no copies"))
    assert families(counted) == families(both) == wanted == "aaabbc"
    for places in (no_copies, both):
        assert sum(place < 3 for place in places) == 1  # "a1", once
    order = ARMS["SE"](setting(chosen=10))  # what is left keeps the order of SE
    assert sorted(no_copies, key=order.index) == no_copies and sorted(both, key=order.index) == both


def test_less_and_rds_plus_are_given_the_target(monkeypatch):
    data = DATA._replace(target=records("b9", "c9", "b8"))
    work = SimpleNamespace(model="model", tokenizer="tokenizer", examples={
        "train": [SimpleNamespace(ids=[i]) for i in range(10)], "target": [SimpleNamespace(ids=[n]) for n in (70, 80, 90)]})
    asked = []

    def less_scores(model, tokenizer, candidates, tasks, seed):
        asked.append(([[example.ids for example in task] for task in tasks], seed))
        return np.arange(10.0)

    def mean_hidden_states(model, ids, later_more):
        assert later_more
        return np.eye(10)[:3] if len(ids) == 3 else np.eye(10)

    monkeypatch.setattr(arms, "less_scores", less_scores)
    monkeypatch.setattr(arms, "mean_hidden_states", mean_hidden_states)
    assert ARMS["LESS"](setting(data, 3, "task", work=work, turn=5)) == [9, 8, 7]
    assert asked == [([[[70], [90]], [[80]]], 5)]  # families b and c
    assert ARMS["RDS+"](setting(data, 3, "task", work=work)) == [0, 1, 2]


def test_the_three_functions_called_flmi_are_compared(monkeypatch):
    asked = []
    monkeypatch.setattr(arms, "objective", lambda stage, similarity_of, form: asked.append((stage, form)))
    monkeypatch.setattr(arms, "maximize", lambda function, budget: ([], []))
    for arm in ("SE", "SE, saturating", "SE, data form", "DELIFT", "DELIFT, saturating", "DELIFT, data form"):
        ARMS[arm](setting(stage="task"))
    assert asked == [("task", form) for form in ("query", "saturating", "data")] * 2


def test_the_plans_name_arms_that_there_are_and_share_no_data_set():
    plans = [[series for phase in plan for series in phase] for plan in (MAP, PILOT, SMALL)]
    assert {arm for plan in plans for series in plan for arm in series.arms} == set(ARMS)
    seeds = [{seed for series in plan for seed in series.seeds} for plan in plans]
    assert sum(map(len, seeds)) == len(set.union(*seeds)) and min(seeds[0]) == 416 and len(seeds[0]) == 16
    first = {series.condition: series for series in MAP[0]}
    assert len(PRIMARY) == 6 and all({one, other} <= {*first[condition].arms} for condition, one, other in PRIMARY)
    measured = [(series.condition, arm) for phase in MAP for series in phase for arm in series.arms]
    assert len(measured) == len(set(measured))  # nothing is measured twice
