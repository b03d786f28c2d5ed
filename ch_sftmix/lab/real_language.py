"""SFTMix on real language: a public model is trained on 200 Alpaca records by SFTMix and by plain training (NTP), and tested.

    python ch_sftmix/lab/real_language.py --data alpaca.json --out runs/real_sftmix     # hours
    python ch_sftmix/lab/real_language.py --out runs/real_sftmix --resume               # go on where it was interrupted

What is compared, and what we fixed beforehand, stands in ch_instruct/lab/real_language.md. DELIFT takes the same draws with
ch_delift/lab/real_language.py.
"""

from collections.abc import Sequence

from ch_instruct.lab import real_plan as plan
from ch_instruct.lab.real_plan import RealOptions, Trial
from common.support import options
from common.support.console import say

if __name__ == "__main__":
    options.run_command(options.parse, RealOptions, __doc__)  # --help and wrong options end here: imports take seconds

import torch

from ch_instruct.lab import real_draws as real
from ch_sftmix.lab.arms import ARMS, Cell
from ch_sftmix.train import reference_run
from common.support.files import FROM_0, read_json, write_json, write_text

CONTROLS = ("ntp, twice as long", "random halves", "mu = 0")  # what else could have lowered the loss


def page(entries: Sequence[dict]) -> str:
    """The results."""
    return "\n\n".join([
        "# SFTMix on real language", real.HEAD, real.primary_text(entries, [("sftmix", "ntp", plan.TRAIN)]),
        "**Controls.** We chose them when the result above was known, and before any of them was trained. They are a family of "
        "their own:", real.primary_text(entries, [("sftmix", arm, plan.TRAIN) for arm in CONTROLS]),
        "Described, not tested:", real.arm_table(entries, [(arm, plan.TRAIN) for arm in ("ntp", "sftmix", *CONTROLS)], "ntp"),
    ]) + "\n"


def main() -> None:
    given = options.parse(RealOptions, __doc__)
    everything, folder, journal = real.start(given)
    done = {(entry["draw"], entry["arm"]) for entry in journal.entries}
    for number in plan.DRAWS:
        work, known = real.draw(everything, number), folder / "perplexities" / f"{number}.json"
        for arm in ("ntp", "sftmix", *CONTROLS):
            if (number, arm) in done:
                continue
            say(f"draw {number} of {plan.DRAWS.start} to {plan.DRAWS[-1]}: {arm}")
            if arm == "ntp":
                _, perplexities = reference_run(work, folder / "model", 0)
                write_json(known, perplexities.tolist())
            else:
                perplexities = torch.tensor(read_json(known, [[FROM_0]]), dtype=torch.float64)
                ARMS[arm](Cell(work, folder / "model", 0, perplexities))
            journal.append(Trial(number, arm, plan.TRAIN, plan.LR[plan.TRAIN])._asdict() | real.measure(work))
    text = page(journal.entries)
    say("\n" + text)
    write_text(folder / "RESULTS.md", text)


if __name__ == "__main__":
    options.run_command(main)
