"""What a good subset is, as functions with diminishing returns: the more is chosen, the less one
more example adds.

A similarity s[i, j] >= 0 says how well candidate j covers row i. All functions here are one,
facility location, on a changed matrix (two of them with a bonus for each candidate). That is also
how they are computed. In DELIFT's three stages (arXiv 2411.04425):

    instruction tuning   FacilityLocation                    cover all of the data
    task-specific        FacilityLocationMutualInformation   cover a target set
                         (our default of three forms; the others: `Saturating...`, `Data...`)
    continual            FacilityLocationConditionalGain     cover what known data does not

Letters: A is what is chosen, D the data, T the target set, E the known examples.
s may be rectangular and need not be symmetric. It is an array, or a SciPy sparse matrix where most
pairs were never compared (they count as 0).
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from scipy import sparse

Matrix: TypeAlias = np.ndarray | sparse.sparray
Ids: TypeAlias = Sequence[int] | np.ndarray
AT_ONCE = 512  # candidates looked at together; more take memory and are no faster


class FacilityLocation:
    """FL: f(A) = Σ_i max_{j∈A} s_ij; f(∅) = 0.

    Args:
        similarity: [rows, candidates], numbers from 0 up, dense or sparse.

    Raises:
        ValueError: if a similarity is negative or not a number.
    """

    def __init__(self, similarity: Matrix):
        # One candidate's column is read at a time, so each lies in one piece: candidates are the
        # rows of `columns`.
        if sparse.issparse(similarity):
            self.columns = sparse.csr_array(similarity.T, dtype=np.float32)
        else:
            # [candidates, rows]
            self.columns = np.ascontiguousarray(np.asarray(similarity, dtype=np.float32).T)
        values = self.columns.data if sparse.issparse(similarity) else self.columns
        if values.size and not values.min() >= 0:  # NaN fails this too
            raise ValueError("Similarities must be numbers from 0 up; use similarity() on a "
                             "utility matrix.")
        self.n = self.columns.shape[0]
        self.chosen: list[int] = []
        # max_{j∈A} s_ij for every row i
        self.cover = np.zeros(self.columns.shape[1], dtype=np.float32)
        # what a candidate adds whatever else is chosen
        self.bonus = np.zeros(self.n, dtype=np.float64)

    def gains(self, candidates: Ids | None = None) -> np.ndarray:
        """f(A + j) - f(A) for each of these candidates (default: all), A being what was added so
        far. float64 [len]."""
        ids = np.arange(self.n) if candidates is None else np.asarray(candidates)
        parts = [self._covered_anew(ids[i:i + AT_ONCE]) for i in range(0, len(ids), AT_ONCE)]
        return np.concatenate(parts) + self.bonus[ids]

    def _covered_anew(self, candidates: np.ndarray) -> np.ndarray:
        """Σ_i max(s_ij - cover_i, 0) for each of these candidates j."""
        columns = self.columns[candidates]
        if sparse.issparse(columns):
            better = np.maximum(columns.data - self.cover[columns.indices], 0)
            owner = np.repeat(np.arange(len(candidates)), np.diff(columns.indptr))
            return np.bincount(owner, weights=better, minlength=len(candidates))
        columns -= self.cover  # a copy, so it may be overwritten
        return np.maximum(columns, 0, out=columns).sum(axis=1)

    def add(self, candidate: int) -> None:
        """Put one more candidate into A."""
        self.chosen.append(int(candidate))
        column = self.columns[[candidate]]
        column = column.toarray() if sparse.issparse(column) else column
        self.cover = np.maximum(self.cover, column[0])

    def value(self, candidates: Ids | None = None) -> float:
        """f of these candidates, computed from nothing; without an argument, f(A)."""
        ids = np.asarray(self.chosen if candidates is None else candidates, dtype=np.int64)
        if not len(ids):
            return 0.0
        cover = largest(self.columns[ids], axis=0)
        return float(cover.sum(dtype=np.float64) + self.bonus[ids].sum())


class FacilityLocationMutualInformation(FacilityLocation):
    """FLMI, query form: f(A) = Σ_{q∈T} max_{j∈A} s_qj + η Σ_{j∈A} max_{q∈T} s_qj.

    Cover every target q, and choose nothing that helps no target. submodlib's "variant".

    Args:
        similarity: [targets, candidates].
        eta: η, the weight of the second sum.
    """

    def __init__(self, similarity: Matrix, eta: float = 1.0):
        super().__init__(similarity)
        self.bonus = eta * largest(similarity, axis=0).astype(np.float64)


class FacilityLocationConditionalGain(FacilityLocation):
    """FLCG: f(A) = Σ_{i∈D} max( max_{j∈A} s_ij - ν max_{e∈E} s_ie, 0 ).

    Cover the data beyond what known examples E cover already. As max(max_j s_ij - c, 0) = max_j
    max(s_ij - c, 0), it is facility location on the rest of the matrix.

    Args:
        similarity: [data, candidates].
        known_similarity: [data, known examples].
        nu: ν.
    """

    def __init__(self, similarity: Matrix, known_similarity: Matrix, nu: float = 1.0):
        known = nu * largest(known_similarity, axis=1)
        super().__init__(by_row(lambda s, c: np.maximum(s - c, 0), similarity, known))


def largest(matrix: Matrix, axis: int) -> np.ndarray:
    """The largest entry of each column (axis 0) or row (axis 1), dense."""
    found = matrix.max(axis=axis)
    return found.toarray().ravel() if sparse.issparse(matrix) else found


def by_row(function: Callable[[np.ndarray, np.ndarray], np.ndarray], matrix: Matrix,
           per_row: np.ndarray) -> Matrix:
    """function(s_ij, c_i) for every entry; of a sparse matrix, for the entries that are there."""
    if sparse.issparse(matrix):
        entries = sparse.coo_array(matrix)
        values = function(entries.data, per_row[entries.row])
        return sparse.coo_array((values, (entries.row, entries.col)), entries.shape)
    return function(matrix, per_row[:, None])


class SaturatingMutualInformation(FacilityLocation):
    """FLMI, saturating form: f(A) = Σ_{i∈D} min( max_{j∈A} s_ij, η max_{q∈T} s_iq ).

    DELIFT's public code. Cover the data, but each row only as far as the targets cover it. As
    min(max_j s_ij, c) = max_j min(s_ij, c), it is facility location on a clipped matrix.

    Args:
        similarity: [data, candidates].
        target_similarity: [data, targets]; here the targets are what is shown.
        eta: η.
    """

    def __init__(self, similarity: Matrix, target_similarity: Matrix, eta: float = 1.0):
        super().__init__(by_row(np.minimum, similarity, eta * largest(target_similarity, axis=1)))


class DataMutualInformation(FacilityLocation):
    """FLMI, data form: f(A) = Σ_{i∈D} max_{j∈A} s_ij + η Σ_{j∈A} max_{q∈T} s_qj.

    The paper's, by third-party notes. Cover all of the data, and prefer what helps a target. Only
    the second sum knows the targets.

    Args:
        similarity: [data, candidates].
        target_similarity: [targets, candidates].
        eta: η, the weight of the second sum.
    """

    def __init__(self, similarity: Matrix, target_similarity: Matrix, eta: float = 1.0):
        super().__init__(similarity)
        self.bonus = eta * largest(target_similarity, axis=0).astype(np.float64)


def alike(similarity: Matrix) -> np.ndarray:
    """ρ_i = #{ j : s_ij >= ½ max_k s_ik }: how many candidates do for row i at least half of what
    its best one does; 1 for a row of zeros.

    Facility location adds up over rows, so what is there a hundred times is covered first. Row i
    divided by ρ_i ends that: ρ records that are all alike weigh 1/ρ each, together as much as one.
    A copy of a record changes ρ of the rows that are like it, and of no others.

    Args:
        similarity: square, [rows, the same as candidates].

    Returns:
        float32 [rows], at least 1.
    """
    enough = by_row(lambda s, half: (s > 0) & (s >= half), similarity,
                    largest(similarity, axis=1) / 2)
    return np.maximum(np.asarray(enough.sum(axis=1)).ravel(), 1).astype(np.float32)
