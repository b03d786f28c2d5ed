"""From records to a subset: similarities, the objective of the stage, and greedy choice."""

import math
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import sparse

from ch_delift import submodular
from ch_delift.fast.matrix_file import read
from ch_delift.fast.shared_prefix import Targets
from ch_delift.submodular import Matrix
from ch_delift.support.delift_options import Pairs
from ch_delift.utility import shown, similarity, utility_matrix
from ch_instruct.encoding import Example
from common.embedding import cosine, mean_hidden_states, nearest
from common.gpt2 import GPT2
from common.support import distributed, files
from common.support.console import is_main, say
from common.support.device import check_memory, evaluating
from common.support.files import InputError
from common.tokenizer import Tokenizer

# candidates that are timed before the work begins, and the most targets each is tried on
TRIAL = 4, 32
# (rows, columns) -> similarities of these two groups of examples; a group is called "data",
# "target" or "known".
SimilarityOf = Callable[[str, str], Matrix]


def budget_of(fraction: float, n: int) -> int:
    """floor(fraction · n); the small number mends 0.29 · 100 = 28.999999999999996.

    Raises:
        InputError: if that is nothing.
    """
    budget = math.floor(fraction * n + 1e-9)  # never rounded up: 30 % of 1,756 are 526
    if budget < 1:
        raise InputError(f"--fraction {fraction:g} of {n} training records is less than one "
                         "record; choose a larger fraction.")
    return budget


def check_pairs(pairs: int) -> None:
    """Refuse dense matrices of so many pairs that this machine cannot hold them: greedy needs all
    of them in memory, twice for a moment.

    Raises:
        InputError: naming what they need and what there is.
    """
    # 4 bytes a number; greedy turns a matrix round, so it is there twice
    check_memory(2 * 4 * pairs, f"The utilities of {pairs:,} pairs need",
                 "use --pairs neighbours:32")


def check_utility(folder: Path, facts: dict[str, object], needed: list[tuple[str, str]]) -> None:
    """Refuse the utilities in a run folder if they are not of these models, data and pairs, or lack
    a matrix that is needed (`needed_matrices`).

    Raises:
        InputError: naming what differs.
    """
    if not (folder / "utility" / "facts.json").exists():
        raise InputError(f"--utility {folder} holds no utilities (no utility/facts.json); give the "
                         "folder of a finished ch_delift run.")
    recorded = files.read_json(folder / "utility" / "facts.json", {str: object},
                               "no note of a ch_delift run",
                               "give the folder of another run, or leave --utility out")
    for name, value in facts.items():
        if recorded.get(name) != value:
            raise InputError(
                f"--utility {folder} was measured with {name} {str(recorded.get(name))[:16]}, and "
                f"this run has {str(value)[:16]}; give the same model, data and options, or leave "
                "--utility out.")
    if missing := [name for name in map("-".join, needed)
                   if not (folder / "utility" / f"{name}.npy").exists()]:
        raise InputError(f"--utility {folder} holds no finished matrix {' and '.join(missing)}; "
                         "give a run of the same --stage, --flmi and --rows, finished by --resume "
                         "if it was interrupted, or leave --utility out.")


def check_matrices(folder: Path, sizes: dict[str, int], pairs: Pairs) -> None:
    """Refuse damaged utility matrices in a run folder. `sizes`: how many examples each group has.

    Raises:
        InputError: naming the file.
    """
    for file in sorted((folder / "utility").glob("*.npy")):
        rows, _, columns = file.stem.partition("-")
        if {rows, columns} <= sizes.keys():  # others are of another stage
            width = sizes[columns]
            tried = min(pairs.number, width) if pairs.kind == "neighbours" else width
            read(file, (sizes[rows], tried))


def objective(stage: str, similarity_of: SimilarityOf,
              form: str = "query") -> submodular.FacilityLocation:
    """What DELIFT maximises in this stage, with similarities from `similarity_of`. `form` is that
    of FLMI."""
    if stage == "instruction":  # FL: every example should have one like it in the subset
        return submodular.FacilityLocation(similarity_of("data", "data"))
    if stage == "continual":  # FLCG: ... beyond what known examples do for it already
        return submodular.FacilityLocationConditionalGain(
            similarity_of("data", "data"), similarity_of("data", "known"))
    if form == "query":  # FLMI: every target should have one that helps it
        return submodular.FacilityLocationMutualInformation(similarity_of("target", "data"))
    if form == "data":  # ... or every example, the more so where it helps a target
        return submodular.DataMutualInformation(
            similarity_of("data", "data"), similarity_of("target", "data"))
    return submodular.SaturatingMutualInformation(
        similarity_of("data", "data"), similarity_of("data", "target"))


def needed_matrices(stage: str, form: str = "query", rows: str = "equal") -> list[tuple[str, str]]:
    """Rows and columns of the matrices that `objective` asks for, and `even_rows` if rows are
    "even"."""
    needed = {
        "instruction": [("data", "data")],
        "continual": [("data", "data"), ("data", "known")],
        "task": {"query": [("target", "data")],
                 "data": [("data", "data"), ("target", "data")],
                 "saturating": [("data", "data"), ("data", "target")]}[form],
    }[stage]
    among = [(group, group) for group, _ in needed] if rows == "even" else []
    return list(dict.fromkeys(needed + among))


def even_rows(similarity_of: SimilarityOf) -> SimilarityOf:
    """The same similarities, each row divided by how many of its own group are like it
    (`submodular.alike`)."""
    def divided(rows: str, columns: str) -> Matrix:
        among = similarity_of(rows, rows)
        like = submodular.alike(among)
        compared = among.size / among.shape[0]  # numbers that are stored for a row
        full = float((like >= compared).mean()) if compared < among.shape[1] else 0
        if full > 0.1:
            say(f"  Warning: for {full:.0%} of the records, all {compared:.0f} neighbours that are "
                "compared are similar. There may be more of them, so large kinds still count more "
                "with --rows even; use --pairs all, or more neighbours.")
        return submodular.by_row(np.divide, similarity_of(rows, columns), like)

    return divided


class Similarities:
    """Similarities between groups of examples, by utility or by hidden states.

    Args:
        groups: "data" and maybe "target" or "known" -> examples, as they are trained on.
        folder: where utility matrices are kept, as ROWS-COLUMNS.npy, and ROWS-COLUMNS.neighbours.
    """

    def __init__(self, model: GPT2, tokenizer: Tokenizer, groups: dict[str, list[Example]],
                 folder: Path, precision: str = "fp32", pairs: Pairs = Pairs("all"),
                 kernel: str = "positive"):
        self.model, self.tokenizer, self.groups, self.folder = model, tokenizer, groups, folder
        self.precision, self.pairs, self.kernel = precision, pairs, kernel
        self.vectors: dict[str, np.ndarray] = {}  # what was computed already, by group
        self.found: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}

    def hidden(self, group: str) -> np.ndarray:
        """Mean hidden states of a group's examples, computed once. float32 [examples, D]."""
        if group not in self.vectors:
            ids = [example.ids for example in self.groups[group]]
            self.vectors[group] = mean_hidden_states(self.model, ids, self.precision)
        return self.vectors[group]

    @property
    def centre(self) -> np.ndarray:
        """What `cosine` subtracts first: the mean of "data", float32 [D]; the same for all
        matrices, because objectives compare their values."""
        return self.hidden("data").mean(axis=0)

    def neighbours(self, rows: str, columns: str) -> tuple[np.ndarray, np.ndarray]:
        """For each row the nearest columns: numbers and cosines, each [rows, K]."""
        if (rows, columns) not in self.found:
            self.found[rows, columns] = nearest(self.hidden(rows), self.hidden(columns),
                                                self.pairs.number, centre=self.centre)
        return self.found[rows, columns]

    def tried(self, rows: str, columns: str) -> np.ndarray:
        """The columns that utility tries on each row, [rows, K]: the nearest when the matrix was
        begun. Kept beside it: cosines computed elsewhere or in another precision may come in
        another order, and its values would go to others."""
        file = self.folder / f"{rows}-{columns}.neighbours"
        if distributed.from_main(not file.exists()):
            numbers = self.neighbours(rows, columns)[0].astype(np.int64)
            if is_main():
                files.write_whole(file, lambda path: path.write_bytes(numbers.tobytes()))
            distributed.barrier()
        shape = len(self.groups[rows]), min(self.pairs.number, len(self.groups[columns]))
        with files.reading(file, "no list of neighbours", "give another run, or measure again"):
            numbers = np.frombuffer(file.read_bytes(), np.int64).reshape(shape)
            if numbers.min() < 0 or numbers.max() >= len(self.groups[columns]):
                raise ValueError("it names examples that are not there")
        return numbers

    def utility(self, rows: str, columns: str) -> np.ndarray:
        """The utility matrix of two groups, read from its file if it is there. [rows, columns], or
        [rows, K] of neighbours."""
        tried = self.tried(rows, columns) if self.pairs.kind == "neighbours" else None
        return utility_matrix(self.model, self.tokenizer, self.groups[rows], self.groups[columns],
                              self.precision, tried, self.folder / f"{rows}-{columns}.npy")

    def estimate(self, rows: str, columns: str) -> float:
        """Seconds that `utility` will take for these two groups, by a few random candidates on
        random targets."""
        targets, candidates = self.groups[rows], self.groups[columns]
        tried = len(candidates)  # by a target
        if self.pairs.kind == "neighbours":
            tried = min(self.pairs.number, tried)
        # targets of a candidate
        count = min(TRIAL[1], math.ceil(len(targets) * tried / len(candidates)))
        draw, context = random.Random("trial"), self.model.config.n_positions
        some_targets = draw.sample(targets, count)
        some = draw.sample(candidates, min(TRIAL[0], len(candidates)))
        ready = Targets(self.model, some_targets, self.tokenizer.eot_id)
        start = time.monotonic()
        with evaluating(self.model, self.precision):
            for front in (shown(candidate, self.tokenizer) for candidate in some):
                ready.distances(front, [i for i, target in enumerate(some_targets)
                                        # what does not fit is not measured
                                        if len(front) + len(target.ids) - 1 <= context])
        per_pair = (time.monotonic() - start) / (len(some) * count)
        return per_pair * len(targets) * tried / distributed.world_size()

    def by_utility(self, rows: str, columns: str) -> Matrix:
        """DELIFT's similarities."""
        values = similarity(self.utility(rows, columns), self.kernel)
        if self.pairs.kind == "neighbours":
            return self.spread(values, self.tried(rows, columns), columns)
        return values

    def by_hidden_states(self, rows: str, columns: str) -> Matrix:
        """Those of the "SE" baseline: cosines of mean hidden states, 0 instead of negative ones."""
        if self.pairs.kind == "neighbours":
            ids, cosines = self.neighbours(rows, columns)
            return self.spread(np.maximum(cosines, 0), ids, columns)
        return np.maximum(cosine(self.hidden(rows), self.hidden(columns), self.centre), 0)

    def spread(self, values: np.ndarray, ids: np.ndarray, columns: str) -> Matrix:
        """Values [rows, K] at the columns `ids` [rows, K] of a sparse [rows, columns] matrix."""
        row = np.repeat(np.arange(len(ids)), ids.shape[1])
        return sparse.coo_array((values.ravel(), (row, ids.ravel())),
                                shape=(len(ids), len(self.groups[columns])))

    def grid(self, rows: str, row_ids: list[int], candidates: list[int]) -> np.ndarray:
        """Utilities of some rows for some examples of "data", NaN where not measured. [row_ids,
        candidates]."""
        utility = self.utility(rows, "data")[row_ids]  # [row_ids, candidates or K]
        whole = np.full((len(row_ids), len(self.groups["data"])), np.nan, dtype=np.float32)
        ids = np.arange(whole.shape[1])[None]
        if self.pairs.kind == "neighbours":
            ids = self.tried(rows, "data")[row_ids]
        np.put_along_axis(whole, np.broadcast_to(ids, utility.shape), utility, axis=1)
        return whole[:, candidates]
