import pytest

from ch_delift.lab import map_tables
from ch_delift.lab.conditions import Series
from common.support.files import read_json
from common.support.reports import difference_table

SERIES = Series("skewed", 0.1, "equal epochs", ("random", "oracle", "se", "delift"), range(2))
CHOICE = {"choosing": 2.0, "different": 4, "wrong": 0.0, "large": 0.5, "large_in_data": 0.75, "other_families": None,
          "pairs": {"same thing": None, "same family": 0.1}}


def entries(condition: str = "skewed", **values: list[float]) -> list[dict]:
    """One training of each arm on each data set, with these scores."""
    return [CHOICE | {"condition": condition, "fraction": 0.1, "schedule": "equal epochs", "seed": seed, "arm": arm, "turn": 0,
                      "exact_match": score, "places": [seed, 1, 2, 3 + len(arm)]}
            for arm, found in values.items() for seed, score in enumerate(found)]


MADE_UP = entries(random=[0.4, 0.2], oracle=[0.6, 0.4], se=[0.4, 0.2], delift=[0.55, 0.25])


def test_trainings_on_one_data_set_count_as_one():
    first = MADE_UP[0]
    more = [*MADE_UP, first | {"turn": 1, "exact_match": 0.8}, first | {"schedule": "equal steps"}]
    assert map_tables.by_data_set(more, SERIES, "random") == pytest.approx([0.6, 0.2])


def test_scores_are_shares_of_what_the_oracle_gains():
    found = map_tables.scores(MADE_UP, SERIES)
    assert {arm: row["share_of_oracle"] for arm, row in found.items()} == pytest.approx(
        {"random": 0, "oracle": 1, "se": 0, "delift": 0.5})
    half = 12.706 * 0.05  # Student's t of one degree of freedom
    assert found["delift"]["minus_random"] == pytest.approx((0.1, half), rel=1e-3)
    last = map_tables.score_table(found).splitlines()[-1]
    assert last.split() == ["delift", "40.0%", "±", "190.6%", "10.0%", "±", "63.5%", "50%"]


def test_where_the_oracle_gains_nothing_there_is_no_share():
    found = map_tables.scores(entries(random=[0.4, 0.2], oracle=[0.4, 0.1], se=[0.4, 0.2], delift=[0.5, 0.3]), SERIES)
    assert found["delift"]["share_of_oracle"] is None
    assert map_tables.score_table(found).splitlines()[-1].endswith("-")


def test_what_was_chosen_is_told_for_each_arm():
    rows = map_tables.choice_table(map_tables.choice_means(MADE_UP, SERIES)).splitlines()
    assert rows[-1].split() == ["delift", "2.00", "4.0", "0%", "50%", "75%", "-"]


def test_overlaps_are_shares_of_a_choice_that_two_have_in_common():
    assert map_tables.overlaps(MADE_UP, SERIES) == {"se and delift": pytest.approx((3 / 4 + 2 / 3) / 2)}


def test_primary_comparisons_are_corrected_together_and_the_others_left_out():
    plan, found = [], []
    for number, condition in enumerate(("skewed", "redundant", "noisy")):
        plan.append(SERIES._replace(condition=condition))
        found += entries(condition, random=[0.4, 0.2], oracle=[0.6, 0.5], se=[0.4, 0.1], delift=[0.5, 0.301 + number / 100])
    plan.append(SERIES._replace(fraction=0.3))  # like noisy data, descriptive
    rows = map_tables.primaries(found, plan)
    assert [(row["condition"], row["minus"]) for row in rows] == [
        ("skewed", "random"), ("skewed", "se"), ("redundant", "random"), ("redundant", "se")]
    assert rows[0]["differences"] == pytest.approx([0.1, 0.101])
    assert rows[0]["p_holm"] == pytest.approx(4 * rows[0]["p"]) and rows[0]["p"] < 0.01  # the smallest of four
    assert map_tables.heading(rows) == "sketched comparisons"  # there are two data sets
    assert map_tables.heading([{**row, "differences": [0.1] * 8} for row in rows]) == "primary comparisons"
    assert "skewed: DELIFT - random" in difference_table(rows, "")


def test_fractions_are_compared_on_the_data_sets_that_all_of_them_have():
    more = entries(random=[0.4, 0.2, 0.9], oracle=[0.6, 0.4, 0.9], se=[0.4, 0.2, 0.9], delift=[0.55, 0.25, 0])
    other = [entry | {"fraction": 0.3}
             for entry in entries(random=[0.5, 0.5], oracle=[0.9, 0.9], se=[0.6, 0.7], delift=[0.4, 0.3])]
    plan = [SERIES._replace(seeds=range(3)), SERIES._replace(fraction=0.3), SERIES._replace(condition="noisy")]
    assert map_tables.margins_by_fraction(more + other, plan) == {"skewed": {
        0.1: pytest.approx({"DELIFT": 10, "SE": 0, "oracle": 20}), 0.3: pytest.approx({"DELIFT": -15, "SE": 15, "oracle": 40})}}


@pytest.mark.slow
def test_everything_that_is_shown_is_written(tmp_path, capsys):
    fraction = [entry | {"fraction": 0.3} for entry in MADE_UP]
    plan = [SERIES, SERIES._replace(condition="noisy"), SERIES._replace(fraction=0.3)]
    map_tables.show(tmp_path, plan, MADE_UP + fraction + entries(
        "noisy", random=[0.4, 0.2], oracle=[0.6, 0.4], se=[0.4, 0.2], delift=[0.5, 0.3]))
    told, report = capsys.readouterr().out, read_json(tmp_path / "report.json")
    assert "noisy, 10%, equal epochs (descriptive): 2 data sets" in told and "skewed, 10%, equal epochs: 2" in told
    assert report["series"][SERIES.name]["scores"]["delift"]["share_of_oracle"] == pytest.approx(0.5)
    assert report["utilities"]["noisy"] == {"same thing": None, "same family": pytest.approx(0.1)} and "+0.100" in told
    assert len(report["primaries"]) == 2 and {"differences.png", "fractions.png"} <= {path.name for path in tmp_path.iterdir()}
