import numpy as np
import pytest
import torch

from ch_delift.lab import less
from ch_instruct.encoding import Example
from common.lora import add_lora, lora_layers, trained_parameters

EXAMPLES = [Example([5, 6, 7, 8, 256], 2), Example([9, 1, 256], 1), Example([5, 6, 7, 9, 9, 256], 2),
            Example([40, 41, 42, 43, 256], 2)]


def test_adams_direction_is_the_step_that_adam_takes():
    """With the gradient in question, at a rate of 1 and without decay, AdamW moves by exactly that."""
    p = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    optimizer = torch.optim.AdamW([p], lr=1.0, betas=(0.9, 0.95), weight_decay=0.0)
    for gradient in ([0.1, 0.2, -0.3], [0.5, -0.1, 0.2]):
        p.grad = torch.tensor(gradient)
        optimizer.step()
    before, gradient = p.detach().clone(), torch.tensor([-0.4, 0.3, 0.1])
    found = less.adam_direction(optimizer, [p], [gradient])
    p.grad = gradient
    optimizer.step()
    torch.testing.assert_close(found, before - p.detach(), atol=1e-6, rtol=1e-5)


def test_gradients_are_those_of_the_updates(tiny_model):
    add_lora(tiny_model, 2)
    found = less.gradients(tiny_model, EXAMPLES[0])
    assert [g.shape for g in found] == [p.shape for p in trained_parameters(tiny_model).values()]
    assert any(g.abs().sum() > 0 for g in found)


@pytest.mark.slow
def test_what_is_wanted_itself_scores_high_and_the_model_is_left_as_it_was(tiny_model, tokenizer):
    before = {name: p.clone() for name, p in tiny_model.state_dict().items()}
    candidates = [*EXAMPLES, *[Example([90 + i, 91, 92, 93 + i, 256], 2) for i in range(8)]]
    scores = less.less_scores(tiny_model, tokenizer, candidates, [[EXAMPLES[0]], [EXAMPLES[1]]], 0)
    assert scores.shape == (12,) and np.isfinite(scores).all()
    assert min(scores[:2]) > np.median(scores[4:])
    after = tiny_model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], p) for name, p in before.items())
    assert not lora_layers(tiny_model) and all(p.requires_grad for p in tiny_model.parameters())


@pytest.mark.slow
def test_the_best_task_counts(tiny_model, tokenizer):
    one, other = ([[EXAMPLES[0]]], [[EXAMPLES[1]]])
    scores = [less.less_scores(tiny_model, tokenizer, EXAMPLES, tasks, 0) for tasks in (one, other, one + other)]
    assert scores[2] == pytest.approx(np.maximum(scores[0], scores[1]))
