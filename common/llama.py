"""Llama, and what has changed since GPT-2. Read `gpt2.py` first: what is the same stands there.

    part       GPT-2 (2019)       here                     why, and since which paper
    norm       LayerNorm          RMSNorm                  as good without taking the mean off
                                                           (Zhang and Sennrich, 2019)
    positions  a learned vector,  rotary: queries and      q·k depends on how far two tokens are
               added once         keys are turned          apart, on no table (Su et al., 2021)
    MLP        GELU               SwiGLU: gate * value     a lower loss, same size (Shazeer, 2020)
    attention  H heads of keys    fewer: each serves a     a smaller cache, so faster answers
               and values         group of queries (GQA)   (Ainslie et al., 2023)
    biases     in every layer     none (Qwen2: q, k, v)    more stable (Chowdhery et al., 2022)
    head       the embedding      that, or its own matrix  when large, it can afford one (Llama:
                                                           Touvron et al., 2023)

GPT-2's classes are the parents; only their parts are built anew (`nn.Module.__init__`). Parts keep
GPT-2's names (`c_attn`: q, k and v side by side; `c_fc`: gate and value), so LoRA, the fast ways
and all chapters serve both models. Letters as in `gpt2.py`, and: G heads of keys and of values.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.fast.views import View
from common.gpt2 import GPT2, MLP, Attention, Block, GPT2Config


@dataclass(frozen=True)
class LlamaConfig(GPT2Config):
    """Sizes of a model, by GPT-2's names; here those of SmolLM2-135M."""

    vocab_size: int = 49152
    n_positions: int = 8192
    n_embd: int = 576
    n_layer: int = 30
    n_head: int = 9
    n_inner: int = 1536
    n_kv_head: int = 3  # G; n_head is a multiple of it
    rope_theta: float = 100_000.0  # the base of the angles: a larger one suits longer texts
    tied: bool = True  # whether the head is the token embedding
    qkv_bias: bool = False  # as Qwen2 has it


class RMSNorm(nn.LayerNorm):
    """x / sqrt(mean(x²) + ε), times a learned gain for each of the D numbers; no bias."""

    def __init__(self, config: LlamaConfig):
        super().__init__(config.n_embd, eps=config.layer_norm_epsilon, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.float().square().mean(dim=-1, keepdim=True) + self.eps)  # [..., 1]
        return self.weight * (x * scale).to(x.dtype)


class Rotary(nn.Module):
    """Turns queries and keys, so that q·k depends on how far apart the two tokens stand.

    Numbers i and i + Dh/2 of a head (the paper: neighbours) are a point in the plane, turned at
    position t by the angle t θ^(-2i / Dh). Two points turned alike keep their product.
    """

    table: Tensor  # made on the CPU, whatever is planned (`meta`): no file holds it

    def __init__(self, config: LlamaConfig):
        super().__init__()
        width = config.n_embd // config.n_head  # Dh
        speeds = 1 / config.rope_theta ** (torch.arange(0, width, 2, device="cpu") / width)
        angles = torch.arange(config.n_positions, device="cpu")[:, None] * speeds
        table = torch.stack([angles.cos(), angles.sin()])  # [2, n_positions, Dh/2]
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """x [..., heads, Dh] at positions [...] -> the same, turned."""
        cos, sin = self.table[:, positions].unsqueeze(-2)  # [..., 1, Dh/2] each
        a, b = x.chunk(2, dim=-1)  # [..., heads, Dh/2] each
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


class LlamaAttention(Attention):
    """Causal self-attention with turned queries and keys, and G heads of keys and values."""

    def __init__(self, config: LlamaConfig, rotary: Rotary):
        nn.Module.__init__(self)
        self.rotary, self.group = rotary, config.n_head // config.n_kv_head  # H / G
        self.width = config.n_embd // config.n_head  # Dh
        self.sizes = [self.width * n for n in (config.n_head, config.n_kv_head, config.n_kv_head)]
        self.c_attn = nn.Linear(config.n_embd, sum(self.sizes), bias=config.qkv_bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.attn_dropout, self.resid_dropout = (nn.Dropout(config.dropout) for _ in range(2))

    def turned(self, qkv: Tensor, positions: Tensor) -> Tensor:
        """qkv [..., (H + 2G) Dh] with queries and keys turned; positions [...]."""
        qk, v = qkv.split([sum(self.sizes[:2]), self.sizes[2]], dim=-1)
        qk = qk.unflatten(-1, (-1, self.width))  # [..., H + G, Dh]
        return torch.cat([self.rotary(qk, positions).flatten(-2), v], dim=-1)

    def heads(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """[B, T, (H + 2G) Dh] -> q [B, H, T, Dh]; k and v, [B, G, T, Dh] each."""
        return tuple(x.unflatten(2, (-1, self.width)).transpose(1, 2)
                     for x in qkv.split(self.sizes, dim=2))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As GPT-2, with each key and value head standing for all queries of its group."""
        k, v = (x.repeat_interleave(self.group, dim=1) for x in (k, v))
        return super().attend(q, k, v)

    def forward(self, x: Tensor, view: View | None = None) -> Tensor:
        positions = torch.arange(x.size(1), device=x.device) if view is None else view.positions
        qkv = self.turned(self.c_attn(x), positions)  # [B, T, (H + 2G) Dh]
        y = self.attend(*self.heads(qkv)) if view is None else view.attend(qkv, self)  # [B, T, D]
        return self.resid_dropout(self.c_proj(y))


class SwiGLU(MLP):
    """silu(gate) * value, both from x: each inner number has a gate of its own."""

    def __init__(self, config: LlamaConfig):
        nn.Module.__init__(self)
        self.c_fc = nn.Linear(config.n_embd, 2 * config.n_inner, bias=False)  # gate, value
        self.c_proj = nn.Linear(config.n_inner, config.n_embd, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.c_fc(x).chunk(2, dim=-1)  # [..., inner] each
        return self.dropout(self.c_proj(F.silu(gate) * value))  # silu(x) = x sigmoid(x)


class LlamaBlock(Block):
    """GPT-2's block with other parts: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: LlamaConfig, rotary: Rotary):
        nn.Module.__init__(self)
        self.ln_1, self.attn = RMSNorm(config), LlamaAttention(config, rotary)
        self.ln_2, self.mlp = RMSNorm(config), SwiGLU(config)


class Llama(GPT2):
    """The whole: GPT-2's, without a table of positions, and perhaps with a head of its own."""

    def __init__(self, config: LlamaConfig):
        nn.Module.__init__(self)
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        rotary = Rotary(config)  # one for all blocks
        self.h = nn.ModuleList(LlamaBlock(config, rotary) for _ in range(config.n_layer))
        self.ln_f = RMSNorm(config)
        if not config.tied:
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.apply(self._init_weights)

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """What the first block reads: the tokens' vectors alone, [B, T, D]."""
        return self.wte(ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """The head: hidden states [..., D] -> a score for each vocabulary entry [..., V]."""
        return self.lm_head(hidden) if hasattr(self, "lm_head") else super().logits(hidden)
