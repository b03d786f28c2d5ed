import math
from functools import partial

import pytest
import torch

from ch_instruct.collate import collate
from ch_instruct.encoding import Example
from ch_instruct.perplexity import response_perplexities
from common.training import Dataset


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
