import pytest

from ch_delift.conditions import Series
from ch_delift.map_tables import by_data_set, score_table, scores

SERIES = Series("skewed", 0.1, "equal epochs", ("random", "oracle", "se", "delift"), range(2))


def entries(**values: list[float]) -> list[dict]:
    """One training of each arm on each data set, with these scores."""
    return [{"condition": "skewed", "fraction": 0.1, "schedule": "equal epochs", "seed": seed, "arm": arm, "turn": 0,
             "exact_match": score} for arm, found in values.items() for seed, score in enumerate(found)]


MADE_UP = entries(random=[0.4, 0.2], oracle=[0.6, 0.4], se=[0.4, 0.2], delift=[0.5, 0.3])


def test_trainings_on_one_data_set_count_as_one():
    more = MADE_UP + [MADE_UP[0] | {"turn": 1, "exact_match": 0.8}] + [MADE_UP[0] | {"schedule": "equal steps"}]
    assert by_data_set(more, SERIES, "random") == pytest.approx([0.6, 0.2])


def test_scores_are_shares_of_what_the_oracle_gains():
    found = scores(MADE_UP, SERIES)
    assert {arm: row["share_of_oracle"] for arm, row in found.items()} == pytest.approx(
        {"random": 0, "oracle": 1, "se": 0, "delift": 0.5})
    assert found["delift"]["minus_random"] == pytest.approx((0.1, 0), abs=1e-9)
    assert found["delift"]["exact_match"] == pytest.approx((0.4, 12.706 * 0.1), rel=1e-3)  # t of one degree of freedom
    assert score_table(found).splitlines()[-1].split() == ["delift", "40.0%", "±", "127.1%", "10.0%", "±", "0.0%", "50%"]


def test_where_the_oracle_gains_nothing_there_is_no_share():
    found = scores(entries(random=[0.4, 0.2], oracle=[0.4, 0.1], se=[0.4, 0.2], delift=[0.5, 0.3]), SERIES)
    assert found["delift"]["share_of_oracle"] is None
    assert score_table(found).splitlines()[-1].endswith("-")
