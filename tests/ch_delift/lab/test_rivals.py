import numpy as np
import pytest

from ch_delift.lab import rivals

GENERATOR = np.random.default_rng(0)
CENTRES = 10 * np.eye(4)
KINDS = np.repeat([0, 1, 2, 3], [30, 6, 3, 1])
CLOUDS = CENTRES[KINDS] + GENERATOR.normal(scale=0.5, size=(40, 4))  # four far clouds of very different sizes


def test_no_near_copy_is_chosen_while_there_is_something_else():
    copies = np.concatenate([np.repeat(CENTRES[:1], 20, axis=0) * GENERATOR.uniform(1, 1.01, (20, 1)), CENTRES[1:]])
    for seed in range(5):
        chosen = rivals.without_copies(copies, 4, seed)
        assert {max(place - 19, 0) for place in chosen} == {0, 1, 2, 3}
    assert len(set(rivals.without_copies(copies, 10, 0))) == 10  # then copies fill up
    assert len({tuple(rivals.without_copies(copies, 4, seed)) for seed in range(5)}) > 1


def test_wici_takes_what_helps_its_neighbours_and_no_copies():
    """Four far pairs: of each pair the second helps the first a little, the more the less they are alike."""
    angles = np.radians([0, 30, 90, 115, 180, 195, 270, 276])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    utility = np.full((8, 8), -0.3)
    for i in range(0, 8, 2):
        utility[i, i + 1] = 0.2
    likeness = rivals.cosine(vectors, vectors)
    expected = {i + 1: 0.2 * (1 - likeness[i, i + 1]) for i in range(0, 8, 2)}
    chosen = rivals.wici(utility, vectors, 3, probes=1)
    assert chosen[:3] == sorted(expected, key=expected.get, reverse=True)[:3]
    assert set(rivals.wici(utility, vectors, 8, probes=1)) == set(range(8))


def test_k_means_takes_the_record_nearest_to_each_centre():
    kinds = np.repeat(range(4), 10)
    clouds = CENTRES[kinds] + np.random.default_rng(1).normal(scale=0.5, size=(40, 4))
    chosen = rivals.k_means(clouds, 4, 0)
    assert sorted(kinds[chosen]) == [0, 1, 2, 3]
    points = clouds - clouds.mean(axis=0)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    for kind, place in zip(kinds[chosen], chosen):
        centre = points[kinds == kind].mean(axis=0)
        assert place == np.flatnonzero(kinds == kind)[np.linalg.norm(points[kinds == kind] - centre, axis=1).argmin()]
    assert len(set(rivals.k_means(np.ones((9, 3)), 5, 0))) == 5  # clusters may be empty, and records copies


def test_k_centre_takes_what_is_farthest_from_all_that_is_chosen():
    chosen = rivals.k_centre(CLOUDS, 5)
    assert sorted(KINDS[chosen[:4]]) == [0, 1, 2, 3]
    points = CLOUDS - CLOUDS.mean(axis=0)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    for count in range(1, 5):
        nearest = np.linalg.norm(points[:, None] - points[chosen[:count]], axis=2).min(axis=1)
        assert nearest[chosen[count]] == pytest.approx(nearest.max())
    assert len(set(rivals.k_centre(np.repeat(CLOUDS[:2], 3, axis=0), 6))) == 6


def test_each_row_takes_in_turn_what_it_likes_best_of_what_is_left():
    scores = np.array([[9.0, 8.0, 1.0, 0.0], [9.0, 2.0, 3.0, 1.0]])
    assert rivals.in_turns(scores, 4) == [0, 2, 1, 3]
    assert scores[0, 0] == 9  # they are left as they were


def test_rds_plus_lets_targets_choose_by_cosine_about_0():
    vectors, targets = np.array([[1.0, 0.1], [5.0, 5.0], [0.0, 2.0], [9.0, 0.0]]), np.array([[3.0, 0.0], [0.0, 1.0]])
    assert rivals.rds_plus(vectors, targets, 3) == [3, 2, 0]
