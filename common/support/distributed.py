"""Several processes under `torchrun`, or one. With one, every function here does nothing, or gives back what it was given.

There is no wrapper around the model. Each process (rank) computes the gradients of its share of a batch, then all
add them up. As losses are sums, the total is what one process would have computed.
"""

import os
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from common.support import options
from common.support.console import rank  # it stands there because commands that do not compute need no PyTorch

Value = TypeVar("Value")


def start(device: torch.device) -> None:
    """Join the other processes if `torchrun` started this one; do nothing otherwise.

    The processes talk as their device can: GPUs by NCCL, everything else by Gloo. They part when the command ends.
    """
    if "RANK" in os.environ and not dist.is_initialized():
        # An optimizer's first step imports this. If there is a group by then, default values of its functions keep the group,
        # and threads that are still there when Python goes can end the process by SIGABRT.
        import torch.distributed.nn.functional
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        options.AT_END.append(stop)


def stop() -> None:
    """Leave the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait until every process is here."""
    if dist.is_initialized():
        dist.barrier()


def add_up(*numbers: float) -> list[float]:
    """Each number's sum over all processes, in every process."""
    if not dist.is_initialized():
        return list(numbers)
    tensor = torch.tensor(numbers, dtype=torch.float64, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(tensor)
    return tensor.tolist()


def add_up_step(total: Tensor, targets: int, trained: dict[str, torch.nn.Parameter]) -> tuple[Tensor, int]:
    """A step's summed loss and number of targets over all processes; their gradients are added up in place."""
    if not dist.is_initialized():
        return total, targets
    for p in trained.values():
        if p.grad is None:  # a process without rows takes part with zeros
            p.grad = torch.zeros_like(p)
    # Each is a message of its own, and all are under way at once: nothing is copied into one long vector and back.
    under_way = [dist.all_reduce(p.grad, async_op=True) for p in trained.values()]
    for message in under_way:
        message.wait()
    summed, count = add_up(total.item(), targets)
    return torch.tensor(summed, device=total.device), int(count)


def my_share(whole: Sequence) -> Sequence:
    """Every n-th member, n being the number of processes: this one's part of the work."""
    return whole[rank()::world_size()]


def put_together(mine: list) -> list:
    """The results for a whole list, in its order, from each process's results for `my_share` of it."""
    if not dist.is_initialized():
        return mine
    parts: list[list] = [[] for _ in range(world_size())]
    dist.all_gather_object(parts, mine)
    whole: list = [None] * sum(map(len, parts))
    for number, part in enumerate(parts):
        whole[number::world_size()] = part
    return whole


def from_main(value: Value) -> Value:
    """The main process's value, in every process."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
