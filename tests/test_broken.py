"""One broken input of each kind, and one kill: the small version of `python -m tests.broken`."""

import json

import pytest

from tests import broken
from tests.broken import (
    CASES,
    ILL,
    OPTIONS,
    OVERWRITING,
    SPECIAL,
    TUNE,
    prepare,
    try_file,
    try_interrupt,
    try_option,
    try_overwriting,
    try_server,
    try_special,
    try_state,
)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    prepare(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"null", b'{"a": ["\\ud800"]}', "[]".encode("utf-16"), b"[" * 100_000],
                         ids=["empty", "null", "strange", "UTF-16", "deep"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.line[0].rpartition('/')[2]} {case.file}")
def test_a_file_with_other_content_is_refused_in_one_sentence(case, content, good):
    status, problem = try_file(case, content, good)
    assert problem == ""
    assert status == 2 or case.file == "text.txt"  # any UTF-8 is text


@pytest.mark.slow
@pytest.mark.parametrize(("script", "option", "value"), OPTIONS[::7])
def test_a_value_that_is_not_allowed_is_refused_in_one_sentence(script, option, value):
    assert try_option(script, option, value) == ""


@pytest.mark.slow
@pytest.mark.parametrize(("case", "kind"), [(case, list(SPECIAL)[number % len(SPECIAL)])
                                            for number, case in enumerate(CASES)],
                         ids=lambda one: one if isinstance(one, str) else one.file)
def test_what_is_no_file_is_refused(case, kind, good):
    assert try_special(case, kind, good) == ""


@pytest.mark.slow
@pytest.mark.parametrize("line", OVERWRITING, ids=lambda line: " ".join(map(str, line[-3:])))
def test_a_file_that_is_there_is_not_written_over(line, good):
    assert try_overwriting(line, good) == ""


@pytest.mark.slow
def test_a_state_that_no_training_comes_to_is_refused(good):
    rng = broken.random.Random(0)
    tried = dict(try_state(good, rng) for _ in range(12))
    assert {how: problem for how, problem in tried.items() if problem} == {} and len(tried) > 5


@pytest.mark.slow
@pytest.mark.parametrize("how", ["names", "terminal", "deep", "chunk", "gzip bomb", "elsewhere", "circles", "bytes"])
def test_a_judge_that_means_ill_is_refused(how, good):
    assert how in ILL and try_server(how, "judge", good) == ""


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.6, 1.5])
def test_ctrl_c_at_the_start_is_no_traceback(after, good):
    assert try_interrupt(("ch_instruct/train.py", *TUNE), after, good) == ""


def test_the_generator_sees_a_fault(tmp_path):
    """Otherwise its zeros would mean nothing."""
    assert "status 1" in broken.fault(1, "Traceback ...\nKeyError: 'a'", {}, {})
    assert "not one sentence" in broken.fault(2, "warning\nerror: no.", {}, {})
    assert "changed ['a']" in broken.fault(2, "error: no.", {"a": b"1"}, {"a": b"2"})
    assert broken.fault(2, "error: no.", {}, {}) == broken.fault(0, "", {}, {"new": b""}) == ""
    rng = broken.random.Random(0)
    good = json.dumps({"a": [1, 2], "b": {"c": "d"}}).encode()
    assert len({content for _, content in (broken.spoil(good, rng) for _ in range(200))}) > 60
