"""Run folders: where a command writes, what it records about itself, and the report at its end."""

import hashlib
import json
import math
import platform
import subprocess
import sys
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path

import torch

from common import distributed, files
from common.console import say, table
from common.files import InputError
from common.gpt2 import GPT2

ROOT = Path(__file__).resolve().parents[1]
MAY_DIFFER = {"resume", "out", "device", "timeout"}  # options that may change between a run and its resumption


def check_run(args: Namespace) -> None:
    """Refuse an output folder before any work is done: one that is in use, or one that cannot be resumed.

    Raises:
        InputError: if --out holds anything and --resume is not given, or --resume does not fit what is there.
    """
    if not args.resume:
        if args.out is not None and args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
            raise InputError(f"--out {args.out} already holds something; choose a new folder, or go on with that run by "
                             "--resume.")
        return
    if args.out is None:
        raise InputError("--resume needs --out, the folder of the interrupted run.")
    if not (args.out / "run.json").exists():
        raise InputError(f"--resume: {args.out} holds no run (no run.json).")
    recorded = files.read_json(args.out / "run.json")["options"]
    for name, value in plain_options(args).items():
        if name not in MAY_DIFFER and recorded.get(name) != value:
            raise InputError(f"--resume: the run in {args.out} has --{name.replace('_', '-')} {recorded.get(name)}, not "
                             f"{value}; give the same options.")


def recorded_precision(args: Namespace) -> str:
    """What --precision says; when resuming an `auto` run, what it was decided to be the first time."""
    if not args.resume:
        return args.precision
    return files.read_json(args.out / "run.json")["facts"]["precision"]


def plain_options(args: Namespace) -> dict[str, object]:
    """The options as JSON can hold them."""
    return {name: str(value) if isinstance(value, Path) else
            [str(v) if isinstance(v, Path) else v for v in value] if isinstance(value, list) else value
            for name, value in vars(args).items()}


def open_run(chapter: str, args: Namespace, facts: dict[str, object]) -> Path:
    """Make the run folder and write `run.json`: options, versions, commit, and `facts` (hashes, counts, ...).

    When resuming, the facts must be those of the first time.
    """
    folder = Path(distributed.from_main(str(_make_folder(chapter, args.out)) if distributed.is_main() else None))
    if args.resume:
        recorded = files.read_json(folder / "run.json")["facts"]
        for name, value in facts.items():
            if recorded.get(name) != value:
                raise InputError(f"--resume: {name} has changed since this run began ({recorded.get(name)} then, {value} "
                                 "now); put back what it was, or start a new run.")
    elif distributed.is_main():
        files.write_json(folder / "run.json", {
            "command": " ".join(["python", *sys.argv]), "options": plain_options(args), "facts": facts,
            "git_commit": git_commit(), "machine": f"{platform.system()} {platform.machine()}, "
                                                    f"{torch.get_num_threads()} threads",
            "versions": {"python": platform.python_version()} | {
                name: version(name) for name in ("torch", "tiktoken", "numpy", "safetensors", "huggingface_hub")}})
    say(f"Run folder: {folder}")
    return folder


def _make_folder(chapter: str, out: Path | None) -> Path:
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        return out
    number = 1
    while True:
        folder = Path("runs") / chapter / f"{number:03d}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def git_commit() -> str | None:
    """The commit of this code, with "+" if files have changed since; None outside a git checkout."""
    try:
        commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "-C", str(ROOT), "status", "--porcelain"], capture_output=True, text=True,
                                 check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")


def model_hash(model: GPT2) -> str:
    """SHA-256 over the names and values of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def data_hash(content: object) -> str:
    """SHA-256 of the content as canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def arm_result(test_loss: float | None, scores: dict | None, seconds: float | None) -> dict:
    """One arm of a report. Shares are between 0 and 1; None where a measure does not apply."""
    scores = scores or {"exact_match": None, "rouge_l": None, "stopped": None, "families": None}
    return {"test_loss": test_loss, "perplexity": None if test_loss is None else math.exp(min(test_loss, 700.0)),
            "exact_match": scores["exact_match"], "rouge_l": scores["rouge_l"], "stopped": scores["stopped"],
            "seconds": seconds, "families": scores["families"]}


def report_table(arms: dict[str, dict]) -> str:
    """The arms of a report as a table, one row each."""

    def cell(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return table(["", "test loss", "perplexity", "exact match", "ROUGE-L", "stopped", "seconds"], [
        [name, cell(arm["test_loss"], ".4f"), cell(arm["perplexity"], ",.2f"), cell(arm["exact_match"], ".1%"),
         cell(arm["rouge_l"], ".1%"), cell(arm["stopped"], ".1%"), cell(arm["seconds"], ".1f")]
        for name, arm in arms.items()])


def family_table(arms: dict[str, dict]) -> str:
    """Exact match by task family, a column per arm; arms may have been tested on different families."""
    families = sorted({family for arm in arms.values() for family in arm["families"]})
    return table(["exact match in", *arms], [
        [family, *(f"{arm['families'][family]:.0%}" if family in arm["families"] else "-" for arm in arms.values())]
        for family in families])


def finish_run(folder: Path, report: dict, by_family: list[str] | None = None) -> None:
    """Write report.json and print its arms; exact match by family for these arms (None: for all)."""
    files.write_json(folder / "report.json", report)
    say("\n" + report_table(report["arms"]))
    arms = {name: arm for name, arm in report["arms"].items() if by_family is None or name in by_family}
    if all(arm["families"] for arm in arms.values()):
        say("\n" + family_table(arms))


# Student's t: 97.5 % quantiles for 1, 2, ... degrees of freedom.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
         2.120, 2.110, 2.101, 2.093, 2.086)


def mean_interval(values: list[float]) -> tuple[float, float]:
    """The mean of at least two independent values, and half of its 95 % confidence interval (Student's t)."""
    n = len(values)
    centre = sum(values) / n
    deviation = math.sqrt(sum((v - centre) ** 2 for v in values) / (n - 1))
    quantile = T_975[n - 2] if n - 2 < len(T_975) else 1.960 + 2.5 / (n - 1)  # close to the exact value from there on
    return centre, quantile * deviation / math.sqrt(n)


def finish_comparison(folder: Path, seeds: list[int], repeats: list[dict[str, dict]],
                      pairs: list[tuple[str, str]]) -> None:
    """Write and print means over seeds with 95 % intervals, and the difference between two arms seed by seed.

    Args:
        repeats: the arms of each seed's report.
        pairs: arms to subtract; both of a pair share each seed, so their difference is taken within each.
    """
    measures = {"test_loss": ".4f", "exact_match": ".1%", "rouge_l": ".1%", "stopped": ".1%", "seconds": ".1f"}

    def summary(values: list[float | None], form: str) -> tuple[dict | None, str]:
        if None in values:
            return None, "-"
        centre, half = mean_interval(values)
        return {"mean": centre, "half_interval": half}, f"{centre:{form}} ± {half:{form}}"

    columns = {arm: [repeat[arm] for repeat in repeats] for arm in repeats[0]}
    for first, second in pairs:
        columns[f"{first} - {second}"] = [
            {m: None if None in (r[first][m], r[second][m]) else r[first][m] - r[second][m] for m in measures} for r in repeats]
    summaries, rows = {}, []
    for name, results in columns.items():
        cells = {m: summary([r[m] for r in results], form) for m, form in measures.items()}
        summaries[name] = {m: cell[0] for m, cell in cells.items()}
        rows.append([name, *(cell[1] for cell in cells.values())])
    arms = {arm: {m: mean_or_none([r[arm][m] for r in repeats]) for m in (*measures, "perplexity")}
            | {"families": first["families"] and {f: mean_or_none([r[arm]["families"][f] for r in repeats])
                                                  for f in first["families"]}}
            for arm, first in repeats[0].items()}
    files.write_json(folder / "report.json", {"seeds": seeds, "arms": arms, "summary": summaries})
    say(table(["", "test loss", "exact match", "ROUGE-L", "stopped", "seconds"], rows))


def mean_or_none(values: list[float | None]) -> float | None:
    """The mean, or None where a measure does not apply."""
    return None if None in values else sum(values) / len(values)
