"""GPT-2, written out from leaf to root.

The architecture is that of "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019):

- learned token and position embeddings, added
- blocks of LayerNorm -> attention -> add, LayerNorm -> MLP -> add ("pre-norm")
- GELU in its tanh form, biases everywhere except in the head
- the head is the token embedding again ("tied"), after one last LayerNorm

Parameters carry the names that public checkpoints use (`h.0.attn.c_attn.weight`), so loading is
a renaming, with four matrices of each block transposed (`pretrained.py`).

Letters in shape comments: B rows in the batch, T tokens in a row, N tokens in all rows together without padding (B·T if
nothing is left out), S tokens already in the cache, D width (`n_embd`), H heads (`n_head`), Dh = D / H, V entries in the
vocabulary.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from common.support.device import send


@dataclass(frozen=True)
class GPT2Config:
    """Sizes of a model, under the names of Hugging Face's `config.json`. The defaults are those of `gpt2` (124M)."""

    vocab_size: int = 50257
    n_positions: int = 1024  # longest input in tokens
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None  # width inside the MLP; None means 4 * n_embd
    layer_norm_epsilon: float = 1e-5
    dropout: float = 0.0  # share of activations set to zero in training, 0 to 1

    @property
    def n_params(self) -> int:
        """How many numbers the model learns."""
        D, inner = self.n_embd, self.n_inner or 4 * self.n_embd
        per_layer = 4 * D * D + 2 * D * inner + 9 * D + inner  # the matrices of attention and MLP, and biases and gains
        return (self.vocab_size + self.n_positions) * D + self.n_layer * per_layer + 2 * D

    def __post_init__(self):
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head}).")


class KVCache:
    """Keys and values of all tokens seen so far, so that each new token costs one step instead of a whole pass.

    Memory for `max_length` tokens is taken once; `length` tokens of it are in use.
    """

    def __init__(self, max_length: int):
        self.max_length = max_length
        self.length = 0
        self.layers: list[tuple[Tensor, Tensor]] = []  # per layer: keys and values, each [B, H, max_length, Dh]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add k and v [B, H, T, Dh] behind the S cached ones; return all of them [B, H, S+T, Dh]."""
        if layer == len(self.layers):
            B, H, _, Dh = k.shape
            self.layers.append((k.new_empty(B, H, self.max_length, Dh), v.new_empty(B, H, self.max_length, Dh)))
        end = self.length + k.size(2)
        keys, values = self.layers[layer]
        keys[:, :, self.length:end] = k
        values[:, :, self.length:end] = v
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, tokens: int) -> None:
        """So many tokens have been appended in every layer."""
        self.length += tokens


class Packing:
    """Takes the positions of a padded batch that count out of it, one behind the other, and puts them back.

    Everything in a model but attention treats each position alone, so padding can be left out of it: with rows of unlike
    lengths that is a fifth to a third of the work.
    """

    def __init__(self, needed: Tensor, device: torch.device):
        """needed: bool [B, T]; on the CPU, finding where they are needs no waiting for a GPU."""
        self.B, self.T = needed.shape
        self.index = send(needed.flatten().nonzero().squeeze(1), device)  # [N], in the flat batch

    def pack(self, x: Tensor) -> Tensor:
        """[B, T, C] -> [N, C]."""
        return x.flatten(0, 1).index_select(0, self.index)

    def unpack(self, x: Tensor) -> Tensor:
        """[N, C] -> [B, T, C], zeros at the positions that were left out."""
        flat = x.new_zeros(self.B * self.T, x.size(1)).index_copy(0, self.index, x)
        return flat.view(self.B, self.T, -1)


@contextlib.contextmanager
def attention_in_fp32(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Within this context a training step on the CPU computes attention in float32, whatever the precision: its products are
    small, and in bfloat16 their backward pass takes three times as long."""
    if tensors[0].is_cpu and tensors[0].dtype == torch.bfloat16 and torch.is_grad_enabled():
        with torch.autocast("cpu", enabled=False):
            yield tuple(tensor.float() for tensor in tensors)
    else:
        yield tensors


class Attention(nn.Module):
    """Causal self-attention with several heads: softmax(q kᵀ / sqrt(Dh)) v, each token looking only backwards."""

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)  # queries, keys and values in one product
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None, cache: KVCache | None, layer: int, packing: Packing | None) -> Tensor:
        qkv = self.c_attn(x)  # [B, T, 3D], or packed [N, 3D]
        if packing is not None:
            qkv = packing.unpack(qkv)  # attention is the only part that needs to know which tokens make up a row
        B, T, D = qkv.size(0), qkv.size(1), x.size(-1)
        q, k, v = qkv.split(D, dim=2)  # each [B, T, D]
        q, k, v = (t.view(B, T, self.n_head, D // self.n_head).transpose(1, 2) for t in (q, k, v))  # [B, H, T, Dh]
        if cache is not None:
            k, v = cache.append(layer, k, v)  # [B, H, S+T, Dh]

        # Without a mask, "causal" is enough: either there is no cache (S = 0), or the one new token may see everything.
        with attention_in_fp32(q, k, v) as (q, k, v):
            y = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None and T > 1,
                dropout_p=self.dropout if self.training else 0.0)  # [B, H, T, Dh]
        y = y.transpose(1, 2).reshape(B, T, D)  # heads side by side again
        if packing is not None:
            y = packing.pack(y)  # [N, D]
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):
    """Two layers with a GELU between them, applied to each position alone."""

    def __init__(self, config: GPT2Config):
        super().__init__()
        inner = config.n_inner or 4 * config.n_embd
        self.c_fc = nn.Linear(config.n_embd, inner)
        self.c_proj = nn.Linear(inner, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.c_fc(x), approximate="tanh")  # [..., inner]; GPT-2 was trained with the tanh form
        return self.dropout(self.c_proj(x))  # [..., D]


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, mask: Tensor | None, cache: KVCache | None, layer: int, packing: Packing | None) -> Tensor:
        x = x + self.attn(self.ln_1(x), mask, cache, layer, packing)
        return x + self.mlp(self.ln_2(x))


class GPT2(nn.Module):
    """The whole model. `model(ids)` gives logits; `hidden_states` and `logits` are its two halves.

    The seam between the halves is public because chapters need it: plain fine-tuning runs the head only where there
    is a target, and SFTMix mixes hidden states before the head sees them.
    """

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.recompute = False  # in training, keep each block's input only, and compute the rest again on the way back
        self.apply(self._init_weights)

    def _init_weights(self, module: nn.Module) -> None:
        """GPT-2's start: N(0, 0.02); what is added to the residual stream is smaller, as there are 2 additions a layer."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, (Attention, MLP)):
            nn.init.normal_(module.c_proj.weight, std=0.02 / math.sqrt(2 * self.config.n_layer))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.wte.weight.device

    def hidden_states(self, ids: Tensor, cache: KVCache | None = None, padding: Tensor | None = None,
                      needed: Tensor | None = None) -> Tensor:
        """Run everything but the head.

        Args:
            ids: int64 [B, T], token ids. With right padding, nothing else is needed: no token looks ahead.
            cache: holds S earlier tokens; the T new ones are appended to it.
            padding: int64 [B], on the CPU, how many tokens at the left end of each row are padding. They are hidden from
                all others and do not count as positions.
            needed: bool [B, T], the positions whose states are wanted, and all that these look at; the others are left out
                of the computation. None: all.

        Returns:
            float [B, T, D], after the final LayerNorm; zeros at positions that were left out.

        Raises:
            ValueError: if S + T, padding aside, is more than `n_positions`.
        """
        T = ids.size(1)
        S = cache.length if cache is not None else 0
        longest = S + T - (0 if padding is None else int(padding.min()))
        if longest > self.config.n_positions:
            raise ValueError(f"The input has {longest} tokens; this model reads at most {self.config.n_positions}.")

        positions = torch.arange(S, S + T, device=ids.device)  # [T]
        if padding is not None:
            padding = send(padding, ids.device)
            positions = (positions - padding[:, None]).clamp(min=0)  # [B, T], the first real token has position 0
        # Only for speed. The gradient of this look-up is added to that of the head, which is the same matrix. Sparse: only
        # the rows that were looked up are touched. (On a GPU, making rows unique would mean waiting for it.)
        self.wte.sparse = ids.is_cpu
        x = self.wte(ids) + self.wpe(positions)  # [B, T, D]
        packing = None if needed is None or needed.all() else Packing(needed, ids.device)
        if packing is not None:
            x = packing.pack(x)  # [N, D]
        x = self.drop(x)

        mask = self._mask(S, T, padding, ids.device)
        for layer, block in enumerate(self.h):
            if self.recompute and self.training:
                x = checkpoint(block, x, mask, cache, layer, packing, use_reentrant=False)
            else:
                x = block(x, mask, cache, layer, packing)
        if cache is not None:
            cache.advance(T)
        x = self.ln_f(x)
        return x if packing is None else packing.unpack(x)

    @staticmethod
    def _mask(S: int, T: int, padding: Tensor | None, device: torch.device) -> Tensor | None:
        """True where a query may look at a key; None where plain causal attention does.

        Shape [T, S+T], or [B, 1, T, S+T] with padding.
        """
        if padding is None and (S == 0 or T == 1):
            return None
        keys = torch.arange(S + T, device=device)
        queries = keys[S:, None]  # [T, 1]
        mask = keys <= queries  # [T, S+T]
        if padding is not None:
            mask = mask & (keys >= padding[:, None, None])  # [B, T, S+T]
            mask = (mask | (keys == queries))[:, None]  # padding looks at itself: a softmax over nothing would be NaN
        return mask

    def logits(self, hidden: Tensor) -> Tensor:
        """The tied head: hidden states [..., D] -> scores for each vocabulary entry [..., V]."""
        return F.linear(hidden, self.wte.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids int64 [B, T] -> logits float [B, T, V]; row t scores the token at t + 1."""
        return self.logits(self.hidden_states(ids))
