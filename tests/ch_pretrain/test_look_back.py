import re

import pytest
import torch

from ch_pretrain.look_back import copy_losses
from common.pretrained import load_pretrained, save_pretrained
from tests.conftest import make_model, run_command


class Copier(torch.nn.Module):
    """Says at each place what stood one list ago; in the first list, anything."""

    device = torch.device("cpu")

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        length = ids.size(1) // 2  # of a list; the row is end-of-text and two lists, without the last token
        logits = torch.zeros(1, ids.size(1), 257)
        logits[0, torch.arange(length, ids.size(1)), ids[0, 1:ids.size(1) - length + 1]] = 50
        return logits


def test_a_perfect_copier_loses_nothing_the_second_time(tokenizer):
    first, second = copy_losses(Copier(), tokenizer)
    assert first == pytest.approx(torch.log(torch.tensor(257.0)).item(), abs=0.01) and second < 1e-3


def test_the_shipped_base_copies():
    """Measured: see the chapter's README."""
    first, second = copy_losses(*load_pretrained("classroom"))
    assert second < 0.25 * first


def test_command(tmp_path, tokenizer):
    save_pretrained(make_model(n_positions=700, n_embd=8, n_layer=1, n_head=1), tokenizer, tmp_path / "tiny")
    told = run_command("ch_pretrain/look_back.py", "--models", "tiny", folder=tmp_path).stdout
    assert re.search(r"tiny +\d\.\d\d +\d\.\d\d +\d+%", told)
