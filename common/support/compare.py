"""Runs side by side: what differs in their options, their scores, and their loss curves in one picture.

    python common/support/compare.py runs/ch_instruct/* runs/ch_sftmix/001
    python common/support/compare.py runs/ch_instruct/001 runs/ch_instruct/002 --out lora.png
"""

import json
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from common.support import files, options
from common.support.console import WIDTH, say, short_names, table
from common.support.files import InputError
from common.support.options import REQUIRED, Options, option


@dataclass(frozen=True)
class CompareOptions(Options):
    """The options of this command."""

    runs: tuple[Path, ...] = option(REQUIRED, "folders of finished runs", Path, positional=True, nargs="+", metavar="RUN")
    out: Path = option(Path("comparison.png"), "where the picture of the loss curves goes, .png; written anew (default: "
                       "%(default)s)", Path, metavar="FILE")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out.suffix != ".png":
            raise InputError(f"--out {self.out}: the picture is a .png; choose such a name.")


if __name__ == "__main__":
    options.run_command(options.parse, CompareOptions, __doc__)  # --help and wrong options end here: imports take seconds

from common.support import plots
from common.support.checkpoints import read_history
from common.support.reports import report_table

TEST = {"questions": int, "sha256": str}
SHARE = (files.Within(float, 0, 1), None)
ARM = dict.fromkeys(("test_loss", "perplexity", "seconds"), (files.FROM_0, None)) | dict.fromkeys(
    ("exact_match", "rouge_l", "stopped"), SHARE)
FILES = ("run.json", "report.json")  # of a finished run
NO_MATTER = {"out", "resume", "save_data"}  # options that say nothing about what was done
OTHER_TOKENS = ("model", "format", "loss_on")  # options that may change which tokens the test's loss counts


def read_report(folder: Path) -> tuple[dict, dict, dict]:
    """What a finished run did, the arms of its report, and the test of each: "questions" and "sha256".

    Raises:
        InputError: if its files are damaged.
    """
    run = options.read_run(folder)
    report = files.read_json(folder / "report.json", {"arms": {str: ARM}}, "no report of a training run", "leave this run out")
    tests = report.get("tests", {})
    with files.reading(folder / "report.json", "no report of a training run", "leave this run out"):
        files.check(tests, {str: TEST})
    done = {name: value for name, value in run["options"].items() if name not in NO_MATTER}
    return done | run["facts"] | {"git_commit": run.get("git_commit")}, report["arms"], tests


def differences(done: dict[str, dict]) -> str:
    """A table of the options and facts that are not the same in all runs, a column per run; empty if there are none."""
    names = dict.fromkeys(name for run in done.values() for name in run)
    different = [name for name in names if len({json.dumps(run.get(name), sort_keys=True) for run in done.values()}) > 1]
    rows = [[name, *(_cell(run.get(name)) for run in done.values())] for name in different]
    return table(["", *done], rows, WIDTH) if rows else ""


def score_rows(found: dict[str, tuple[dict, dict, dict]]) -> str:
    """All arms of all runs as a table. Where they took different tests, each is marked with the letter of its own. A mean over
    seeds has no interval: the one for the choice of the questions would not be its own."""
    letters: dict[str, str] = {}
    arms: dict[str, dict] = {}
    questions: dict[str, int] = {}
    sets = {tests.get(arm, {}).get("sha256") for _, results, tests in found.values() for arm in results}
    for name, (done, results, tests) in found.items():
        seeds = done.get("seeds") or 1
        for arm, result in results.items():
            row, test = f"{name}: {arm}" + f", mean of {seeds} seeds" * (seeds > 1), tests.get(arm)
            row += " (validation loss)" * (arm == "pretrained")  # pretraining has no test
            if len(sets) > 1:  # A to Z, then AA to ZZ, ...; a report of an earlier version does not tell its test
                n = len(letters)
                row += f" [{letters.setdefault(test['sha256'], ascii_uppercase[n % 26] * (1 + n // 26)) if test else '?'}]"
            arms[row] = result
            questions |= {row: test["questions"]} if test and seeds == 1 else {}
    notes = [f"[{'], ['.join(letters.values())}]: different tests; compare only rows with the same letter."
             + " [?]: the report does not tell its test." * (None in sets)] * bool(letters)
    tokens = list(OTHER_TOKENS)
    if any(done.get("over_length") == "truncate" for done, _, _ in found.values()):
        tokens.append("max_length")
    if others := [name for name in tokens if len({done.get(name) for done, _, _ in found.values()}) > 1]:
        notes.append(f"Losses and perplexities may be those of different tokens ({', '.join(others)}); compare exact matches.")
    limits = sorted({done["max_new_tokens"] for done, _, _ in found.values() if "max_new_tokens" in done})
    if len(limits) > 1:
        notes.append(f"Answers were cut after {' or '.join(map(str, limits))} tokens; exact matches may differ by that.")
    return "\n".join([report_table(arms, questions), *notes])


def _cell(value: object) -> str:
    if value is None:  # not given, or no option of this run
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{key} {number}" for key, number in value.items())
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) < 40 else text[:12] + "..."  # a hash: enough to tell it from others


def main() -> None:
    args = options.parse(CompareOptions, __doc__)
    given = list(dict.fromkeys(args.runs))  # one that is named twice is one
    folders = dict(zip(short_names(list(map(str, given))), given))
    finished = {name: folder for name, folder in folders.items() if all((folder / file).exists() for file in FILES)}
    for name, folder in folders.items():
        if name not in finished:
            say(f"{folder} holds no finished run ({' and '.join(FILES)}); it is left out.")
    if not finished:
        raise InputError("There is no finished run to look at; give run folders, as in runs/ch_instruct/*.")
    found = {name: read_report(folder) for name, folder in finished.items()}
    told = differences({name: done for name, (done, _, _) in found.items()})
    say(f"{told}\n" if told else "The runs have the same options and facts.\n")
    say(score_rows(found))
    curves = {name: read_history(folder / "metrics.csv") for name, folder in finished.items()
              if (folder / "metrics.csv").exists()}  # with several seeds, each has its own below
    if curves:
        height = 5.5 + 0.4 * max(len(curves) - 3, 0)  # of many runs, the legend stands below
        plots.save_picture(args.out, lambda ax: plots.draw_losses(ax, curves), 8.5, height)
        say(f"\nLoss curves of {', '.join(curves)}: {args.out}")


if __name__ == "__main__":
    options.run_command(main)
