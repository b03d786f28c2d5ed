"""A matrix that grows in a file, a candidate at a time, so that an interrupted computation goes on where it was."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from common.support import distributed
from common.support.console import Progress, is_main, say
from common.support.files import reading, write_whole

AT_ONCE = 8  # candidates that each of several processes measures between two messages


class MatrixFile:
    """A matrix of utilities while it is measured, a candidate at a time: what is there, what is missing, how long it takes.

    In a file (.npy, mapped into memory) it is called FILE.partial until it is whole and holds NaN where nothing is measured
    yet. Under `torchrun` the processes share the candidates, and the main one alone writes: two machines that write parts of
    one page of a shared file would lose each other's.

    Args:
        file: None keeps the matrix in memory.
        pairs: int [targets, K], the numbers of the only candidates to try on each target; None for all.
    """

    def __init__(self, file: Path | None, targets: int, candidates: int, pairs: np.ndarray | None):
        self.file, self.targets, self.candidates, self.pairs = file, targets, candidates, pairs
        self.shape = (targets, candidates) if pairs is None else pairs.shape
        self.whole = read(file, self.shape) if file is not None and file.exists() else None  # measured earlier
        self.found: dict[int, np.ndarray] = {}  # of this process, not yet exchanged
        if pairs is not None:  # where candidate 0 stands in `pairs`, then where candidate 1 stands, ...
            self.order = np.argsort(pairs, axis=None, kind="stable")
            self.starts = np.searchsorted(pairs.ravel()[self.order], np.arange(candidates + 1))
        if self.whole is None:
            self.matrix = np.full(self.shape, np.nan, dtype=np.float32) if file is None else grow(file, self.shape)

    def cells(self, candidate: int) -> tuple[np.ndarray, np.ndarray | int]:
        """Rows (these are the targets) and columns of the matrix."""
        if self.pairs is None:
            return np.arange(self.targets), candidate
        return np.divmod(self.order[self.starts[candidate]:self.starts[candidate + 1]], self.shape[1])

    def unfinished(self) -> list[tuple[int, np.ndarray]]:
        """The candidates that are still to be measured, and the targets that each is tried on. The same in every process."""
        missing = [j for j in range(self.candidates) if np.isnan(self.matrix[self.cells(j)]).any()]
        return [(j, self.cells(j)[0]) for j in distributed.from_main(missing)]

    def measuring(self) -> Iterator[tuple[int, np.ndarray]]:
        """This process's share of `unfinished`. After each, its utilities must be `put`. Tells what there is to do."""
        todo, ranks = self.unfinished(), distributed.world_size()
        pairs = sum(len(rows) for _, rows in todo)
        say(f"Utility of {self.candidates:,} candidates for {self.targets:,} targets: {pairs:,} pairs, "
            f"{self.matrix.nbytes / 1e6:,.1f} MB")
        size = AT_ONCE * ranks if ranks > 1 else 1
        with Progress("utilities", pairs, "pairs") as progress:
            for together in (todo[i:i + size] for i in range(0, len(todo), size)):
                yield from distributed.my_share(together)
                self.exchange([j for j, _ in together])
                progress.advance(sum(len(rows) for _, rows in together))

    def put(self, candidate: int, utilities: np.ndarray) -> None:
        """Keep the utilities of a candidate for the targets that it was tried on."""
        self.found[candidate] = utilities

    def exchange(self, together: list[int]) -> None:
        """Write what all processes have found of these candidates."""
        columns = distributed.put_together([self.found.pop(j) for j in distributed.my_share(together)])
        if self.file is None or is_main():
            for j, utilities in zip(together, columns):
                self.matrix[self.cells(j)] = utilities

    def finish(self) -> np.ndarray:
        """The whole matrix. Its file gets its name and is opened for reading."""
        if not isinstance(self.matrix, np.memmap) or self.file is None:
            return self.matrix
        self.matrix.flush()
        distributed.barrier()  # every process has written its share
        if is_main():
            os.replace(partial(self.file), self.file)
        distributed.barrier()
        return read(self.file, self.shape)


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
