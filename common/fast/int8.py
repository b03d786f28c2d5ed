"""Answering on a CPU with weights of 8 bits.

A step of answering reads every weight of the model once, so it takes as long as the memory needs for that. Here a row of a
matrix is kept as whole numbers from -127 to 127 and one scale: a quarter of the bytes. The inputs of a product become whole
numbers as well, anew each time (dynamic quantisation, by PyTorch's own kernels). Now and then a token differs
from fp32, or changes with the other texts of a batch, because all inputs of a product share one scale.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from common.fast.prepacked import put_products
from common.gpt2 import GPT2
from common.support.device import pick_precision
from common.support.files import InputError


def to_int8(model: GPT2) -> None:
    """From here on this model computes its products with weights of 8 bits. It can answer, not learn."""
    put_products(model, _product)


def _product(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """x [..., in] -> x weightᵀ + bias [..., out], float32."""
    weight = weight.detach().float()
    scales = (weight.abs().amax(dim=1) / 127).clamp(min=1e-8).double()  # [out]
    zeros = torch.zeros(len(scales), dtype=torch.long)  # 0 stays 0
    with warnings.catch_warnings():  # PyTorch 2.13 announces that it will take such tensors away some day
        warnings.filterwarnings("ignore", ".*quantized tensor creation")
        whole = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(whole, None if bias is None else bias.detach().float())
    # True: inputs in 7 bits, or sums of products overflow where a processor adds them up in 16 bits
    return lambda x: torch.ops.quantized.linear_dynamic(x, packed, True)


def precision_to_answer(name: str, model: GPT2) -> str:
    """What --precision comes to where a model only answers: "fp32" or "bf16"; with int8 its products are replaced.

    Raises:
        InputError: for int8 on a GPU, or where PyTorch has no such kernels.
    """
    if name != "int8":
        return pick_precision(name, model.device)[0]
    if model.device.type != "cpu":
        raise InputError(f"--precision int8 is for answering on a CPU, and this is {model.device}; use --device cpu, or "
                         "--precision auto.")
    if torch.backends.quantized.engine == "none" or not hasattr(torch, "quantize_per_channel"):
        raise InputError(f"--precision int8: PyTorch {torch.__version__} has no kernels for it here; use --precision auto.")
    to_int8(model)
    return "fp32"
