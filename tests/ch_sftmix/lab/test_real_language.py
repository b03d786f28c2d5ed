import json
import sys

import pytest

from ch_instruct.lab import real_draws, real_plan
from ch_pretrain import classroom
from ch_sftmix.lab import real_language

pytestmark = pytest.mark.slow


def test_both_arms_are_trained_on_each_draw_and_an_interrupted_run_goes_on(monkeypatch, tmp_path, llama_folder):
    sizes = {"TRAIN": 6, "TEST": 4, "ASKED": 2, "NEW_TOKENS": 4, "LONGEST": 300, "DRAWS": range(2, 4), "LR": {6: 3e-4}}
    for name, value in sizes.items():
        monkeypatch.setattr(real_plan, name, value)
    records = [{name: record[name] for name in ("instruction", "input", "output")} for record in classroom.records()[::9]]
    (tmp_path / "data.json").write_text(json.dumps(records))

    def start(name: str, *flags: str) -> list[dict]:
        monkeypatch.setattr(sys, "argv", ["real_language.py", "--data", str(tmp_path / "data.json"), "--model",
                                          str(llama_folder), "--out", str(tmp_path / name), *flags])
        real_language.main()
        return [json.loads(line) for line in (tmp_path / name / "trials.jsonl").read_text().splitlines()]

    whole = start("whole")
    assert [(e["draw"], e["arm"], e["records"]) for e in whole] == [
        (draw, arm, 6) for draw in (2, 3) for arm in ("ntp", "sftmix", *real_language.CONTROLS)]
    assert len({entry["test_loss"] for entry in whole[:5]}) == 5
    measure, count = real_draws.measure, []

    def interrupted(work):
        count.append(1)
        if len(count) == 2:  # the reference run is there, and SFTMix's is lost
            raise KeyboardInterrupt
        return measure(work)

    monkeypatch.setattr(real_draws, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start("parts")
    assert start("parts", "--resume") == whole and len(count) == 11
    page = (tmp_path / "parts" / "RESULTS.md").read_text()
    assert "sftmix - ntp, 6 records" in page and "sftmix - mu = 0, 6 records" in page and "Not finished" not in page
