from types import SimpleNamespace

import numpy as np
import pytest

from ch_delift.experiment import differences, greedy_choice
from ch_delift.support.delift_options import Delift

KINDS = np.repeat([0, 1, 2], [6, 2, 1])
ALIKE = np.where(KINDS[:, None] == KINDS, 0.6, 0.01) + np.diag(np.linspace(0.3, 0.1, 9))


def test_the_choice_is_of_utilities_or_of_hidden_states_and_of_rows_as_given():
    similarities = SimpleNamespace(by_utility=lambda rows, columns: ALIKE[::-1, ::-1],
                                   by_hidden_states=lambda rows, columns: ALIKE)
    plain = greedy_choice("se", similarities, Delift(), 4)
    even = greedy_choice("se", similarities, Delift(rows="even"), 4)
    assert set(KINDS[plain.places[:2]]) == {0, 1} and plain.gains[0] > 3
    assert set(KINDS[even.places[:3]]) == {0, 1, 2}
    mirrored = greedy_choice("delift", similarities, Delift(), 1)
    assert KINDS[::-1][mirrored.places[0]] == 0 and mirrored.places[0] >= 3


@pytest.mark.parametrize("useful", [0, 2, 4])
def test_what_adds_nothing_is_drawn_at_random_and_told(useful, capsys):
    """Greedy takes the first of equals: in a file in order of topics, that is the first topic."""
    shown = np.zeros((4, 20), dtype=np.float32)
    shown[range(useful), [15, 17, 11, 13][:useful]] = 0.5
    similarities = SimpleNamespace(by_hidden_states=lambda rows, columns: shown)
    given = [Delift(stage="task", target="t.json", seed=seed) for seed in (2, 2, 3)]
    one, again, other = (greedy_choice("se", similarities, some, 4) for some in given)
    told = f"Warning: after {useful} of 4 records no other adds anything for se" in capsys.readouterr().out
    assert told == (useful < 4) and one == again and len(set(one.places)) == 4
    assert set(one.places[:useful]) == {15, 17, 11, 13}.intersection(one.places[:useful]) and one.gains[useful:] == [0] * (
        4 - useful)
    assert (one.places[useful:] != other.places[useful:]) == (useful < 4)
    assert useful == 4 or one.places[useful:] != [*range(4 - useful)]


def test_our_own_arm_is_compared_with_the_others_in_every_schedule_and_test():
    arms = ["base", "random", "full", "se", "se on known", "random, equal epochs", "se, equal epochs"]
    assert differences("se", arms, ["random", "full"]) == [
        ("se", "random"), ("se", "full"), ("se on known", "random on known"), ("se on known", "full on known"),
        ("se, equal epochs", "random, equal epochs"), ("se, equal epochs", "full")]
