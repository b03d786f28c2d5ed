"""SFTMix: split the data by the model's own confidence, then train with mixup between the halves.

    python ch_sftmix/train.py                                         # the classroom, minutes on a laptop
    python ch_sftmix/train.py --model gpt2 --data my.json --epochs 3  # your own Alpaca-format file
    python ch_sftmix/train.py --seeds 5                               # with 95 % intervals
    python ch_sftmix/train.py --split random                          # the control: do the halves matter?
    python ch_sftmix/train.py --leave-out 0.1                         # also plain training without a tenth, the least sure

Four steps: (1) a reference run by plain next-token prediction (NTP) notes the perplexity of every training response at C
checkpoints. (2) Confidence is minus the mean perplexity; the data is cut at its median into two halves. (3) The SFTMix run
starts from the pretrained model again and takes as many steps on as many examples. (4) The untouched model, the NTP run
and the SFTMix run take the same test.

The method: Xiao et al., "SFTMix", arXiv 2410.05248.
"""

import csv
import io
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from ch_instruct.support.fine_tuning_options import FineTuning, parse
from common.support import files, options
from common.support.console import is_main, say
from common.support.files import InputError
from common.support.options import beta_shape, not_negative, option, positive_share, repeats, whole

TEXTS = ("instruction", "input", "output")


@dataclass(frozen=True)
class SFTMix(FineTuning):
    """The options of this command."""

    alpha: float = option(0.5, "λ ~ Beta(α, α): below 1 mixtures lie near one example, above 1 near the middle (default: "
                          "%(default)s, as reported for the paper)", beta_shape, metavar="X")
    mu: float = option(0.2, "weight of the mixup loss; 0 is plain training (default: %(default)s, as reported for the paper)",
                       not_negative, metavar="X")
    split: str = option("confidence", "how the halves are made: by minus the mean perplexity, at random (the control), or by "
                        "minus the mean loss (default: %(default)s)", choices=["confidence", "random", "loss"])
    checkpoints: int | None = option(None, "how often the reference run measures perplexities, at equal distances "
                                     "(default: once an epoch)", whole, metavar="C")
    leave_out: float | None = option(None, "also train plainly without this share of the records, those of which the reference "
                                     "run was least sure compared with similar records, and list them: where answers are "
                                     "wrong, they are among these (default: do not)", positive_share, metavar="X")
    seeds: int = option(1, "repeat the comparison with N seeds and print means and 95 %% intervals (default: %(default)s)",
                        repeats, metavar="N")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % 2:
            raise InputError(f"--batch-size {self.batch_size} is odd; a batch holds as many confident as unconfident examples.")


if __name__ == "__main__":
    options.run_command(parse, SFTMix, __doc__)  # --help and wrong options end here: the imports below take seconds

import torch
from torch import Tensor

from ch_instruct import pipeline
from ch_instruct.perplexity import response_perplexities
from ch_instruct.pipeline import Work
from ch_instruct.prompts import one_line
from ch_instruct.support import cost
from ch_instruct.support.subset import write_subset
from ch_sftmix.confidence import confidence, negative_loss, random_split, relative_confidence, split, without_least_sure
from ch_sftmix.mixup import PairDataset, sftmix_loss, sftmix_terms
from ch_sftmix.plots import draw_confidence, draw_data_map
from common.embedding import mean_hidden_states
from common.gpt2 import GPT2
from common.losses import next_token_loss
from common.pretrained import load_weights
from common.support import distributed, plots, reports, runs
from common.support.checkpoints import Run


def reference_run(work: Work, folder: Path, seed: int, count: int | None = None) -> tuple[Run, Tensor]:
    """Plain fine-tuning that notes how well each training response is known on the way.

    Args:
        count: how often, at equal distances (None: once an epoch).

    Returns:
        The run, and the perplexities, float64 [C, N].
    """
    data = work.dataset("train", seed=seed)
    responses = work.dataset("train", loss_on="response")
    total = work.train_options().total_steps(len(data))
    count = readings(work, count)
    checkpoints = {round(total * c / count): c for c in range(1, count + 1)}  # step -> number of the checkpoint

    def note(row: dict) -> None:
        if (step := row["step"]) in checkpoints:
            found = response_perplexities(work.model, responses, 2 * work.options.batch_size, work.precision)
            if is_main():
                files.write_json(folder / f"perplexities-{checkpoints[step]}.json", found.tolist())

    run = pipeline.train(work, data, next_token_loss, folder, seed, after_step=note)
    distributed.barrier()
    rows = [read_perplexities(folder / f"perplexities-{c}.json", len(data)) for c in range(1, count + 1)]
    return run, torch.tensor(rows, dtype=torch.float64)


def readings(work: Work, count: int | None) -> int:
    """How often the reference run is asked for perplexities: `count` times, or once an epoch, and at most after every step."""
    return min(count or work.options.epochs, work.train_options().total_steps(len(work.examples["train"])))


def read_perplexities(path: Path, count: int) -> list[float]:
    """The perplexities of so many responses, as the reference run, perhaps before an interruption, wrote them.

    Raises:
        InputError: if the file does not hold them.
    """
    advice = f"remove the folder {path.parent} and go on with --resume"
    found = files.read_json(path, [files.FROM_0], "no list of perplexities", advice)
    if len(found) != count:
        raise InputError(f"{path} holds {len(found)} perplexities instead of {count}; {advice}.")
    return found


def make_halves(how: str, perplexities: Tensor, seed: int) -> tuple[list[int], list[int]]:
    """The two halves, as --split says: ids of confident and of unconfident examples."""
    if how == "random":
        return random_split(perplexities.size(1), seed)
    return split(confidence(perplexities) if how == "confidence" else negative_loss(perplexities))


def write_dynamics(path: Path, records: list[dict], rows: list[int], perplexities: Tensor,
                   halves: tuple[list[int], list[int]], relative: Tensor | None = None) -> None:
    """The training dynamics as a table: the record's row in the data file, from 1, its perplexity at each checkpoint, its
    confidence, its relative confidence (where that is known) and half, and its texts."""
    confident = set(halves[0])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", *(f"perplexity_{c + 1}" for c in range(len(perplexities))), "confidence",
                     *["relative_confidence"] * (relative is not None), "half", *TEXTS])
    for i, (column, sure) in enumerate(zip(perplexities.T.tolist(), confidence(perplexities).tolist())):
        writer.writerow([rows[i], *column, sure, *([] if relative is None else [relative[i].item()]),
                         "confident" if i in confident else "unconfident", *(records[i].get(name, "") for name in TEXTS)])
    files.write_text(path, text.getvalue())


def mean_states(work: Work) -> Tensor:
    """Each training example as the mean of its hidden states in the untouched model. float [N, D]."""
    load_weights(work.model, work.folder)
    ids = [example.ids for example in work.examples["train"]]
    return torch.from_numpy(mean_hidden_states(work.model, ids, work.precision))


def leave_out(work: Work, sure: Tensor, share: float, folder: Path, seed: int) -> Run:
    """Plain training without this share of the records, the least sure ones, with as many steps as on all. left_out.csv lists
    them, subset.json the others. `sure`: relative confidence, float [N]."""
    data = work.examples["train"]
    kept = without_least_sure(sure, share)
    left = sorted({*range(len(data))} - {*kept}, key=sure.tolist().__getitem__)  # the least sure one first
    if is_main():
        text = io.StringIO()
        rows = [[work.train_rows[i], sure[i].item(), *(work.records["train"][i].get(name, "") for name in TEXTS)] for i in left]
        csv.writer(text, lineterminator="\n").writerows([["row", "relative_confidence", *TEXTS], *rows])
        files.write_text(folder / "left_out.csv", text.getvalue())
        write_subset(folder / "subset.json", [work.train_ids[i] for i in kept], sure[kept].tolist(), {
            "data_sha256": work.facts["data_sha256"], "model_sha256": work.facts["model_sha256"], "seed": work.options.seed,
            "training_seed": seed, "options": runs.plain_options(work.options),
            "made": f"all training records but the {len(left)} of {len(data)} of which the reference run was least sure, "
                    "compared with similar records"})
        say(f"{len(left)} of {len(data)} records are left out; read them in {folder / 'left_out.csv'}. Every fine-tuning "
            f"command goes without them by --subset {shlex.quote(str(folder / 'subset.json'))}")
    part = pipeline.example_dataset([data[i] for i in kept], work.tokenizer, work.options.loss_on, seed)
    return pipeline.train(work, part, next_token_loss, folder / "left-out", seed, **work.equal_steps())


def read_aloud(records: list[dict], perplexities: Tensor) -> None:
    """Print the surest and the least sure training examples."""
    sure = confidence(perplexities)
    order = sure.argsort(descending=True).tolist()
    for title, ids in (("The model is surest of", order[:3]), ("and least sure of", order[:-4:-1])):
        say(f"\n{title}")
        for i in ids:
            say(f"  {-sure[i]:8.3f}  {one_line(records[i])}")


def mixup_run(work: Work, halves: tuple[list[int], list[int]], folder: Path, seed: int, alpha: float, mu: float,
              **changes: Any) -> Run:
    """The SFTMix run, with as many steps on as many examples as the reference run; `changes` as for `pipeline.train`.

    Its metrics hold the mixup term in a column of its own, so that `train_loss` is that of plain training.
    """
    passes: list[tuple[Tensor, int]] = []  # of the step under way: the mixup term and the number of targets

    def loss(model: GPT2, batch: tuple) -> tuple[Tensor, int]:
        ntp, mixed, count = sftmix_terms(model, batch)
        passes.append((mixed.detach(), count))
        return ntp + mixed, count

    def apart(row: dict) -> None:
        mixed, targets = distributed.add_up(sum(part.item() for part, _ in passes), sum(count for _, count in passes))
        passes.clear()
        row["mixup_loss"] = mixed / max(targets, 1)
        row["train_loss"] -= row["mixup_loss"]

    pairs = pair_dataset(work, halves, seed, alpha, mu)
    return pipeline.train(work, pairs, loss, folder, seed, apart, batch_size=work.options.batch_size // 2, **changes)


def pair_dataset(work: Work, halves: tuple[list[int], list[int]], seed: int, alpha: float, mu: float) -> PairDataset:
    """The training part as pairs across these halves."""
    return PairDataset(work.examples["train"], halves, work.tokenizer.eot_id, work.options.loss_on, alpha, mu, seed)


def tell_cost(work: Work, given: SFTMix) -> None:
    """Say what all comparisons will cost. The halves are not known yet: pairs cost what they cost with random ones."""
    plain, usual = work.dataset("train"), work.train_options()
    pairs = pair_dataset(work, random_split(len(plain), given.seed), given.seed, given.alpha, given.mu)
    plainly = given.seeds * (1 + (given.leave_out is not None))
    cost.tell(work, [
        cost.Training(plain, next_token_loss, usual, plainly * given.epochs * len(plain), plainly),
        cost.Training(pairs, sftmix_loss, replace(usual, batch_size=usual.batch_size // 2),
                      given.seeds * given.epochs * len(pairs), given.seeds)],
        readings=given.seeds * (readings(work, given.checkpoints) + (given.leave_out is not None)))


def run_arms(work: Work, given: SFTMix, test_base: Callable[[], pipeline.Arm], folder: Path, seed: int) -> dict[str, dict]:
    """One comparison: reference run, halves, SFTMix run, tests, pictures. Returns the arms of the report."""
    say(f"\n1. Reference run by next-token prediction, seed {seed}")
    ntp_run, perplexities = reference_run(work, folder / "ntp", seed, given.checkpoints)
    ntp = pipeline.test(work, ntp_run)

    say(f"\n2. Two halves by {given.split}, from {len(perplexities)} checkpoints")
    halves = make_halves(given.split, perplexities, seed)
    read_aloud(work.records["train"], perplexities)

    say(f"\n3. SFTMix run from the pretrained model, α = {given.alpha:g}, μ = {given.mu:g}")
    mix_run = mixup_run(work, halves, folder, seed, given.alpha, given.mu)
    sftmix = pipeline.test(work, mix_run)
    arms, curves = {"ntp": ntp, "sftmix": sftmix}, {"NTP": ntp_run.history, "SFTMix": mix_run.history}
    relative = None
    if given.leave_out is not None:
        say(f"\n4. Plain training without the {given.leave_out:.0%} of which the model is least sure, compared with similar "
            "records")
        relative = relative_confidence(confidence(perplexities), mean_states(work))
        rest = leave_out(work, relative, given.leave_out, folder, seed)
        arms["left out"], curves["left out"] = pipeline.test(work, rest), rest.history
    arms = {"base": test_base()} | arms
    if is_main():
        write_dynamics(folder / "dynamics.csv", work.records["train"], work.train_rows, perplexities, halves, relative)
        plots.save_picture(folder / "confidence.png", lambda ax: draw_confidence(ax, perplexities, halves))
        plots.save_picture(folder / "data_map.png", lambda ax: draw_data_map(ax, perplexities, halves))
    pipeline.finish(work, folder, arms, curves, "sftmix",
                    f"SFTMix (arXiv 2410.05248), α = {given.alpha:g}, μ = {given.mu:g}, halves by {given.split}",
                    "SFTMix's training loss without the mixup term", seed=seed)
    say(f"\nSFTMix needs the reference run too: {ntp_run.seconds + mix_run.seconds:.0f} s of training in all.")
    return {name: arm.result for name, arm in arms.items()}


def main() -> None:
    given = parse(SFTMix, __doc__)
    work = pipeline.prepare(given)
    if len(work.train_ids) < 2:
        raise InputError("One training record cannot be halved; SFTMix needs at least 2.")
    if given.leave_out is not None and not 0 < int(given.leave_out * len(work.train_ids) + 1e-9) < len(work.train_ids):
        raise InputError(f"--leave-out {given.leave_out} of {len(work.train_ids)} training records is none, or all; choose a "
                         "share that leaves out some of them.")
    folder = pipeline.open_run("ch_sftmix", work)
    tell_cost(work, given)
    test_base = cache(partial(pipeline.test_base, work))  # once, whatever the seeds
    if given.seeds == 1:
        run_arms(work, given, test_base, folder, given.seed)
        return

    seeds = list(range(given.seed, given.seed + given.seeds))
    arms = [run_arms(work, given, test_base, folder / f"seed-{seed}", seed) for seed in seeds]
    if is_main():
        reports.finish_comparison(folder, seeds, arms, [(arm, "ntp") for arm in arms[0] if arm in ("sftmix", "left out")])


if __name__ == "__main__":
    options.run_command(main)
