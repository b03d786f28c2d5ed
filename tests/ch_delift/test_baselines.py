import math

import numpy as np
import pytest
import torch

from ch_delift import baselines
from ch_delift.baselines import gradient_scores, gradient_sketches, highest, random_subset
from ch_instruct.collate import collate
from ch_instruct.encoding import Example
from common.losses import next_token_loss

EXAMPLES = [Example([5, 6, 7, 8, 256], 2), Example([9, 1, 256], 1), Example([5, 6, 7, 9, 9, 256], 2)]


def test_random_subsets_depend_on_the_seed_alone():
    assert random_subset(100, 30, 1) == random_subset(100, 30, 1) != random_subset(100, 30, 2)
    assert len(set(random_subset(100, 100, 0))) == 100


def test_of_equal_scores_the_lower_number_comes_first():
    assert highest(np.array([1.0, 2.0, 2.0, 0.0]), 3) == [1, 2, 0]


def plain_gradient(model, example: Example) -> torch.Tensor:
    model.zero_grad()
    total, count = next_token_loss(model, collate([example]))
    (total / count).backward()
    flat = torch.cat([p.grad.flatten() for p in model.h.parameters() if p.dim() >= 2])
    model.zero_grad(set_to_none=True)
    return flat


@pytest.mark.slow
def test_sketches_keep_scalar_products(tiny_model, monkeypatch):
    """Exactly on average, so closely with many places."""
    monkeypatch.setattr(baselines, "SKETCH", 1 << 18)
    sketches = gradient_sketches(tiny_model, EXAMPLES)
    plain = torch.stack([plain_gradient(tiny_model, example) for example in EXAMPLES])
    np.testing.assert_allclose(sketches @ sketches.T, (plain @ plain.T).numpy(), rtol=0.1, atol=0.02 * (plain @ plain.T).max())


def test_a_sketch_is_a_sum_of_signed_gradients(tiny_model, monkeypatch):
    """With a single place, it is Σ ± g: no larger than the sum of sizes, and the same each time."""
    monkeypatch.setattr(baselines, "SKETCH", 1)
    first, again = gradient_sketches(tiny_model, EXAMPLES), gradient_sketches(tiny_model, EXAMPLES)
    assert first.shape == (3, 1) and np.array_equal(first, again)
    assert 0 < abs(first[0, 0]) <= plain_gradient(tiny_model, EXAMPLES[0]).abs().sum()


def test_scores_are_cosines_with_the_mean_direction():
    candidates = np.array([[1.0, 0.0], [0.0, 3.0], [-2.0, 0.0]])
    assert gradient_scores(candidates, np.array([[5.0, 0.0]])).tolist() == pytest.approx([1, 0, -1])
    both = gradient_scores(candidates, np.array([[9.0, 0.0], [0.0, 1.0]]))  # lengths of targets do not count
    assert both.tolist() == pytest.approx([math.sqrt(0.5), math.sqrt(0.5), -math.sqrt(0.5)])


def test_the_model_is_left_as_it_was(tiny_model):
    tiny_model.train()
    gradient_sketches(tiny_model, EXAMPLES[:1])
    assert tiny_model.training and all(p.grad is None for p in tiny_model.parameters())
