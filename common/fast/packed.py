"""A view for training on a GPU: the same shapes from step to step, so that blocks can be compiled, and captured in CUDA graphs.

`Unpadded` leaves padding out, too, but each step has another number of tokens, and attention pads them again. Here tokens are
filled up to one of few numbers, and `flex_attention` computes attention among the tokens of each row alone. What depends on
lengths is made on the CPU, where batches come from, so a step never waits for the GPU.

Its numbers are tested on the CPU. **Its speed is not measured**: `python ch_instruct/lab/gpu.py` does that, where there is a
CUDA GPU. Until somebody has run it, nothing else uses this file. If it is faster, a line in two places makes it the rule on a
GPU: `losses.states_for` calls `run_packed` (without a cache, and without dropout), and `training.fit` begins with
`compile_blocks`. Without the second, `flex_attention` computes all N² scores. (Tried with PyTorch 2.13 only.)
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from common.fast.views import Unpadded, run
from common.gpt2 import GPT2, Attention
from common.support.device import send

PART = 128  # queries, and keys, in one part of the scores: flex_attention's own default
SHAPES = 64  # so many numbers of tokens may be compiled; PyTorch's default is 8


def filled(n: int) -> int:
    """What n tokens are filled up to: a multiple of 256, and one of at most four numbers between two powers of two."""
    step = max(2 * PART, 2 ** (n.bit_length() - 3))
    return max(-(-n // step), 1) * step


class Packed(Unpadded):
    """The needed positions of all rows, one behind the other, filled up to N = `filled(n)` tokens by a row that nobody needs.

    Args:
        needed: bool [B, T], on the CPU, as for `Unpadded`.
    """

    def __init__(self, needed: Tensor, device: torch.device):
        self.B, self.T = needed.shape
        self.length, self.cache = self.T, None
        rows, columns = needed.nonzero(as_tuple=True)  # [n] each
        self.count = len(rows)
        fill = (0, filled(self.count) - self.count)
        rows_here = F.pad(rows, fill, value=self.B)  # [N]; it never falls
        self.places, self.positions, row = send(
            torch.stack([F.pad(rows * self.T + columns, fill), F.pad(columns, fill), rows_here]), device)  # [N] each

        def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (row[query] == row[key]) & (key <= query)

        self.blocks = block_mask(rows_here, sees, device)

    def unpack(self, x: Tensor) -> Tensor:
        """[N, C] -> [B, T, C], zeros at the positions that are not needed."""
        flat = x.new_zeros(self.B * self.T, x.size(1))
        return flat.index_copy(0, self.places[:self.count], x[:self.count]).view(self.B, self.T, -1)

    def attend(self, qkv: Tensor, attention: Attention) -> Tensor:
        """As `Attention.attend`, among the tokens of a row: [N, 3D] -> [N, D]."""
        if attention.training and attention.attn_dropout.p:
            raise ValueError("flex_attention has no dropout; train with dropout 0, or without `Packed`.")
        q, k, v = attention.heads(qkv[None])  # each [1, H, N, Dh]; Llama's k and v have fewer heads
        y = flex_attention(q, k, v, block_mask=self.blocks, enable_gqa=k.size(1) < q.size(1))
        return y[0].transpose(0, 1).flatten(1)  # [N, D]


def block_mask(rows: Tensor, sees: Callable[..., Tensor], device: torch.device) -> BlockMask:
    """Which parts of the scores [N, N] are computed, and where `sees` is asked. (`create_block_mask` asks it N² times.)

    Args:
        rows: int64 [N], on the CPU, the row that each token belongs to; it never falls.
        sees: flex_attention's `mask_mod`.
    """
    parts = rows.view(-1, PART)
    first, last = parts[:, 0], parts[:, -1]  # the rows of the first and the last token in each part, [N / PART]
    whole = (first == last[:, None]).tril(-1)  # [queries, keys]: all tokens are of one row, the keys earlier
    some = (last >= first[:, None]).tril() & ~whole  # they share a row, at least

    def table(chosen: Tensor) -> tuple[Tensor, Tensor]:
        """How many parts are chosen, int32 [1, 1, N / PART], and all parts, these first, int32 [1, 1, N / PART, N / PART]."""
        order = chosen.int().argsort(dim=1, descending=True, stable=True)
        return send(chosen.sum(1).int()[None, None], device), send(order.int()[None, None], device)

    return BlockMask((len(rows), len(rows)), *table(some), *table(whole), *table(some.T), *table(whole.T),
                     BLOCK_SIZE=(PART, PART), mask_mod=sees)


def run_packed(model: GPT2, ids: Tensor, needed: Tensor) -> Tensor:
    """As `views.run` without a cache: states float [B, T, D], zeros at positions that are not needed."""
    if needed.all():  # rows of equal length: their shapes are the same anyhow, and "causal" is enough
        return run(model, ids)
    model.wte.sparse = False
    view = Packed(needed, ids.device)
    return view.unpack(model.hidden_states(view.pack(ids), view))


def compile_blocks(model: GPT2, **how: str) -> None:
    """Let PyTorch write kernels for a block: once for all blocks, for each number of tokens. how: as for `torch.compile`."""
    torch._dynamo.config.recompile_limit = SHAPES
    for block in model.h:
        block.compile(fullgraph=True, dynamic=False, **how)
