import numpy as np
import pytest
import torch

from common.embedding import cosine, mean_hidden_states, nearest

TEXTS = [[5, 6, 7], [9], [3] * 20, [1, 2, 3, 4], [250, 4]]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_means_are_those_of_each_text_alone(tiny_model, batch_size):
    found = mean_hidden_states(tiny_model, TEXTS, batch_size=batch_size)
    assert found.dtype == np.float32 and found.shape == (5, 32)
    for ids, vector in zip(TEXTS, found):
        with torch.no_grad():
            alone = tiny_model.hidden_states(torch.tensor([ids]))[0].mean(dim=0)
        np.testing.assert_allclose(vector, alone, atol=1e-5)


def test_later_tokens_can_count_more(tiny_model):
    found = mean_hidden_states(tiny_model, TEXTS, batch_size=2, later_more=True)
    for ids, vector in zip(TEXTS, found):
        with torch.no_grad():
            states = tiny_model.hidden_states(torch.tensor([ids]))[0]
        alone = sum(t * state for t, state in enumerate(states, 1)) / sum(range(1, len(ids) + 1))
        np.testing.assert_allclose(vector, alone, atol=1e-5)


def test_of_a_long_text_the_beginning_is_read(tiny_model):
    ids = list(range(100))
    np.testing.assert_allclose(mean_hidden_states(tiny_model, [ids]), mean_hidden_states(tiny_model, [ids[:64]]))


def test_cosine_by_hand():
    b = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, -2.0]])  # its mean is 0
    np.testing.assert_allclose(cosine(b, b)[0], [1, 0, -1 / np.sqrt(5)], atol=1e-6)
    np.testing.assert_allclose(cosine(b + 3, b + 3), cosine(b, b), atol=1e-6)  # the mean does not matter


def test_nearest_are_the_largest_cosines():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(7, 5)), generator.normal(size=(30, 5))
    ids, cosines = nearest(a, b, 6, rows_at_once=3)
    whole = cosine(a, b)
    assert ids.shape == cosines.shape == (7, 6)
    np.testing.assert_array_equal(ids, np.argsort(-whole, axis=1)[:, :6])
    np.testing.assert_allclose(cosines, np.take_along_axis(whole, ids, axis=1), atol=1e-6)
    b[20] = b[3]
    assert {*nearest(b, b, 2)[0][3].tolist()} == {3, 20}  # equal ones in any order
    few = nearest(a, b[:4], 6)  # of fewer rows than asked for, all
    assert [part.shape for part in few] == [(7, 4), (7, 4)] and (few[0] == nearest(a, b[:4], 4)[0]).all()
