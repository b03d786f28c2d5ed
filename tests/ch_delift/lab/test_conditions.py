from collections import Counter

import pytest

from ch_delift.lab.conditions import (
    CONDITIONS,
    COPIES,
    LARGE,
    NOISE,
    PER_FAMILY,
    POPULAR,
    SMALL,
    TARGETS,
    THINGS,
    DrawnData,
    draw_data,
    family_sizes,
    known_similarity,
    measures,
    oracle,
    thing,
    what_was_chosen,
)


@pytest.mark.slow
@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_data_set_depends_on_its_seed_alone(condition):
    first, other = draw_data(condition, 300), draw_data(condition, 301)
    assert draw_data(condition, 300) == first
    assert first.training != other.training and first.test != other.test


@pytest.mark.parametrize("condition", CONDITIONS)
def test_no_test_question_is_trained_on_and_no_target_is_chosen_from(condition):
    data = draw_data(condition, 300)
    assert not {thing(r) for r in data.test} & {thing(r) for r in data.training + data.target}
    assert not any(record in data.training for record in data.target)


@pytest.mark.slow
def test_skewed_data_has_other_large_families_in_each_data_set():
    large = []
    for seed in (300, 301):
        data = draw_data("skewed", seed)
        counts = Counter(r["family"] for r in data.training)
        assert sorted(counts.values()) == [SMALL[1]] * SMALL[0] + [LARGE[1]] * LARGE[0]
        large.append({family for family, count in counts.items() if count == LARGE[1]})
        assert data.small_families == set(counts) - large[-1]
    assert large[0] != large[1]
    assert {r["family"] for r in data.test} == set(counts)


def test_redundant_data_asks_for_a_few_things_again_and_again_in_other_words():
    data = draw_data("redundant", 300)
    things = Counter(map(thing, data.training))
    assert sorted(things.values()) == [1] * (18 * THINGS - POPULAR) + [1 + COPIES] * POPULAR
    assert set(Counter(family for family, _ in things).values()) == {THINGS}
    popular = things.most_common(1)[0][0]
    wordings = {r["instruction"] for r in data.training if thing(r) == popular}
    assert len(wordings) >= COPIES - 2  # two ways of rewording may agree


@pytest.mark.slow
def test_a_target_is_a_few_families_told_by_other_records():
    data = draw_data("target", 300)
    assert Counter(Counter(r["family"] for r in data.target).values()) == {TARGETS[1]: TARGETS[0]}
    assert set(Counter(r["family"] for r in data.training).values()) == {PER_FAMILY}
    assert {r["family"] for r in data.test} == {r["family"] for r in data.target} == data.weights.keys()
    assert data.small_families == set()
    assert draw_data("target", 301).weights.keys() != data.weights.keys()
    assert Counter(r["family"] for r in data.target[:18]).keys() == data.weights.keys()  # where 18 take turns, all are served


def test_noisy_data_has_wrong_answers_in_training_alone():
    data = draw_data("noisy", 300)
    assert sum("wrong" in r for r in data.training) / len(data.training) == pytest.approx(NOISE, abs=0.08)
    assert not any("wrong" in r for r in data.test)


def records(*told: str) -> list[dict]:
    """"a1" asks about thing 1 of family a; "a1!" gives a wrong answer."""
    return [{"family": t[0], "key": t[1]} | ({"wrong": "yes"} if t.endswith("!") else {}) for t in told]


@pytest.mark.parametrize("training, target, budget, expected", [
    (("a1", "a2", "a3", "b1"), (), 2, [0, 3]),  # as many of each family
    (("a1", "a2", "a3", "b1"), (), 3, [0, 3, 1]),  # while there are some
    (("a1", "a1", "a2", "b1"), (), 3, [0, 3, 2]),  # different things before a thing again
    (("a1!", "b1", "a2"), (), 3, [1, 2]),  # never a wrong answer
    (("a1", "b1", "b1", "b2"), ("b9",), 3, [1, 3, 2])])  # of the target's families alone
def test_the_oracle_knows_families_copies_wrong_answers_and_the_target(training, target, budget, expected):
    assert oracle(DrawnData(records(*training), [], records(*target)), budget) == expected


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_oracle_finds_as_many_as_are_to_be_chosen(condition):
    data = draw_data(condition, 300)
    chosen = oracle(data, budget := CONDITIONS[condition].chosen)
    said = what_was_chosen(data, chosen)
    assert len(set(chosen)) == len(chosen) == budget
    assert said["wrong"] == 0 and said["different"] == budget
    counts = Counter(data.training[place]["family"] for place in chosen)
    assert len(counts) == (TARGETS[0] if data.target else 18) and max(counts.values()) - min(counts.values()) <= 1


def test_what_was_chosen_counts_things_wrong_answers_and_small_families():
    data = DrawnData(records("a1", "a1!", "b1", "c1", "d1", "d2", "a2", "b2"), [], [])  # small: c alone
    assert what_was_chosen(data, [0, 1, 3, 4]) == {"different": 3, "kinds": 3, "wrong": 0.25, "small_share": 0.25}
    aimed = data._replace(target=records("c2", "d3"))  # of three families that are chosen from, two are to be covered
    assert what_was_chosen(aimed, [0, 1, 3, 4])["kinds"] == 2
    assert what_was_chosen(data._replace(training=data.training[3:5]), [0])["small_share"] is None  # one record of each family


def test_exact_match_is_summed_up_in_three_ways():
    """Of eight records five are of family a, two of b, one of c."""
    data = DrawnData(records("a1", "a2", "a3", "a4", "a5", "b1", "b2", "c1"), [], [])
    assert data.weights == {"a": 0.625, "b": 0.25, "c": 0.125} and data.small_families == {"c"}
    found = measures(data, {"a": 1.0, "b": 0.5, "c": 0.3})
    assert found == {"macro": pytest.approx(0.6), "pool": pytest.approx(0.625 + 0.125 + 0.0375), "small": 0.3}
    target = data._replace(target=records("b7", "c7"))  # its families alone, both alike
    assert measures(target, {"b": 0.5, "c": 0.3}) == {"macro": 0.4, "pool": 0.4, "small": None}


def test_what_utilities_would_be_if_they_told_everything():
    data = DrawnData(records("a1", "a1!", "a2", "b1"), [], [])
    assert known_similarity(data).tolist() == [[1, 0, 0.5, 0], [1, 0, 0.5, 0], [0.5, 0, 1, 0], [0, 0, 0, 1]]
    assert family_sizes(data).tolist() == [3, 3, 3, 1]
    target = data._replace(target=records("b2"))
    assert known_similarity(target).tolist() == [[0, 0, 0, 0.5]] and family_sizes(target).tolist() == [1]
