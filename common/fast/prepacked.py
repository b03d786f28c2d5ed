"""Answering on a CPU: weights in the order in which a product of few rows reads them fastest.

A step of answering multiplies a few rows, one for each text, with every matrix of the model. PyTorch's usual product then
takes a third to half of its time to put the weights into the order that its kernels read. Here that is done once, by the
operators that `torch.compile` uses; the numbers are the same but for the order of additions.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from common.gpt2 import GPT2
from common.support.device import machine_memory

ROWS = 8  # for which the order is chosen; it serves others as well
SHARE = 0.1  # of the machine's memory that the ordered weights may take; larger models answer from the usual ones


Product = Callable[[Tensor, Tensor | None], Callable[[Tensor], Tensor]]  # (weight, bias) -> what computes with them


def linears_of(model: GPT2) -> list[nn.Linear]:
    """Its linear layers; those of other kinds (LoRA's) are left alone."""
    return [module for module in model.modules() if type(module) is nn.Linear]


def put_products(model: GPT2, product: Product) -> None:
    """From here on the linear layers, and the head, compute by `product`."""
    for linear in linears_of(model):
        vars(linear)["forward"] = product(linear.weight, linear.bias)
    if not hasattr(model, "lm_head"):  # tied; else the head is one of the layers
        vars(model)["logits"] = product(model.wte.weight, None)


@contextlib.contextmanager
def prepacked_weights(model: GPT2) -> Iterator[None]:
    """Within this context a model on the CPU computes with ordered copies of its matrices, in the precision of the autocast
    around it. Nothing changes on other devices, for large models, and in layers of other kinds (LoRA's)."""
    dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
    small = sum(p.numel() for p in model.parameters()) * dtype.itemsize <= SHARE * machine_memory()
    can = torch.backends.mkldnn.is_available() and (dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    replaced = any("forward" in vars(linear) for linear in linears_of(model))  # by int8.py
    if model.device.type != "cpu" or not small or not can or replaced:
        yield
        return

    def product(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
        """x [..., in] -> x weightᵀ + bias [..., out]."""
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype), ROWS)
        bias = None if bias is None else bias.detach().to(dtype)
        return lambda x: torch.ops.mkldnn._linear_pointwise(x.to(dtype), packed, bias, "none", [], "")

    try:
        put_products(model, product)
        yield
    finally:
        for linear in linears_of(model):  # the methods of their classes are there again
            vars(linear).pop("forward", None)
        vars(model).pop("logits", None)
