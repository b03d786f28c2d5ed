"""Views: the same model on the same weights, with less work. `run` is `model.hidden_states`, fast.

A view says at which positions tokens stand, and computes attention for its layout:

- `View`: rows of equal length, behind a cache of earlier tokens (`cache.py`) or none, padded on the left or not. Attention by
  PyTorch's fused kernel, which never holds the table of weights [T, T].
- `Unpadded`: only the positions that count, of all rows one behind the other. Everything in a model but attention treats each
  position alone, so padding is left out there: with rows of unlike lengths that is a fifth to a third of the work.

Letters as in `gpt2.py`, and: S tokens already in the cache, N tokens in all rows together without padding.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from common.fast.cache import KVCache
from common.gpt2 import GPT2, Attention
from common.support.device import send


def places(chosen: Tensor, device: torch.device) -> Tensor:
    """Where `chosen`, bool [B, T], is true in the flat batch: int64 [N] on this device.

    With `chosen` on the CPU, where batches are made, a GPU need not be waited for to learn how many there are.
    """
    return send(chosen.flatten().nonzero().squeeze(1), device)


def take(x: Tensor, chosen: Tensor) -> Tensor:
    """The rows of x [B, T, ...] at `places`, int64 [N]: [N, ...], in order."""
    return x.flatten(0, 1).index_select(0, chosen)


class View:
    """How tokens are laid out in memory, and attention for that layout. This one: rows of T tokens each.

    Args:
        T: how many tokens each row has.
        cache: holds S earlier tokens of each row; the T new ones are appended to it.
        padding: int64 [B], on the CPU, how many tokens at the left end of each row are padding. They are hidden from all
            others and do not count as positions.
    """

    def __init__(self, T: int, device: torch.device, cache: KVCache | None = None, padding: Tensor | None = None):
        self.T, self.cache = T, cache
        S = cache.length if cache is not None else 0
        self.length = S + T - (0 if padding is None else int(padding.min()))  # of the longest row, padding aside
        self.positions = torch.arange(S, S + T, device=device)  # [T]
        if padding is not None:
            padding = send(padding, device)
            self.positions = (self.positions - padding[:, None]).clamp(min=0)  # [B, T], the first real token has position 0
        self.mask = self._mask(S, padding, device)

    def _mask(self, S: int, padding: Tensor | None, device: torch.device) -> Tensor | None:
        """True where a query may see a key, [T, S+T], or [B, 1, T, S+T] with padding; None where "causal" is enough."""
        if padding is None and (S == 0 or self.T == 1):
            return None
        keys = torch.arange(S + self.T, device=device)
        queries = keys[S:, None]  # [T, 1]
        mask = keys <= queries  # [T, S+T]
        if padding is not None:
            mask = mask & (keys >= padding[:, None, None])  # [B, T, S+T]
            mask = (mask | (keys == queries))[:, None]  # padding sees itself: a softmax over nothing would be NaN
        return mask

    def attend(self, qkv: Tensor, attention: Attention) -> Tensor:
        """As `Attention.attend`, over cached tokens, too: [B, T, 3D] -> [B, T, D]."""
        q, k, v = attention.heads(qkv)  # each [B, H, T, Dh]; Llama's k and v have fewer heads
        if self.cache is not None:
            k, v = self.cache.append(attention, k, v)  # [B, H, S+T, Dh]
        # On the CPU a training step computes attention in float32, whatever the precision: its products are small, and in
        # bfloat16 their backward pass takes three times as long.
        exact = q.is_cpu and q.dtype == torch.bfloat16 and torch.is_grad_enabled()
        with torch.autocast("cpu", enabled=False) if exact else nullcontext():
            q, k, v = (tensor.float() if exact else tensor for tensor in (q, k, v))
            # Without a mask, "causal" is enough: either S = 0, or the one new token may see everything.
            y = F.scaled_dot_product_attention(
                q, k, v, attn_mask=self.mask, is_causal=self.mask is None and self.T > 1,
                dropout_p=attention.attn_dropout.p if attention.training else 0.0,
                enable_gqa=k.size(1) < q.size(1))  # [B, H, T, Dh]
        return y.transpose(1, 2).flatten(2)  # [B, T, D]


class Unpadded(View):
    """Only the positions that are needed, of all rows one behind the other: [N, ...] instead of [B, T, ...].

    Args:
        needed: bool [B, T], on the CPU, the positions whose states are wanted, and all that these attend to.
    """

    def __init__(self, needed: Tensor, device: torch.device, cache: KVCache | None = None, padding: Tensor | None = None):
        B, T = needed.shape
        super().__init__(T, device, cache, padding)
        self.B, self.places = B, places(needed, device)
        self.positions = self.pack(self.positions.expand(B, T))  # [N]

    def pack(self, x: Tensor) -> Tensor:
        """[B, T, ...] -> [N, ...]."""
        return take(x, self.places)

    def unpack(self, x: Tensor) -> Tensor:
        """[N, C] -> [B, T, C], zeros at the positions that are not needed."""
        flat = x.new_zeros(self.B * self.T, x.size(1)).index_copy(0, self.places, x)
        return flat.view(self.B, self.T, -1)

    def attend(self, qkv: Tensor, attention: Attention) -> Tensor:
        """Rows for attention, which alone needs to know which tokens make one: [N, 3D] -> [N, D]."""
        return self.pack(super().attend(self.unpack(qkv), attention))


def run(model: GPT2, ids: Tensor, cache: KVCache | None = None, padding: Tensor | None = None,
        needed: Tensor | None = None) -> Tensor:
    """`model.hidden_states(ids)`, fast: states float [B, T, D], zeros at positions that are not needed.

    Args:
        ids: int64 [B, T], token ids.
        cache, padding: as for `View`. The cache is T tokens longer afterwards.
        needed: as for `Unpadded`; None: all.

    Raises:
        ValueError: if S + T, padding aside, is more than `n_positions`.
    """
    # The gradient of the look-up is added to that of a tied head, which is the same matrix. Sparse: only the rows that were
    # looked up are touched. (On a GPU, making rows unique would mean waiting for it.)
    model.wte.sparse = ids.is_cpu and not hasattr(model, "lm_head")
    if needed is None or needed.all():
        states = model.hidden_states(ids, View(ids.size(1), ids.device, cache, padding))
    else:
        view = Unpadded(needed, ids.device, cache, padding)
        states = view.unpack(model.hidden_states(view.pack(ids), view))
    if cache is not None:
        cache.advance(ids.size(1))
    return states


def recompute_blocks(model: GPT2) -> None:
    """From now on keep each block's input only while training, and compute the rest again on the way back: a third more work,
    far less memory for long texts and large models. Changes no number."""
    for block in model.h:
        forward = type(block).forward.__get__(block)
        vars(block)["forward"] = lambda x, view=None, forward=forward: (
            checkpoint(forward, x, view, use_reentrant=False) if torch.is_grad_enabled() else forward(x, view))
