"""Where to compute, and in which precision."""

import contextlib
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from common.support import threads
from common.support.files import InputError

if TYPE_CHECKING:
    from common.gpt2 import GPT2

threads.watch()
BF16_UNITS = ("amx_bf16", "avx512_bf16", "bf16")  # what processors (x86 twice, ARM) call instructions that multiply bfloat16


def pick_device(name: str) -> torch.device:
    """`auto` takes CUDA where there is a GPU, and the CPU otherwise; Apple's MPS is taken when asked for by name.

    Raises:
        InputError: if the device is not there, or `torchrun` started more processes here than there are GPUs.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch sees no CUDA GPU here; use --device auto or cpu.")
    if name == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device mps: PyTorch sees no Apple GPU here; use --device auto or cpu.")
    if name == "cuda":
        place, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if place >= gpus:
            raise InputError(f"torchrun started process {place + 1} on a machine with {gpus} GPU{'s' * (gpus > 1)}; use "
                             f"--nproc-per-node {gpus}, or --device cpu.")
        # cuDNN's attention prepares itself anew for each shape, for milliseconds; here nearly every batch has its own.
        torch.backends.cuda.enable_cudnn_sdp(False)
        return torch.device("cuda", place)
    return torch.device(name)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on this device. Nobody waits for it: it goes to a GPU from memory that stays in its place ("pinned")."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def pick_precision(name: str, device: torch.device) -> tuple[str, str]:
    """Turn `auto` into "fp32" or "bf16", by what the hardware has instructions for; so one machine always decides alike.

    Returns:
        The precision, and the reason in a few words.
    """
    if name != "auto":
        return name, "as asked for"
    if device.type == "cuda":
        what, units = "GPU", torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == "cpu":
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # older PyTorch
        what, units = "processor", any(capabilities.get(unit) for unit in BF16_UNITS)
    else:
        return "fp32", "MPS"
    return ("bf16", f"this {what} multiplies bfloat16") if units else ("fp32", f"no bfloat16 units found in this {what}")


def machine_memory() -> float:
    """Bytes; infinity where the system cannot say (Windows)."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf


def peak_memory(device: torch.device) -> float:
    """The most bytes that this process has taken so far: of a CUDA GPU's memory, or else of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage still counts the memory of the process that started this one
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) * 1024
    if sys.platform == "win32":
        return math.nan
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def check_memory(needed: int, what: str, advice: str) -> None:
    """Refuse, before any work, what this machine's memory cannot hold.

    Args:
        needed: bytes.
        what: begins the sentence: "WHAT ... GB, and this machine has ... GB; ADVICE."

    Raises:
        InputError: if it is more than there is.
    """
    if needed > (memory := machine_memory()):
        raise InputError(f"{what} {needed / 1e9:,.0f} GB, and this machine has {memory / 1e9:,.0f} GB; {advice}.")


def check_mps(model: "GPT2", batch: tuple, loss: Callable) -> None:
    """Compare the first batch's loss on Apple's GPU with the CPU's. Some versions of PyTorch compute wrong ones there.

    Raises:
        InputError: if they differ by more than 1 %.
    """
    if model.device.type != "mps":
        return
    with torch.no_grad():
        sum_on_gpu, count = loss(model, batch)
        sum_on_cpu, _ = loss(model.cpu(), batch)
        model.to("mps")
    on_gpu, on_cpu = sum_on_gpu.item() / max(count, 1), sum_on_cpu.item() / max(count, 1)
    if not abs(on_gpu - on_cpu) <= 0.01 * on_cpu:
        raise InputError(f"--device mps: the first batch's loss is {on_gpu:.4f} on this GPU and {on_cpu:.4f} on the CPU; "
                         "use --device cpu, or another version of PyTorch.")


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """A context in which matrix products run in bfloat16 if `precision` is "bf16"; weights stay in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@contextlib.contextmanager
def evaluating(model: nn.Module, precision: str = "fp32") -> Iterator[None]:
    """Within this context the model only computes: no dropout, no gradients. Afterwards it is as it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), autocast(next(model.parameters()).device, precision):
            yield
    finally:
        model.train(was_training)
