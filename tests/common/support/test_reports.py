import json
import math

import numpy as np
import pytest
from scipy import stats

from common.support import reports
from common.support.reports import (
    arm_result,
    equivalence_p_value,
    finish_comparison,
    mean_interval,
    repetitions_needed,
    report_table,
)


def test_the_interval_is_students_t():
    """For 1, 2, 3: mean 2, standard deviation 1, t(0.975; 2) = 4.303, so 4.303 / sqrt(3)."""
    centre, half = mean_interval([1.0, 2.0, 3.0])
    assert (centre, half) == (2.0, pytest.approx(4.30265 / math.sqrt(3), rel=1e-5))
    assert mean_interval([5.0] * 30) == (5.0, 0.0)
    _, half = mean_interval([0.0, 1.0] * 50)
    assert half == pytest.approx(1.98422 * 0.502519 / 10, rel=1e-5)  # t(0.975; 99) = 1.984


def test_the_interval_of_a_share_is_scipys_where_nothing_is_half():
    for successes, n in ((0, 5), (3, 7), (50, 50), (17, 300)):
        theirs = stats.binomtest(successes, n).proportion_ci(method="wilson")
        assert reports.share_interval(successes / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


@pytest.mark.parametrize(("share", "n", "low", "high"), [
    (1.0, 10, 0.7225, 1.0), (0.5, 10, 0.2366, 0.7634), (0.0, 4, 0.0, 0.4899), (0.9, 100, 0.8256, 0.9448)])
def test_the_interval_of_a_share_has_the_published_values(share, n, low, high):
    assert reports.share_interval(share, n) == pytest.approx((low, high), abs=1e-4)


def test_an_interval_has_no_sign_of_its_own():
    assert reports.plus_minus((0.1, 0.02), "+.1%") == "+10.0% ± 2.0%"
    assert reports.plus_minus((1.0, 0.25), ".2f") == "1.00 ± 0.25"


def test_an_arm_has_perplexity_and_no_scores_where_none_apply():
    arm = arm_result(math.log(8), None, 1.5)
    assert arm["perplexity"] == pytest.approx(8.0) and arm["exact_match"] is None and arm["seconds"] == 1.5
    assert report_table({"base": arm}).splitlines()[-1].split() == ["base", "2.0794", "8.00", "-", "-", "-", "1.5"]


def test_a_run_that_was_not_tested_tells_a_validation_loss(tmp_path, capsys):
    reports.finish_run(tmp_path, {"arms": {"pretrained": arm_result(1.0, None, 1.5)}})
    told = capsys.readouterr().out
    assert "validation loss" in told and "test loss" not in told


def test_the_table_has_the_intervals_of_the_card():
    scores = {"exact_match": 0.9, "rouge_l": 0.95, "stopped": 1.0, "families": None}
    arms = {"ntp": arm_result(1.0, scores, None), "ntp on known": arm_result(1.0, scores, None)}
    told = report_table(arms, {"ntp": 100}).splitlines()
    assert "90.0% (82.6% to 94.5%)" in told[-2]  # Wilson, 90 of 100
    assert "90.0%" in told[-1] and "to" not in told[-1]  # how many were asked is not known
    assert max(map(len, told)) <= 100


@pytest.mark.parametrize(("n", "warned"), [(2, True), (49, True), (50, False)])
def test_a_comparison_on_almost_nothing_is_warned_of(n, warned, tmp_path, capsys):
    arms = {"ntp": arm_result(1.0, {"exact_match": 0.5, "rouge_l": 0.5, "stopped": 1.0, "families": None}, None)}
    reports.finish_run(tmp_path, {"tests": {"ntp": {"questions": n, "sha256": "0"}}, "arms": arms})
    told = capsys.readouterr().out
    assert f"there were {n}." in told and (f"Warning: {n} test questions are few" in told) == warned
    assert (f"{1 / n:.0%}. Do not rank" in told) == warned


def test_a_comparison_takes_differences_within_each_seed(tmp_path, capsys):
    def arms(ntp: float, mix: float) -> dict:
        scores = {"exact_match": 0.5, "rouge_l": 0.5, "stopped": 1.0, "families": {"sums": 0.5}}
        return {"base": arm_result(9.0, scores, None), "ntp": arm_result(ntp, scores, 1.0),
                "sftmix": arm_result(mix, scores, 2.0)}

    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "report.json").write_text(json.dumps({"tests": {"ntp": {"questions": 9, "sha256": "a"}}}))
    finish_comparison(tmp_path, [0, 1], [arms(1.0, 1.5), arms(3.0, 3.5)], [("sftmix", "ntp")])
    report = json.loads((tmp_path / "report.json").read_text())
    summary = report["summary"]
    assert report["tests"] == {"ntp": {"questions": 9, "sha256": "a"}}  # so compare.py knows of several seeds what they took
    assert summary["sftmix - ntp"]["test_loss"] == {"mean": 0.5, "half_interval": 0.0}
    assert summary["ntp"]["test_loss"]["half_interval"] == pytest.approx(12.7062)
    assert summary["base"]["seconds"] is None
    assert "sftmix - ntp 0.5000 ± 0.0000" in " ".join(capsys.readouterr().out.split())


def test_p_value_is_that_of_the_t_test():
    """Of four differences, by hand; and the interval touches 0 exactly where p is 0.05."""
    values = [0.3, -0.1, 0.4, 0.2]  # t = 0.2 / (0.216 / 2) = 1.852 with 3 degrees of freedom
    assert reports.p_value(values) == pytest.approx(2 * stats.t.sf(0.2 / (stats.tstd(values) / 2), 3))
    mean, half = reports.mean_interval(values)
    assert reports.p_value([value - mean + half for value in values]) == pytest.approx(0.05)
    assert reports.p_value([0.2, 0.2]) == 0 and reports.p_value([0.0, 0.0]) == 1


def test_holm_by_hand():
    """Four tests: 4 x 0.01, 3 x 0.02, then 2 x 0.025 = 0.05 is raised to the one before it, and 0.9."""
    assert reports.holm([0.9, 0.02, 0.01, 0.025]) == pytest.approx([0.9, 0.06, 0.04, 0.06])
    assert reports.holm([0.6, 0.7]) == [1.0, 1.0]


def test_equivalence_is_the_deeper_of_two_one_sided_tests():
    """Differences .01, -.01, .02, .02: mean .01, error .0071. From there to .03 are 2.83 errors, to -.03 more than 5."""
    values = [0.01, -0.01, 0.02, 0.02]
    expected = max(stats.ttest_1samp(values, 0.03, alternative="less").pvalue,
                   stats.ttest_1samp(values, -0.03, alternative="greater").pvalue)
    assert equivalence_p_value(values, 0.03) == pytest.approx(expected) == pytest.approx(0.033, abs=0.001)
    assert equivalence_p_value([-value for value in values], 0.03) == pytest.approx(expected)
    assert equivalence_p_value([0.04, 0.06], 0.03) > 0.5  # beyond the margin
    assert (equivalence_p_value([0.01, 0.01], 0.03), equivalence_p_value([0.04, 0.04], 0.03)) == (0.0, 1.0)


def test_so_many_repetitions_see_a_difference_as_often_as_they_should():
    """Known from tables: a difference of one spread needs 10 pairs, of half a spread 34, at 5 % and a power of 80 %."""
    assert (repetitions_needed(1.0, 1.0), repetitions_needed(1.0, 0.5)) == (10, 34)
    assert repetitions_needed(1.0, 0.5, alpha=0.05 / 6) > 34
    rng = np.random.default_rng(0)
    drawn = rng.normal(0.5, 1.0, (2000, 34))
    assert np.mean(stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.03)
