"""GPT-2, written out from leaf to root: attention, MLP, block, the whole.

The architecture of "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019):

- learned token and position embeddings, added
- blocks of LayerNorm -> attention -> add, LayerNorm -> MLP -> add ("pre-norm")
- GELU in its tanh form, biases everywhere except in the head
- the head is the token embedding again ("tied"), after one last LayerNorm

Parameters carry the names that public checkpoints use (`h.0.attn.c_attn.weight`). Loading only
transposes four matrices of each block (`pretrained.py`).

Letters in shape comments: B rows in the batch, T tokens in a row, D width (`n_embd`), H heads
(`n_head`), Dh = D / H width of a head, V entries in the vocabulary.

This is the plain form. For speed the same modules run with a *view* (`common/fast/views.py`), which
says where tokens stand and computes attention. At a first reading, `view` is None.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from common.fast.views import View


@dataclass(frozen=True)
class GPT2Config:
    """Sizes, by the names of Hugging Face's `config.json` (`dropout` is ours): those of `gpt2`."""

    vocab_size: int = 50257
    n_positions: int = 1024  # longest input in tokens
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None  # width inside the MLP; None means 4 * n_embd
    layer_norm_epsilon: float = 1e-5
    dropout: float = 0.0  # share of activations set to zero in training, 0 to 1

    def __post_init__(self):
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head}).")


class Attention(nn.Module):
    """Causal self-attention with several heads: each token gathers from itself and those before."""

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)  # W_q, W_k, W_v side by side
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.attn_dropout = nn.Dropout(config.dropout)
        self.resid_dropout = nn.Dropout(config.dropout)

    def heads(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values side by side [B, T, 3D] -> q, k, v, each [B, H, T, Dh]."""
        return tuple(x.unflatten(2, (self.n_head, -1)).transpose(1, 2) for x in qkv.chunk(3, dim=2))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q kᵀ/sqrt(Dh)) v, each token blind to later ones, [B, H, T, Dh] -> [B, T, D]."""
        scores = q @ k.transpose(2, 3) / math.sqrt(q.size(3))  # [B, H, T, T]: query, key
        later = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1)  # True above the diagonal
        weights = scores.masked_fill(later, -math.inf).softmax(dim=3)  # each row adds up to 1
        y = self.attn_dropout(weights) @ v  # [B, H, T, Dh]
        return y.transpose(1, 2).flatten(2)  # [B, T, D], the heads side by side again

    def forward(self, x: Tensor, view: "View | None" = None) -> Tensor:
        qkv = self.c_attn(x)  # [B, T, 3D]
        y = self.attend(*self.heads(qkv)) if view is None else view.attend(qkv, self)  # [B, T, D]
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
        x = F.gelu(self.c_fc(x), approximate="tanh")  # [..., inner]; GPT-2 learned with this form
        return self.dropout(self.c_proj(x))  # [..., D]


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, view: "View | None" = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), view)
        return x + self.mlp(self.ln_2(x))


class GPT2(nn.Module):
    """The whole model. `model(ids)` gives logits; `hidden_states` and `logits` are its two halves.

    The seam between the halves is public because chapters need it: plain fine-tuning runs the head
    only where there is a target, and SFTMix mixes hidden states before the head sees them.
    """

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)  # tokens
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)  # positions
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.apply(self._init_weights)

    def _init_weights(self, module: nn.Module) -> None:
        """Normal, deviation 0.02. Each block adds to x twice, so its `c_proj` start smaller."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, (Attention, MLP)):  # comes after the linear layers inside it
            nn.init.normal_(module.c_proj.weight, std=0.02 / math.sqrt(2 * self.config.n_layer))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.wte.weight.device

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """What the first block reads: the token's vector plus the position's, [B, T, D]."""
        return self.wte(ids) + self.wpe(positions)

    def hidden_states(self, ids: Tensor, view: "View | None" = None) -> Tensor:
        """Run everything but the head: token ids, int64 [B, T] -> float [B, T, D].

        Rows may be padded on the right: no token sees a later one, so padding changes nothing.

        Raises:
            ValueError: if a row is longer than `n_positions`.
        """
        T = ids.size(1) if view is None else view.length
        if T > (most := self.config.n_positions):
            raise ValueError(f"The input has {T} tokens; this model reads at most {most}.")
        positions = torch.arange(T, device=ids.device) if view is None else view.positions  # [T]
        x = self.drop(self.embed(ids, positions))  # [B, T, D]
        for block in self.h:
            x = block(x, view)
        return self.ln_f(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """The tied head: hidden states [..., D] -> a score for each vocabulary entry [..., V]."""
        return F.linear(hidden, self.wte.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids int64 [B, T] -> logits float [B, T, V]; those at t score the token at t + 1."""
        return self.logits(self.hidden_states(ids))
