import pytest
import torch

from ch_sftmix.lab.calibration import calibration_error, reliability, token_predictions
from common.losses import IGNORE_INDEX
from tests.common.test_training import dataset

SURE, RIGHT = torch.tensor([0.95, 0.3, 0.85]), torch.tensor([True, True, False])


def test_predictions_are_sorted_into_bins_of_equal_width():
    """Five bins: 0.3 is in (0.2, 0.4], 0.95 and 0.85 are in (0.8, 1]. Each row: how many, sum of probabilities, right ones."""
    expected = torch.tensor([[0, 0, 0], [1, 0.3, 1], [0, 0, 0], [0, 0, 0], [2, 1.8, 1]], dtype=torch.float64)
    torch.testing.assert_close(reliability(SURE, RIGHT, bins=5), expected, atol=1e-6, rtol=0)


def test_a_bin_holds_its_upper_edge():
    edges = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    assert reliability(edges, edges > 0, bins=4)[:, 0].tolist() == [2, 1, 1, 1]


def test_calibration_error_by_hand():
    """(1/3) |1 - 0.3| + (2/3) |1/2 - 0.9| = (0.7 + 0.8) / 3. Over-sure and not sure enough do not cancel between bins."""
    assert calibration_error(reliability(SURE, RIGHT, bins=5)) == pytest.approx(1.5 / 3)
    assert calibration_error(reliability(torch.tensor([0.5, 0.5]), torch.tensor([True, False]))) == 0


def test_bins_of_several_tests_add_up():
    together = reliability(torch.cat([SURE, SURE.flip(0)]), torch.cat([RIGHT, RIGHT.flip(0)]))
    torch.testing.assert_close(reliability(SURE, RIGHT) + reliability(SURE.flip(0), RIGHT.flip(0)), together)


def test_predictions_are_those_of_the_whole_model_at_each_target(tiny_model):
    data = dataset(7, 3)
    sure, right = token_predictions(tiny_model, data, 3, "fp32")
    inputs, targets = data.collate(list(data.items))
    has_target = targets != IGNORE_INDEX
    p, token = tiny_model(inputs).softmax(dim=-1).max(dim=-1)
    torch.testing.assert_close(sure, p[has_target])
    assert torch.equal(right, (token == targets)[has_target])
    assert len(sure) == sum(example.response_tokens for example in data.items)
