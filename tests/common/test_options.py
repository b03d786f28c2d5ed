import argparse
from dataclasses import fields

import pytest

from ch_instruct.pipeline import FineTuning
from common.files import InputError
from common.options import default_lr, natural, not_negative, positive, share, whole


def test_lora_takes_larger_steps():
    assert default_lr(lora=True) == pytest.approx(10 * default_lr())


@pytest.mark.parametrize(("kind", "allowed", "refused"), [
    (whole, {"1": 1, "20": 20}, ["0", "-1", "1.5", "one", ""]),
    (natural, {"0": 0, "7": 7}, ["-1", "0.5", "nan"]),
    (positive, {"0.001": 0.001, "3": 3.0}, ["0", "-1", "inf", "nan", "x"]),
    (not_negative, {"0": 0.0, "2.5": 2.5}, ["-0.1", "inf", "nan"]),
    (share, {"0": 0.0, "0.5": 0.5, "1": 1.0}, ["-0.1", "1.1", "nan"])])
def test_numbers_have_their_limits(kind, allowed, refused):
    for text, value in allowed.items():
        assert kind(text) == value
    for text in refused:
        with pytest.raises(argparse.ArgumentTypeError, match="is not allowed, it must be a"):
            kind(text)


@pytest.mark.parametrize(("name", "value", "words"), [
    ("epochs", 0, "--epochs: '0' is not allowed, it must be a whole number from 1 up"),
    ("dropout", 1.5, "--dropout: '1.5' is not allowed, it must be a share between 0 and 1"),
    ("batch_size", 2.5, "--batch-size: '2.5' is not allowed"),
    ("device", "tpu", "--device: 'tpu' is not allowed, choose from auto")])
def test_values_from_a_notebook_are_checked_like_those_of_the_command_line(name, value, words):
    with pytest.raises(InputError, match=words):
        FineTuning(**{name: value})


def test_defaults_need_no_check():
    assert all(getattr(FineTuning(), part.name) == part.default for part in fields(FineTuning))
