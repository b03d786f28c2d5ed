import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ch_instruct.collate import Example, collate
from ch_sftmix.confidence import confidence, negative_loss, random_split, response_perplexities, split
from common.training import Dataset


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


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_perplexities_are_those_of_the_response_alone(tiny_model, batch_size):
    examples = [Example([5, 6, 7, 8, 9, 256], 3), Example([1, 2, 256], 1), Example([3] * 20 + [4, 256], 20),
                Example([9, 256], 1)]
    data = Dataset(examples, partial(collate, pad_id=0), lambda e: len(e.ids))
    found = response_perplexities(tiny_model, data, batch_size, "fp32")
    for (ids, prompt_length, _), perplexity in zip(examples, found.tolist()):
        with torch.no_grad():
            log_p = tiny_model(torch.tensor([ids])).log_softmax(-1)[0]
        of_response = [log_p[t - 1, ids[t]].item() for t in range(prompt_length, len(ids))]
        assert perplexity == pytest.approx(math.exp(-sum(of_response) / len(of_response)), rel=1e-5)


def test_asking_for_perplexities_leaves_training_as_it_was(tiny_model):
    tiny_model.train()
    before = torch.get_rng_state()
    response_perplexities(tiny_model, Dataset([Example([1, 2, 3], 1)], collate, lambda e: 3), 2, "fp32")
    assert tiny_model.training and torch.equal(torch.get_rng_state(), before)
