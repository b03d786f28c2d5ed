"""Runs side by side: what differs in their options, their scores, and their loss curves in one picture.

    python common/support/compare.py runs/ch_instruct/* runs/ch_sftmix/001
    python common/support/compare.py runs/ch_instruct/001 runs/ch_instruct/002 --out lora.png
"""

import argparse
from pathlib import Path

from common.support import files, options
from common.support.console import say, short_names, table
from common.support.files import InputError


def parse() -> argparse.Namespace:
    parser = options.Parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs")
    parser.add_argument("--out", type=Path, default=Path("comparison.png"), metavar="FILE",
                        help="where the picture of the loss curves goes, .png; written anew (default: %(default)s)")
    args = parser.parse_args()
    if args.out.suffix != ".png":
        raise InputError(f"--out {args.out}: the picture is a .png; choose such a name.")
    return args


if __name__ == "__main__":
    options.run_command(parse)  # --help and wrong options end here: the imports below take seconds

from common.support import plots, runs
from common.support.checkpoints import read_history
from common.support.reports import report_table

ARM = dict.fromkeys(("test_loss", "perplexity", "exact_match", "rouge_l", "stopped", "seconds"), (float, None))
NO_MATTER = {"out", "resume", "save_data"}  # options that say nothing about what was done


def read_report(folder: Path) -> tuple[dict, dict]:
    """What a finished run did, and the arms of its report.

    Raises:
        InputError: if there is no finished run, or its files are damaged.
    """
    if not (folder / "report.json").exists() or not (folder / "run.json").exists():
        raise InputError(f"{folder} holds no finished run (run.json and report.json); give run folders, as in "
                         "runs/ch_instruct/*.")
    run = runs.read_run(folder)
    report = files.read_json(folder / "report.json", {"arms": {str: ARM}}, "no report of a training run", "leave this run out")
    done = {name: value for name, value in run["options"].items() if name not in NO_MATTER}
    return done | run["facts"] | {"git_commit": run.get("git_commit")}, report["arms"]


def differences(done: dict[str, dict]) -> str:
    """A table of the options and facts that are not the same in all runs, a column per run; empty if there are none."""
    names = dict.fromkeys(name for run in done.values() for name in run)
    rows = [[name, *(_cell(run.get(name)) for run in done.values())] for name in names]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    return table(["", *done], rows) if rows else ""


def _cell(value: object) -> str:
    if value is None:  # not given, or no option of this run
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{key} {number}" for key, number in value.items())
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) < 40 else text[:12] + "..."  # a hash: enough to tell it from others


def main() -> None:
    args = parse()
    given = list(dict.fromkeys(args.runs))  # one that is named twice is one
    folders = dict(zip(short_names(list(map(str, given))), given))
    found = {name: read_report(folder) for name, folder in folders.items()}
    told = differences({name: done for name, (done, _) in found.items()})
    say(f"{told}\n" if told else "The runs have the same options and facts.\n")
    say(report_table({f"{name}: {arm}": result for name, (_, arms) in found.items() for arm, result in arms.items()}))
    curves = {name: read_history(folder / "metrics.csv") for name, folder in folders.items()
              if (folder / "metrics.csv").exists()}  # with several seeds, each has its own below
    if curves:
        plots.save_picture(args.out, lambda ax: plots.draw_losses(ax, curves), width=8.5, height=5.5)
        say(f"\nLoss curves of {', '.join(curves)}: {args.out}")


if __name__ == "__main__":
    options.run_command(main)
