"""What a GPU would do, on a machine without one: the model lies on PyTorch's "meta" device, which computes shapes only.

Batches are made on the CPU. A tensor that is left there, or a wait for a value in the middle of a step (`.item()`, boolean
indexing, `.tolist()`), is an error here as it is slow or wrong on a GPU.
"""

import contextlib

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ch_delift.fast.shared_prefix import SharedPrefix, distances, make_batches
from ch_instruct.collate import collate
from ch_sftmix.mixup import PairDataset, sftmix_loss
from common import training
from common.fast.answering import _Relay
from common.gpt2 import GPT2
from common.losses import next_token_loss
from common.sampling import GREEDY
from common.training import Dataset, TrainOptions, accumulate_gradients
from tests.common.test_training import ragged_examples
from tests.models import make_model

EXAMPLES = ragged_examples(8)
MOVES = ("aten._to_copy", "aten.copy_", "aten.index.Tensor", "aten.index_put_")  # may have indices on the CPU


class OnePlace(TorchDispatchMode):
    """Refuses every operation between tensors on different devices; "meta" lets some of them pass."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        places = {t.device.type for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t.dim()}
        if len(places) > 1 and not str(function).startswith(MOVES):
            raise RuntimeError(f"{function} between tensors on {places}")
        return function(*args, **kwargs or {})


@pytest.fixture
def elsewhere(monkeypatch) -> GPT2:
    """A model whose weights have a shape and a place, but no values."""
    monkeypatch.setattr(training, "autocast", lambda *_: contextlib.nullcontext())  # there is none on "meta"
    with OnePlace():
        yield make_model().to("meta")


@pytest.mark.slow
@pytest.mark.parametrize("chapter", ["plain", "mixup"])
def test_a_training_step(elsewhere, chapter):
    if chapter == "plain":
        data, loss = Dataset(EXAMPLES, collate, lambda e: len(e.ids) - 1), next_token_loss
    else:
        data, loss = PairDataset(EXAMPLES, ([0, 1, 2, 3], [4, 5, 6, 7]), 256, "response", 0.5, 0.2, seed=0), sftmix_loss
    options = TrainOptions(1, 2, 4, 1e-3, "fp32")
    total, targets = accumulate_gradients(elsewhere.train(), data, loss, list(data.items), options)
    assert total.is_meta and targets == sum(e.response_tokens for e in EXAMPLES)
    assert all(p.grad is not None and p.grad.is_meta for p in elsewhere.parameters())


def test_errors_are_seen(elsewhere):
    """The tests here would notice a tensor that stays behind, and a wait."""
    ids = torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(RuntimeError, match="between tensors on"):
        elsewhere(ids)
    with pytest.raises(RuntimeError, match="cannot be called on meta tensors"):
        elsewhere(ids.to("meta")).sum().item()


@pytest.mark.slow
def test_answers(elsewhere):
    """Filling a batch, going on, refilling it, and making it smaller."""
    relay = _Relay(elsewhere, [[1] * n for n in (3, 9, 5, 7, 2, 4)], max_new_tokens=8, eot_id=256, batch_size=3,
                   how=GREEDY, seed=0, known={}, ended=lambda number, text: None)
    with torch.no_grad():
        relay.read_beginnings()
        relay.fill(0, [(0, 1), (1, 3), (2, 2)])  # those of 9, 7 and 5 tokens
        relay.step()
        relay.rows[1] = None
        relay.fill(0, [(1, 5)])
        relay.rows[0] = None
        relay.step()
        relay.shrink()
        relay.step()
    assert relay.tokens.is_meta and relay.tokens.shape == (2,) and relay.rows == [5, 2]
    assert relay.cache.length == 9 + 3 and relay.starts.tolist() == [10 - 4, 9 - 5]


@pytest.mark.slow
def test_utilities(elsewhere):
    with torch.no_grad():
        prefix = SharedPrefix(elsewhere, [1, 2, 3])
        for batch in make_batches(EXAMPLES, range(8), [], 256, 100):
            assert distances(elsewhere, batch, prefix).is_meta
