import re

import pytest
import torch

from ch_pretrain.lab.look_back import add_look, copy_losses, losses_of_copies, place_losses, read_looks, written_twice
from common.gpt2 import GPT2Config
from common.pretrained import load_pretrained, save_pretrained
from common.support.files import InputError
from tests.conftest import run_here
from tests.models import make_model


class Copier(torch.nn.Module):
    """Says at each place what stood one list ago; in the first list, anything."""

    device = torch.device("cpu")
    config = GPT2Config(n_positions=700)

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        length = ids.size(1) // 2  # of a list; the row is end-of-text and two lists, without the last token
        logits = torch.zeros(1, ids.size(1), 257)
        logits[0, torch.arange(length, ids.size(1)), ids[0, 1:ids.size(1) - length + 1]] = 50
        return logits


def test_a_perfect_copier_loses_nothing_the_second_time(tokenizer):
    first, second = copy_losses(Copier(), tokenizer)
    assert first == pytest.approx(torch.log(torch.tensor(257.0)).item(), abs=0.01) and second < 1e-3


@pytest.mark.slow
def test_the_shipped_base_copies():
    """Measured: see the chapter's README."""
    first, second = copy_losses(*load_pretrained("classroom"))
    assert second < 0.25 * first


def test_rows_are_a_list_and_the_same_again(tokenizer):
    rows = written_twice(tokenizer, 700)
    assert len({row.numel() for row in rows}) > 1  # lists of so many words differ in tokens
    for row in rows:
        first, second = row[1:].view(2, -1)
        assert row[0] == tokenizer.eot_id and torch.equal(first, second) and tokenizer.decode(first.tolist()).count(" ") == 30
    assert {row.numel() for row in written_twice(tokenizer, 64)} == {63}  # cut: twice 31 tokens fit
    assert not torch.equal(written_twice(tokenizer, 64, seed=1)[0], written_twice(tokenizer, 64)[0])


def test_the_first_copys_loss_is_known_by_hand_and_places_are_means(tokenizer):
    short, long = (torch.tensor([256, *ids, *ids]) for ids in ([3, 4], [5, 6, 7]))
    one, two = losses_of_copies(Copier(), short), losses_of_copies(Copier(), long)
    assert one.shape == (2, 2) and two.shape == (2, 3)
    torch.testing.assert_close(one[0], torch.full((2,), 257.0).log())
    torch.testing.assert_close(place_losses(Copier(), [short, long]), (one + two[:, :2]) / 2)


@pytest.mark.slow
def test_a_step_done_again_replaces_its_row_and_later_ones(tmp_path, tokenizer, tiny_model):
    path = tmp_path / "looking_back.csv"
    tiny_model.train()
    for step, tokens in ((5, 320), (10, 640), (15, 960), (10, 641)):
        add_look(path, tiny_model, tokenizer, step, tokens)
    assert tiny_model.training
    looks = read_looks(path)
    assert [(row["step"], row["tokens"]) for row in looks] == [(5, 320), (10, 641)]
    first, second = copy_losses(tiny_model.eval(), tokenizer)
    assert looks[1]["first_copy"] == pytest.approx(first, abs=1e-4) == looks[0]["first_copy"]
    assert looks[1]["second_copy"] == pytest.approx(second, abs=1e-4) and 0 < looks[1]["induction"] < 1
    assert path.read_text().splitlines()[0] == "step,tokens,first_copy,second_copy,induction"


@pytest.mark.slow
@pytest.mark.parametrize("text", ["x,y\n1\n", *("step,tokens,first_copy,second_copy,induction\n1," + value + ",3,2,0.5\n"
                                                for value in ("nan", "-5", "inf", "", "9" * 400))])
def test_a_damaged_curve_is_refused(text, tmp_path, tokenizer, tiny_model):
    path = tmp_path / "looking_back.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"looking_back.csv is no curve of looking back .*; move it away"):
        add_look(path, tiny_model, tokenizer, 1, 2)
    assert path.read_text() == text


@pytest.mark.slow
def test_command(tmp_path, tokenizer):
    save_pretrained(make_model(n_positions=700, n_embd=8, n_layer=1, n_head=1), tokenizer, tmp_path / "tiny")
    told = run_here("ch_pretrain/lab/look_back.py", "--models", "tiny", folder=tmp_path).stdout
    assert re.search(r"tiny +\d\.\d\d +\d\.\d\d +\d+% +\d+% \(layer 0, head 0\)", told)
