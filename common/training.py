"""The training loop, the only one. A chapter brings a dataset and a loss; everything else happens here."""

import csv
import io
import math
import random
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from common.gpt2 import GPT2
from common.lora import add_lora, remove_lora, save_adapter
from common.losses import Loss, next_token_loss
from common.pretrained import load_weights, save_pretrained
from common.support import distributed, files
from common.support.console import Progress, is_main, say
from common.support.device import autocast, evaluating
from common.support.files import InputError, write_text, write_whole
from common.tokenizer import Tokenizer

STATE_FILE = "training_state.pt"
STATE = {"state": {"step": int, "best_step": int, "best_loss": float, "waited": int, "seconds": float, "done": bool,
                   "stopped_early": bool, "history": [{"step": int, "epoch": float, "tokens": int, "targets": int}]}}
SECONDS_BETWEEN_SAVES = 300


class Dataset:
    """What is trained on: items, how a list of them becomes a batch, and how many tokens one holds.

    An item can be anything that `collate` understands: a window's start, an example, a pair of examples.
    """

    def __init__(self, items: Sequence, collate: Callable[[list], tuple], size: Callable[[Any], int], seed: int = 0):
        self.items, self.collate, self.size, self.seed = items, collate, size, seed

    def __len__(self) -> int:
        return len(self.items)

    def order(self, epoch: int) -> list:
        """All items in the order of this epoch. All randomness of the data lies here and depends on seed and epoch
        alone, so a resumed run and every rank see the same."""
        return random.Random(f"order {self.seed} {epoch}").sample(list(self.items), len(self.items))


@dataclass(frozen=True)
class TrainOptions:
    """How to train. One optimizer step covers `batch_size * accumulate` items, on however many ranks."""

    epochs: int
    batch_size: int  # items in one forward pass
    accumulate: int  # forward passes in one step
    lr: float  # peak learning rate
    precision: str  # fp32 or bf16
    weight_decay: float = 0.1
    warmup: float = 0.1  # share of all steps in which the rate rises
    clip: float = 1.0  # largest gradient norm
    evaluate_every: int | None = None  # steps between evaluations; None means once an epoch
    patience: int | None = None  # stop after this many evaluations without a new best; None means never
    steps: int | None = None  # end after this many steps, whatever the epochs; None means after the epochs
    lora: int | None = None  # rank of the updates that are learnt instead of the weights; None means all weights
    base: str = ""  # hub id or folder of the pretrained model, for the adapter to name

    @property
    def step_size(self) -> int:
        """Items in one optimizer step."""
        return self.batch_size * self.accumulate

    def steps_per_epoch(self, items: int) -> int:
        """How many steps it takes to see so many items once; the last may be smaller."""
        return math.ceil(items / self.step_size)

    def total_steps(self, items: int) -> int:
        """How many steps the whole training takes."""
        return self.steps or self.epochs * self.steps_per_epoch(items)


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


def check_mps(model: GPT2, batch: tuple, loss: Loss) -> None:
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


def learning_rate(step: int, total: int, peak: float, warmup: float) -> float:
    """The rate of step 1..total: a straight rise to the peak, then half a cosine down to zero."""
    rising = max(1, round(warmup * total))  # steps; at first Adam's averages rest on few gradients, so they must be small
    if step <= rising:
        return peak * step / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def trained_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """By name, what is trained: all parameters, or the updates of LoRA."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def make_optimizer(model: torch.nn.Module, options: TrainOptions) -> torch.optim.AdamW:
    """AdamW over what is trained. Weight decay pulls on matrices and embeddings, not on biases and LayerNorm gains."""
    trained = list(trained_parameters(model).values())
    groups = [{"params": [p for p in trained if p.dim() >= 2], "weight_decay": options.weight_decay},
              {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0}]
    # betas: how long the averages of gradients and of their squares remember, about 10 and 20 steps.
    return torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.95), fused=next(model.parameters()).device.type != "mps")


def evaluate(model: GPT2, data: Dataset, loss: Loss, batch_size: int, precision: str) -> float:
    """Mean loss per target over all of `data`, in nats. Every target weighs the same; no random number is drawn."""
    sum_here, count_here = 0.0, 0.0  # of this process; added up over all at the end
    batches = [data.items[i:i + batch_size] for i in range(0, len(data), batch_size)]
    with Progress("evaluating", len(data), "text") as progress, evaluating(model, precision):
        for items in distributed.my_share(batches):
            part, count = loss(model, data.collate(list(items)))
            sum_here, count_here = sum_here + part.item(), count_here + count
            progress.advance(len(items) * distributed.world_size())
    total, targets = distributed.add_up(sum_here, count_here)
    return total / max(targets, 1)


def accumulate_gradients(model: GPT2, data: Dataset, loss: Loss, items: list, options: TrainOptions) -> tuple[Tensor, int]:
    """Gradients of the *summed* loss over all targets of `items`, however these are cut into passes and ranks.

    The mean's gradient is this divided by the number of targets, and `take_step` divides. A mean of means would let short
    batches weigh more.

    Returns:
        The summed loss and what a method adds to it, [2] where the model is, and the number of targets.
    """
    sum_here, count_here = torch.zeros(2, device=model.device), 0
    with autocast(model.device, options.precision):  # around all passes: weights are cast once
        for start in range(0, len(items), options.batch_size):
            mine = distributed.my_share(items[start:start + options.batch_size])
            if mine:  # with more processes than items in the last pass, some have nothing to do
                part, count = loss(model, data.collate(list(mine)))
                part.sum().backward()  # adds to p.grad of every parameter
                sum_here[:part.numel()] += part.detach()
                count_here += count
    if distributed.world_size() == 1:
        return sum_here, count_here
    distributed.add_up_gradients(list(trained_parameters(model).values()))
    *total, targets = distributed.add_up(*sum_here.tolist(), count_here)
    return torch.tensor(total, device=model.device), int(targets)


def take_step(model: GPT2, optimizer: torch.optim.Optimizer, targets: int, lr: float, clip: float) -> Tensor:
    """Move the weights by the gradient of the mean loss, shortened to the norm `clip` if it is longer; forget the gradient.

    The gradients at hand are those of the sum. Dividing by the number of targets and shortening are one division, and the
    optimizer does it while it reads them: a pass over all gradients costs as much as a good part of the step itself.

    Returns:
        The norm of the mean's gradient before shortening, a scalar where the model is.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    # The length of all gradients as one long vector: the root of the sum of the squares of their lengths.
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))) / max(targets, 1)
    divisor = max(targets, 1) * (norm / clip).clamp(min=1)
    if optimizer.defaults["fused"]:
        optimizer.grad_scale = divisor  # type: ignore[attr-defined]  # what a GradScaler sets: the fused kernel divides by it
    else:
        torch._foreach_div_(gradients, divisor)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)  # the next backward pass makes new ones, which is cheaper than zeros plus adding
    return norm


def step_batches(data: Dataset, options: TrainOptions, first: int, last: int) -> Iterator[tuple[int, list]]:
    """The steps `first` to `last`, counted from 1, and the items of each. Every epoch has an order of its own."""
    order: list = []
    for step in range(first, last + 1):
        epoch, at = divmod(step - 1, options.steps_per_epoch(len(data)))
        if at == 0 or step == first:  # a new epoch, or a resumed one
            order = data.order(epoch)
        yield step, order[at * options.step_size:(at + 1) * options.step_size]


def fit(model: GPT2, tokenizer: Tokenizer, data: Dataset, validation: Dataset, loss: Loss, options: TrainOptions,
        folder: Path, resume: bool = False, after_step: Callable[[int], None] | None = None) -> Run:
    """Train `model` and leave its best checkpoint, by validation loss, in the model and in `folder`.

    Args:
        data, validation: what to learn from, and what to stop and choose by. Without validation items the last
            checkpoint is kept. Checkpoints are judged by the plain next-token loss, whatever is trained.
        loss: gives a sum and a count for one batch.
        folder: gets the checkpoint, `metrics.csv`, with LoRA `adapter/` and, while training, `training_state.pt`.
        resume: go on from `training_state.pt` if it is there. On the CPU in fp32 the result is bit for bit that of a
            run that was never interrupted.
        after_step: called with the number of each step done (from 1), on every rank.

    Raises:
        InputError: if the loss is no longer a number.
    """
    total = options.total_steps(len(data))
    evaluate_every = options.evaluate_every or options.steps_per_epoch(len(data))
    if options.lora is not None:
        add_lora(model, options.lora)
    optimizer = make_optimizer(model, options)
    run = load_state(folder, model, optimizer) if resume else Run()
    saved = time.monotonic()
    began = saved - run.seconds  # when the run would have begun, had it never been interrupted
    if not run.history and len(validation):  # where the curve begins: the model before any step
        run.history.append({"step": 0, "epoch": 0.0, "tokens": 0, "targets": 0, "validation_loss": evaluate(
            model, validation, next_token_loss, options.batch_size, options.precision)})

    last = run.step if run.done else total  # what is done is not done again
    tokens = sum(map(data.size, data.items)) * total // options.steps_per_epoch(len(data))  # about as many in all
    with Progress("training", tokens, "tok", done=run.history[-1]["tokens"] if run.history else 0) as progress:
        model.train()
        for step, items in step_batches(data, options, run.step + 1, last):
            # One step: gradients and update.
            started = time.monotonic()
            lr = learning_rate(step, total, options.lr, options.warmup)
            summed, targets = accumulate_gradients(model, data, loss, items, options)
            norm = take_step(model, optimizer, targets, lr, options.clip)
            train_loss, added_loss = (value / max(targets, 1) for value in summed.tolist())  # here alone a GPU is waited for
            if not math.isfinite(train_loss + added_loss):  # nothing that follows could be a number again
                raise InputError(f"The loss is {train_loss + added_loss} at step {step}; lower --lr, or use --precision fp32.")

            # One row of metrics.
            seen = sum(map(data.size, items))  # tokens, without padding
            before = run.history[-1] if run.history else {"tokens": 0, "targets": 0}
            run.step = step
            run.history.append({
                "step": step, "epoch": step / options.steps_per_epoch(len(data)), "tokens": before["tokens"] + seen,
                "targets": before["targets"] + targets, "lr": lr, "train_loss": train_loss, "gradient_norm": norm.item(),
                "tokens_per_second": seen / (time.monotonic() - started)} | ({"added_loss": added_loss} if added_loss else {}))
            progress.advance(seen, f"loss {train_loss:.3f}")

            # Once in a while: evaluate, keep the best, save everything needed to go on from here.
            evaluated = step % evaluate_every == 0 or step == total
            if evaluated:
                judge_checkpoint(model, tokenizer, validation, options, folder, run, evaluate_every)
            if after_step is not None:
                after_step(step)
            run.stopped_early = step < total and options.patience is not None and run.waited >= options.patience
            run.done = step == total or run.stopped_early
            # The state comes after the checkpoint: killed between the two, the run evaluates this step once more.
            if evaluated or time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                saved = time.monotonic()
                run.seconds = saved - began
                save_state(folder, run, model, optimizer)
            if run.done:
                break

    distributed.barrier()  # the main process may still be writing
    remove_lora(model)
    load_weights(model, folder)  # the best checkpoint, not the last, with its updates merged
    model.eval()  # as `load_pretrained` gives it
    return run


def judge_checkpoint(model: GPT2, tokenizer: Tokenizer, validation: Dataset, options: TrainOptions, folder: Path,
                     run: Run, steps_back: int) -> None:
    """Evaluate, tell, and save the checkpoint if it is the best so far (or if there is nothing to judge it by)."""
    row = run.history[-1]
    if len(validation):  # by the plain loss, whatever is trained, so that all arms of an experiment are judged alike
        row["validation_loss"] = evaluate(model, validation, next_token_loss, options.batch_size, options.precision)
    train_loss = fmean(recent["train_loss"] for recent in run.history[-steps_back:] if recent["step"] > 0)
    better = row.get("validation_loss", -math.inf) < run.best_loss  # without validation, always
    run.waited = 0 if better else run.waited + 1
    if better:
        run.best_step, run.best_loss = row["step"], row.get("validation_loss", math.inf)
        if is_main():
            if options.lora is not None:
                save_adapter(model, options.base, folder / "adapter")
            save_pretrained(model, tokenizer, folder)
    told = f"validation loss {row['validation_loss']:.4f}" if "validation_loss" in row else "no validation set"
    say(f"  epoch {row['epoch']:5.2f}  step {row['step']:5d}  training loss {train_loss:.4f}  {told}"
        f"{'  (best)' if better else ''}")


def save_state(folder: Path, run: Run, model: GPT2, optimizer: torch.optim.Optimizer) -> None:
    """Write metrics.csv and training_state.pt: tensors and plain values only. When done, the tensors are left out."""
    if not is_main():
        return
    write_text(folder / "metrics.csv", history_csv(run.history))
    content: dict[str, Any] = {"state": asdict(run)}
    if not run.done:
        # The weights as they are now, not the best ones; AdamW's averages; and where dropout's random numbers stand.
        content |= {"model": trained_parameters(model), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
        if model.device.type == "cuda":
            content["cuda_rng"] = torch.cuda.get_rng_state()
    write_whole(folder / STATE_FILE, lambda path: torch.save(content, path))


def load_state(folder: Path, model: GPT2, optimizer: torch.optim.Optimizer) -> Run:
    """Put back what `save_state` wrote into this folder, if it did; return how far the run had come.

    Raises:
        InputError: if the file is damaged.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return Run()
    advice = f"remove it, and --resume trains from the start of {folder} again"
    if (folder / "model.safetensors").exists():
        advice = (f"the best checkpoint is whole, and python {sys.argv[0]} --model {folder} with your other options, without "
                  f"--resume and --out, starts from it; or {advice}")
    with files.reading(path, "damaged", advice):
        with zipfile.ZipFile(path) as archive:  # PyTorch's form: a checksum for each tensor, at which torch.load does not look
            if damaged := archive.testzip():
                raise ValueError(f"the checksum of {damaged} differs")
        # weights_only: a file from elsewhere may hold tensors and numbers, and no code that would run.
        content = torch.load(path, map_location="cpu", weights_only=True)
        files.check(content, STATE)
        run = Run(**content["state"])
        if (run.history[-1]["step"] if run.history else 0) != run.step:
            raise ValueError(f"its step is {run.step}, and its history ends elsewhere")
        if not run.done:
            for name, p in trained_parameters(model).items():
                p.data.copy_(content["model"][name])
            optimizer.load_state_dict(content["optimizer"])
            for weight, averages in optimizer.state.items():
                if any(averages[name].shape != weight.shape for name in ("exp_avg", "exp_avg_sq")):
                    raise ValueError("AdamW's averages have other shapes than the weights")
            torch.set_rng_state(content["rng"])
            if "cuda_rng" in content:
                torch.cuda.set_rng_state(content["cuda_rng"])
    return run


def read_history(path: Path) -> list[dict]:
    """The history back from `metrics.csv`.

    Raises:
        InputError: if the file is damaged, or holds no row.
    """
    with files.reading(path, "no metrics.csv of a run", "leave this run out"):
        rows = [{name: float(cell) for name, cell in row.items() if cell}
                for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())]
        files.check(rows, [{"epoch": float, "tokens": float}])
        if not rows:
            raise ValueError("it has no rows")
    return rows


def history_csv(history: list[dict]) -> str:
    """The history as CSV text; a cell is empty where nothing was measured."""
    columns = ["step", "epoch", "tokens", "targets", "lr", "train_loss", "added_loss", "validation_loss", "gradient_norm",
               "tokens_per_second"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
