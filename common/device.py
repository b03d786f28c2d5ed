"""Where to compute, and in which precision."""

import contextlib
import os
import time
from collections.abc import Callable

import torch
from torch import Tensor

from common.files import InputError
from common.gpt2 import GPT2

Loss = Callable[[GPT2, tuple[Tensor, ...]], tuple[Tensor, int]]  # -> the sum over all targets, and their number


def pick_device(name: str) -> torch.device:
    """`auto` takes CUDA where there is a GPU, and the CPU otherwise; Apple's MPS is taken when asked for by name.

    Raises:
        InputError: if the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch sees no CUDA GPU here; use --device auto or cpu.")
    if name == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device mps: PyTorch sees no Apple GPU here; use --device auto or cpu.")
    if name == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device(name)


def to_device(batch: tuple, device: torch.device) -> tuple:
    """Move the batch's tensors; leave its other members."""
    return tuple(part.to(device) if isinstance(part, Tensor) else part for part in batch)


def check_mps(model: GPT2, batch: tuple[Tensor, ...], loss: Loss) -> None:
    """Compare the first batch's loss on Apple's GPU with the CPU's. Some versions of PyTorch compute wrong ones there.

    Raises:
        InputError: if they differ by more than 1 %.
    """
    if model.device.type != "mps":
        return
    with torch.no_grad():
        on_gpu, count = loss(model, to_device(batch, model.device))
        on_cpu, _ = loss(model.cpu(), batch)
        model.to("mps")
    on_gpu, on_cpu = on_gpu.item() / max(count, 1), on_cpu.item() / max(count, 1)
    if not abs(on_gpu - on_cpu) <= 0.01 * on_cpu:
        raise InputError(f"--device mps: the first batch's loss is {on_gpu:.4f} on this GPU and {on_cpu:.4f} on the CPU; "
                         "use --device cpu, or another version of PyTorch.")


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """A context in which matrix products run in bfloat16 if `precision` is "bf16"; weights stay in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def pick_precision(name: str, model: GPT2, batch: tuple[Tensor, ...], loss: Loss) -> str:
    """Turn `auto` into "fp32" or "bf16".

    CUDA: bf16 if the GPU computes it natively (compute capability 8.0 or later). CPU: by a trial, the gradient of this
    batch computed both ways in turns; bf16 must be a fifth faster to be taken. MPS: fp32. The model is left unchanged.
    """
    device = model.device
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    if device.type == "mps":
        return "fp32"

    def seconds(precision: str) -> float:
        start = time.perf_counter()
        with autocast(device, precision):
            total, _ = loss(model, batch)
        total.backward()
        return time.perf_counter() - start

    with torch.random.fork_rng():
        # In turns, the first a warm-up; the smallest time is the one that other work on the machine disturbed least.
        times = [(seconds("fp32"), seconds("bf16")) for _ in range(4)][1:]
    fp32, bf16 = (min(column) for column in zip(*times))
    model.zero_grad(set_to_none=True)
    return "bf16" if bf16 * 1.2 < fp32 else "fp32"
