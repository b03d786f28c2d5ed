import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ch_sftmix.confidence import confidence, negative_loss, random_split, relative_confidence, split


def test_confidence_is_minus_the_mean_perplexity_over_checkpoints():
    perplexities = torch.tensor([[4.0, 2.0, 1.0], [2.0, 8.0, 1.0]])  # two checkpoints, three examples
    assert confidence(perplexities).tolist() == [-3.0, -5.0, -1.0]
    assert negative_loss(perplexities).tolist() == pytest.approx([-math.log(8) / 2, -math.log(16) / 2, 0.0])


def test_confidence_and_loss_can_disagree():
    """One bad checkpoint weighs more in a mean of perplexities than in a mean of their logarithms."""
    perplexities = torch.tensor([[9.0, 4.0], [1.0, 4.0]])
    assert split(confidence(perplexities)) == ([1], [0])
    assert split(negative_loss(perplexities)) == ([0], [1])


def test_split_cuts_at_the_median():
    assert split(torch.tensor([-5.0, -1.0, -3.0, -2.0])) == ([1, 3], [2, 0])


def test_ties_go_to_the_lower_id_and_the_middle_of_an_odd_number_is_confident():
    assert split(torch.tensor([-1.0, -1.0, -1.0, -1.0])) == ([0, 1], [2, 3])
    assert split(torch.tensor([-3.0, -1.0, -2.0])) == ([1, 2], [0])


@pytest.mark.slow
@given(st.lists(st.floats(-100, -1), min_size=1, max_size=40))
def test_every_example_is_in_one_half_and_the_halves_are_ordered(values):
    sure, unsure = split(torch.tensor(values, dtype=torch.float64))
    assert sorted(sure + unsure) == list(range(len(values)))
    assert len(sure) - len(unsure) in (0, 1)
    assert not unsure or min(values[i] for i in sure) >= max(values[i] for i in unsure)


def test_the_random_split_is_as_large_and_depends_on_the_seed():
    sure, unsure = random_split(101, 0)
    assert (len(sure), len(unsure)) == (51, 50) and sorted(sure + unsure) == list(range(101))
    assert random_split(101, 0) == (sure, unsure) != random_split(101, 1)


def test_relative_confidence_by_hand():
    """Two clouds of three: of the second all are unsure, and number 4 is less sure than the two nearest to it."""
    vectors = torch.tensor([[5.0, 0.1], [5.0, 0.2], [5.0, 0.3], [-5.0, 0.1], [-5.0, 0.2], [-5.0, 0.3]])
    sure = torch.tensor([-1.0, -1.2, -1.1, -8.0, -9.5, -8.0])
    found = relative_confidence(sure, vectors, neighbours=2)
    torch.testing.assert_close(found, torch.tensor([0.15, -0.15, 0.0, 0.75, -1.5, 0.75]), atol=1e-5, rtol=0)
    torch.testing.assert_close(relative_confidence(sure, vectors)[0], sure[0] - sure[1:].mean())  # of five others, all
