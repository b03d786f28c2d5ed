"""What a training keeps: the best checkpoint, its metrics, and all that is needed to go on after an interruption."""

import csv
import io
import math
import shlex
import sys
import time
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from common.gpt2 import GPT2
from common.lora import save_adapter, trained_parameters
from common.losses import evaluate, next_token_loss
from common.pretrained import save_pretrained
from common.support import files
from common.support.console import is_main, say
from common.support.files import FROM_0, NATURAL, Within, write_text, write_whole
from common.support.options import Parser
from common.tokenizer import Tokenizer

if TYPE_CHECKING:
    from common.training import Dataset, TrainOptions

STATE_FILE = "training_state.pt"
ROW = {"step": NATURAL, "epoch": FROM_0, "tokens": NATURAL, "targets": NATURAL, str: float}
STATE = {"state": {"step": NATURAL, "best_step": NATURAL, "best_loss": Within(float, -math.inf, math.inf), "waited": NATURAL,
                   "seconds": FROM_0, "done": bool, "stopped_early": bool, "history": [ROW]}}
SECONDS_BEFORE_FIRST, SECONDS_BETWEEN_SAVES = 40, 300  # an interruption soon after the start costs little


@dataclass
class Run:
    """How far a training has come: what is saved beside weights and optimizer, and what `fit` returns. Plain values only."""

    step: int = 0  # the last one done
    best_step: int = 0  # that of the checkpoint that was kept
    best_loss: float = math.inf  # its validation loss, in nats per target
    waited: int = 0  # evaluations since then
    seconds: float = 0.0
    done: bool = False
    stopped_early: bool = False
    history: list[dict] = field(default_factory=list)  # one row per step, as in metrics.csv

    @property
    def tokens(self) -> int:
        """How many tokens it has read."""
        return self.history[-1]["tokens"] if self.history else 0

    def add_row(self, tokens: int, targets: int, step: int, **metrics: float) -> dict:
        """Note a step. `tokens` and `targets` of this step become those of all steps so far. Returns the row."""
        before = self.history[-1]["targets"] if self.history else 0
        self.step = step
        self.history.append({"step": step, "tokens": self.tokens + tokens, "targets": before + targets, **metrics})
        return self.history[-1]


class Keeper:
    """Judges checkpoints, keeps the best one, and saves how far a training has come. Only the main process writes."""

    def __init__(self, model: GPT2, tokenizer: Tokenizer, optimizer: torch.optim.Optimizer, validation: "Dataset",
                 options: "TrainOptions", folder: Path):
        self.model, self.tokenizer, self.optimizer = model, tokenizer, optimizer
        self.validation, self.options, self.folder = validation, options, folder
        self.run = Run()

    def begin(self, resume: bool) -> Run:
        """A new run, whose curve begins before any step; or the one that was saved here."""
        if resume:
            self.run = load_state(self.folder, self.model, self.optimizer, self.options)
        now = time.monotonic()
        self.saved = now - max(SECONDS_BETWEEN_SAVES - SECONDS_BEFORE_FIRST, 0)
        self.began = now - self.run.seconds  # when the run would have begun, had it never been interrupted
        Parser.reached = self.folder, self.run.step
        if not self.run.history and len(self.validation):
            self.run.history.append({"step": 0, "epoch": 0.0, "tokens": 0, "targets": 0, "validation_loss": self.evaluate()})
        return self.run

    def evaluate(self) -> float:
        """The validation loss. The plain one, whatever is trained, so that all arms of an experiment are judged alike."""
        return evaluate(self.model, self.validation, next_token_loss, self.options.batch_size, self.options.precision)

    def judge(self, average_over: int) -> None:
        """Evaluate, tell, and save the checkpoint if it is the best so far (or if there is nothing to judge it by).

        average_over: the training loss that is told is the mean over so many steps.
        """
        run, row = self.run, self.run.history[-1]
        if len(self.validation):
            row["validation_loss"] = self.evaluate()
        train_loss = fmean(recent["train_loss"] for recent in run.history[-average_over:] if recent["step"] > 0)
        better = row.get("validation_loss", -math.inf) < run.best_loss  # without validation, always
        run.waited = 0 if better else run.waited + 1
        if better:
            run.best_step, run.best_loss = row["step"], row.get("validation_loss", math.inf)
            if is_main():
                if self.options.lora is not None:
                    save_adapter(self.model, self.options.base, self.folder / "adapter", self.tokenizer.chat_template)
                save_pretrained(self.model, self.tokenizer, self.folder)
        told = f"validation loss {row['validation_loss']:.4f}" if "validation_loss" in row else "no validation set"
        say(f"  epoch {row['epoch']:5.2f}  step {row['step']:5d}  training loss {train_loss:.4f}  {told}"
            f"{'  (best)' if better and 'validation_loss' in row else ''}")
        run.stopped_early = self.options.patience is not None and run.waited >= self.options.patience
        self.saved = -math.inf  # the state comes after the checkpoint: killed between the two, the run judges once more

    def save(self, done: bool) -> None:
        """`save_state`, if the last time was long ago or a checkpoint was judged since. done: that was the last step."""
        run = self.run
        run.stopped_early, run.done = run.stopped_early and not done, run.stopped_early or done
        now = time.monotonic()
        if now - self.saved <= SECONDS_BETWEEN_SAVES:
            return
        self.saved, run.seconds = now, now - self.began
        if is_main():
            save_state(self.folder, run, self.model, self.optimizer)
        Parser.reached = self.folder, run.step


def save_state(folder: Path, run: Run, model: GPT2, optimizer: torch.optim.Optimizer) -> None:
    """Write metrics.csv and training_state.pt: tensors and plain values only. When done, the tensors are left out."""
    write_text(folder / "metrics.csv", history_csv(run.history))
    content: dict[str, Any] = {"state": asdict(run)}
    if not run.done:
        # The weights as they are now, not the best ones; AdamW's averages; and where dropout's random numbers stand.
        content |= {"model": trained_parameters(model), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
        if model.device.type == "cuda":
            content["cuda_rng"] = torch.cuda.get_rng_state()
    write_whole(folder / STATE_FILE, lambda path: torch.save(content, path))


def check_run_state(run: Run, options: "TrainOptions") -> None:
    """Refuse numbers that no training with these options comes to.

    Raises:
        ValueError: naming them.
    """
    steps = [row["step"] for row in run.history]
    if (steps[-1] if steps else 0) != run.step or any(after != before + 1 for before, after in pairwise(steps)):
        raise ValueError(f"its step is {run.step}, and its history has other steps")
    if run.best_step > run.step:
        raise ValueError(f"its best step is {run.best_step}, and its last {run.step}")
    ended = run.step == options.max_steps if options.max_steps else bool(steps) and run.history[-1]["epoch"] >= options.epochs
    stopped = options.patience is not None and run.waited >= options.patience
    if run.done != (ended or run.stopped_early) or (run.stopped_early and not stopped):
        raise ValueError(f"it says done = {run.done} at step {run.step}")


def check_tensors(found: dict[str, Any], like: Mapping[str, torch.Tensor], what: str) -> None:
    """Refuse tensors of other names, types or shapes than these, and values that are no numbers. A smaller one would be spread.

    Raises:
        ValueError: naming the first.
    """
    if found.keys() != like.keys():
        raise ValueError(f"{what} are others: {min(found.keys() ^ like.keys(), key=str)}")
    for name, tensor in like.items():
        one = found[name]
        if not (isinstance(one, torch.Tensor) and one.dtype == tensor.dtype and one.shape == tensor.shape
                and one.layout == tensor.layout and one.isfinite().all()):
            raise ValueError(f"{what}: {name} is no tensor of {list(tensor.shape)} finite numbers of {tensor.dtype}")


def check_optimizer_state(found: dict[str, Any], optimizer: torch.optim.Optimizer, step: int) -> None:
    """Refuse a state that is not AdamW's after so many steps on the same weights.

    Raises:
        ValueError: naming what is not so.
    """
    own = optimizer.state_dict()["param_groups"]
    same = ("params", "weight_decay", "betas", "eps")  # the rate is set at each step, and how it is computed may differ
    if [[group[name] for name in same] for group in found["param_groups"]] != [[group[name] for name in same] for group in own]:
        raise ValueError("its optimizer has other weights or settings")
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    if list(found["state"]) != (list(range(len(weights))) if step else []):
        raise ValueError("its optimizer knows other weights")
    for number, averages in found["state"].items():
        like = {"step": torch.tensor(0.0), "exp_avg": weights[number], "exp_avg_sq": weights[number]}
        check_tensors(averages, like, f"AdamW's averages of weight {number}")
        if averages["step"] != step or averages["exp_avg_sq"].min() < 0:
            raise ValueError(f"AdamW's averages of weight {number} are not those after {step} steps")


def load_state(folder: Path, model: GPT2, optimizer: torch.optim.Optimizer, options: "TrainOptions") -> Run:
    """Put back what `save_state` wrote into this folder, if it did; return how far the run had come.

    Raises:
        InputError: if the file is damaged. Then nothing is put back.
    """
    path = folder / STATE_FILE
    if not files.is_there(path):
        return Run()
    advice = f"remove it, and --resume trains from the start of {folder} again"
    if (folder / "model.safetensors").exists():
        again = shlex.join(["python", sys.argv[0], "--model", str(folder)])
        advice = (f"the best checkpoint is whole, and {again} with your other options, without --resume and --out, starts from "
                  f"it; or {advice}")
    with files.reading(path, "damaged", advice):
        with zipfile.ZipFile(path) as archive:  # PyTorch's form: a checksum for each tensor, at which torch.load does not look
            if damaged := archive.testzip():
                raise ValueError(f"the checksum of {damaged} differs")
        # weights_only: a file from elsewhere may hold tensors and numbers, and no code that would run.
        content = torch.load(path, map_location="cpu", weights_only=True)
        files.check(content, STATE)
        run = Run(**content["state"])
        check_run_state(run, options)
        if not run.done:
            check_tensors(content["model"], trained_parameters(model), "its weights")
            check_optimizer_state(content["optimizer"], optimizer, run.step)
            torch.set_rng_state(content["rng"])  # refuses what is none, before anything is put back
            if "cuda_rng" in content:
                torch.cuda.set_rng_state(content["cuda_rng"])
            for name, p in trained_parameters(model).items():
                p.data.copy_(content["model"][name])
            optimizer.load_state_dict(content["optimizer"])
    return run


def read_history(path: Path) -> list[dict]:
    """The history back from `metrics.csv`.

    Raises:
        InputError: if the file is damaged, or holds no row.
    """
    with files.reading(path, "no metrics.csv of a run", "leave this run out"):
        rows = [{name: float(cell) for name, cell in row.items() if cell}
                for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())]
        files.check(rows, [{"epoch": FROM_0, "tokens": FROM_0, str: float}])
        if not rows:
            raise ValueError("it has no rows")
    return rows


def history_csv(history: list[dict]) -> str:
    """The history as CSV text; a cell is empty where nothing was measured."""
    first = ["step", "epoch", "tokens", "targets", "lr", "train_loss", "validation_loss", "gradient_norm", "tokens_per_second"]
    columns = dict.fromkeys(first) | dict.fromkeys(name for row in history for name in row)  # what a method adds comes last
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
