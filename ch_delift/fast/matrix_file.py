"""A matrix that grows in a file, a candidate at a time, so that an interrupted computation goes on where it was."""

import os
from pathlib import Path
from typing import Literal

import numpy as np

from common.support import distributed
from common.support.console import is_main
from common.support.files import reading, write_whole


class Plan:
    """Which targets each candidate is tried on, and where in the matrix the results go.

    Args:
        pairs: int [targets, K], the numbers of the only candidates to try on each target; None for all.
    """

    def __init__(self, targets: int, candidates: int, pairs: np.ndarray | None):
        self.targets, self.candidates, self.pairs = targets, candidates, pairs
        self.shape = (targets, candidates) if pairs is None else pairs.shape
        if pairs is not None:  # where candidate 0 stands in `pairs`, then where candidate 1 stands, ...
            self.order = np.argsort(pairs, axis=None, kind="stable")
            self.starts = np.searchsorted(pairs.ravel()[self.order], np.arange(candidates + 1))

    def cells(self, candidate: int) -> tuple[np.ndarray, np.ndarray | int]:
        """Rows (these are the targets) and columns of the matrix."""
        if self.pairs is None:
            return np.arange(self.targets), candidate
        return np.divmod(self.order[self.starts[candidate]:self.starts[candidate + 1]], self.shape[1])


def partial(file: Path) -> Path:
    """What a matrix file is called until it is whole."""
    return file.with_name(file.name + ".partial")


def grow(file: Path, shape: tuple[int, ...]) -> np.memmap:
    """Open the unfinished matrix, or begin one, all NaN."""
    if is_main() and not partial(file).exists():
        def fill(path: Path) -> None:
            # By ordinary writes: on a full disk these raise an error, where a mapping ends the process by a signal.
            with open(path, "wb") as out:
                np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": shape})
                for _ in range(shape[0]):
                    out.write(np.full(shape[1:], np.nan, dtype="<f4").tobytes())
        write_whole(partial(file), fill)
    distributed.barrier()
    return read(partial(file), shape, "r+")


def read(file: Path, shape: tuple[int, ...], mode: Literal["r", "r+"] = "r") -> np.memmap:
    """Open a matrix file, to read a finished one or ("r+") to go on with another. float32, of this shape.

    Raises:
        InputError: if it is damaged, or of other records.
    """
    with reading(file, "no such matrix as belongs here", "remove it, and --resume measures it again"):
        matrix = np.lib.format.open_memmap(file, mode=mode)
        if matrix.dtype != np.float32 or matrix.shape != shape:
            raise ValueError(f"{matrix.dtype} {list(matrix.shape)} instead of float32 {list(shape)}")
        if mode == "r" and not np.isfinite(matrix).all():
            raise ValueError("it holds values that are no numbers")
        return matrix


def finish(file: Path, matrix: np.memmap) -> np.ndarray:
    """Give the finished matrix its name and open it for reading."""
    matrix.flush()
    distributed.barrier()  # every process has written its share
    if is_main():
        os.replace(partial(file), file)
    distributed.barrier()
    return read(file, matrix.shape)
