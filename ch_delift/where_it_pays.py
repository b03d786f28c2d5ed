"""Where does choosing data pay? The same comparison under six conditions, each with 500 training records of the classroom.

    python ch_delift/where_it_pays.py --out runs/where      # about 50 minutes on two cores

plain: 500 different records. redundant: 150 different ones, the rest put the same questions in other words. noisy: 3 of
10 answers are wrong. warm: the noisy set, the utilities measured with a model that has been fine-tuned on it for an epoch.
skewed: three families have 100 records each, thirteen share the rest. target: the plain set, chosen from and tested for
four families only (--stage task). Validation and test parts are those of the classroom in all six, and the utility of all
pairs is measured. A condition that is done is not repeated; one that was interrupted goes on.
"""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from ch_delift.baselines import random_subset
from ch_delift.plots import draw_differences
from ch_pretrain import classroom
from common import options
from common.console import say, table
from common.files import InputError, read_json, write_json
from common.plots import save_picture

TRAINING = 500
DIFFERENT = 150  # records of the redundant set that are not another one in other words
NOISE = 0.3
LARGE_FAMILIES, LARGE = ("plural", "color", "larger"), 100  # of the skewed set
TARGET_FAMILIES = ("plural", "past_tense", "opposite", "continent")
INTERVAL = {"mean": float, "half_interval": float}  # in report.json
CONDITIONS = ("plain", "redundant", "noisy", "warm", "skewed", "target")


def training_part(condition: str, large_families: Sequence[str] = LARGE_FAMILIES) -> list[dict]:
    """The training records of one condition, the same ones each time."""
    records = [r for r in classroom.records(noise=NOISE if condition in ("noisy", "warm") else 0.0) if r["split"] == "train"]
    random.Random("where it pays").shuffle(records)
    if condition == "redundant":
        return [record | {"instruction": classroom.reword(record["instruction"], turn - 1)} if turn else record
                for turn in range(-(-TRAINING // DIFFERENT)) for record in records[:DIFFERENT]][:TRAINING]
    if condition == "skewed":
        small = (TRAINING - LARGE * len(large_families)) // (len({r["family"] for r in records}) - len(large_families))
        seen: Counter = Counter()
        kept = []
        for record in records:
            seen[record["family"]] += 1
            if seen[record["family"]] <= (LARGE if record["family"] in large_families else small):
                kept.append(record)
        return kept
    return records[:TRAINING]


def what_was_chosen(data: list[dict], subset: list[int]) -> list[float]:
    """How many different things a subset asks about, the share of its answers that are wrong, and the share of it that is
    from the target families."""
    chosen = [data[i] for i in subset]
    return [len({(r["family"], r["key"]) for r in chosen}), fmean(["wrong" in r for r in chosen]),
            fmean([r["family"] in TARGET_FAMILIES for r in chosen])]


def run_script(script: str, out: Path, *arguments: object) -> None:
    """Run a command of this repository as a user would, or go on with it. If it fails, end as it ended."""
    resume = ["--resume"] if (out / "run.json").exists() else []
    path = Path(__file__).parents[1] / script
    done = subprocess.run([sys.executable, str(path), "--out", str(out), *map(str, arguments), *resume])
    if done.returncode:
        sys.exit(done.returncode)


def compare(condition: str, data: Path, run: Path, seeds: int, precision: str) -> None:
    """The comparison of one condition, into the folder `run`. What else it needs lies beside."""
    extra: list[object] = []
    if condition == "warm":
        model = run.with_name("warm-model")
        if not (model / "report.json").exists():
            run_script("ch_instruct/train.py", model, "--data", data, "--epochs", 1, "--precision", precision)
        extra = ["--kernel-model", model]
    if condition == "target":
        target = run.with_name("target-records.json")
        write_json(target, [r for r in classroom.records() if r["family"] in TARGET_FAMILIES])
        extra = ["--stage", "task", "--target", target]
    run_script("ch_delift/train.py", run, "--data", data, "--pairs", "all", "--seeds", seeds, "--precision", precision, *extra)


def main() -> None:
    parser = options.Parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where data and runs go")
    parser.add_argument("--conditions", nargs="+", default=CONDITIONS, metavar="C", choices=CONDITIONS,
                        help=f"which of {', '.join(CONDITIONS)} (default: all)")
    families = sorted({record["family"] for record in classroom.records()})
    parser.add_argument("--large", nargs=3, default=LARGE_FAMILIES, metavar="F", choices=families,
                        help=f"the three large families of the skewed set (default: {' '.join(LARGE_FAMILIES)})")
    parser.add_argument("--seeds", type=options.whole, default=5, metavar="N",
                        help="repetitions, for means and 95 %% intervals; at least 2 (default: %(default)s)")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"], help="as in train.py")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error("--seeds 1 gives no interval; it must be 2 or more")
    args.out.mkdir(parents=True, exist_ok=True)
    others = [r for r in classroom.records() if r["split"] != "train"]
    rows: list[list[str]] = []
    contents: list[list[str]] = []
    arms: list[str] = []
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for condition in args.conditions:
        data, run = args.out / f"{condition}.json", args.out / condition
        records = training_part(condition, args.large) + others
        if data.exists() and read_json(data) != records:
            raise InputError(f"--out {args.out} holds the {condition} set with other records; choose a new folder.")
        write_json(data, records)
        if not (run / "report.json").exists():
            say(f"\n{condition}")
            compare(condition, data, run, args.seeds, args.precision)
        summary = read_json(run / "report.json", {"summary": {str: {"exact_match": (INTERVAL, None)}}})["summary"]
        arms = [arm for arm in summary if arm != "base"]
        rows.append([condition, *(f"{summary[arm]['exact_match']['mean']:.1%} ± "
                                  f"{summary[arm]['exact_match']['half_interval']:.1%}" for arm in arms)])
        subset = read_json(run / "subset.json", {"ids": [int]})["ids"]
        n = len(records) - len(others)
        by_chance = [what_was_chosen(records, random_subset(n, len(subset), seed)) for seed in range(5)]
        cells = zip(what_was_chosen(records, subset), map(fmean, zip(*by_chance)), ("{:.0f}", "{:.1%}", "{:.1%}"))
        contents.append([condition, *(form.format(value) for *pair, form in cells for value in pair)])
        found[condition] = {schedule: tuple(100 * summary[f"delift{end} - random{end}"]["exact_match"][part]
                                            for part in ("mean", "half_interval"))
                            for schedule, end in (("equal steps", ""), ("equal epochs", ", equal epochs"))}
    save_picture(args.out / "differences.png", lambda ax: draw_differences(
        ax, found, "DELIFT minus random subsets (points of exact match, 95 % interval)"))
    # A row for each arm reads better than a column.
    say(f"\nExact match, {args.seeds} seeds, mean ± half of the 95 % interval\n")
    say(table(["", *(row[0] for row in rows)], [[arm, *(row[i + 1] for row in rows)] for i, arm in enumerate(arms)]))
    say("\n" + table(["what was chosen", "different questions", "by chance", "wrong answers", "by chance",
                      "of the four families", "by chance"], contents))


if __name__ == "__main__":
    options.run_command(main)
