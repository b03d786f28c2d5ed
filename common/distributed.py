"""Several processes under `torchrun`, or one: the rest of the code need not know which.

There is no wrapper around the model. Each process (rank) computes the gradients of its share of a batch, then all
add them up. As losses are sums, the total is what one process would have computed.
"""

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist


def start() -> None:
    """Join the other processes if `torchrun` started this one; do nothing otherwise."""
    if "RANK" in os.environ and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def stop() -> None:
    """Leave the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


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


def add_up_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Sum the gradients over all processes, in one message. A process without rows takes part with zeros."""
    if not dist.is_initialized():
        return
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    flat = torch.cat([p.grad.flatten() for p in parameters])
    dist.all_reduce(flat)
    for p, summed in zip(parameters, flat.split([p.numel() for p in parameters])):
        p.grad.copy_(summed.view_as(p))


def my_share(whole: Sequence) -> Sequence:
    """Every n-th member, n being the number of processes: this one's part of the work."""
    return whole[rank()::world_size()]


def put_together(mine: list) -> list:
    """The results for a whole list, in its order, from each process's results for `my_share` of it."""
    if not dist.is_initialized():
        return mine
    parts: list[list] = [[] for _ in range(world_size())]
    dist.all_gather_object(parts, mine)
    whole = [None] * sum(map(len, parts))
    for number, part in enumerate(parts):
        whole[number::world_size()] = part
    return whole


def from_main(value: object) -> object:
    """The main process's value, in every process."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
