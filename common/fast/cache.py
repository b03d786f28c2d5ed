"""Keys and values of all tokens read so far, so that each new token costs one step instead of a whole pass."""

from torch import Tensor, nn


class KVCache:
    """Memory for `max_length` tokens is taken once; `length` tokens of it are in use."""

    def __init__(self, max_length: int):
        self.max_length = max_length
        self.length = 0
        self.layers: dict[nn.Module, tuple[Tensor, ...]] = {}  # by attention: keys and values, [B, H, max_length, Dh]

    def append(self, layer: nn.Module, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put k and v [B, H, T, Dh] behind the S cached ones; return all of them [B, H, S+T, Dh]."""
        if layer not in self.layers:
            B, H, _, Dh = k.shape
            self.layers[layer] = k.new_empty(B, H, self.max_length, Dh), v.new_empty(B, H, self.max_length, Dh)
        end = self.length + k.size(2)
        keys, values = self.layers[layer]
        keys[:, :, self.length:end] = k
        values[:, :, self.length:end] = v
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, tokens: int) -> None:
        """So many tokens have been appended in every layer."""
        self.length += tokens
