"""One broken input of each kind, and one kill: the small version of `python -m tests.broken`."""

import json

import pytest

from tests import broken
from tests.broken import CASES, OPTIONS, prepare, try_file, try_option


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
    assert status == 2 or case.file in ("text.txt", "model/merges.txt")  # any UTF-8 is text, and bytes need no merges


@pytest.mark.slow
@pytest.mark.parametrize(("script", "option", "value"), OPTIONS[::7])
def test_a_value_that_is_not_allowed_is_refused_in_one_sentence(script, option, value):
    assert try_option(script, option, value) == ""


def test_the_generator_sees_a_fault(tmp_path):
    """Otherwise its zeros would mean nothing."""
    assert "status 1" in broken.fault(1, "Traceback ...\nKeyError: 'a'", {}, {})
    assert "not one sentence" in broken.fault(2, "warning\nerror: no.", {}, {})
    assert "changed ['a']" in broken.fault(2, "error: no.", {"a": b"1"}, {"a": b"2"})
    assert broken.fault(2, "error: no.", {}, {}) == broken.fault(0, "", {}, {"new": b""}) == ""
    rng = broken.random.Random(0)
    good = json.dumps({"a": [1, 2], "b": {"c": "d"}}).encode()
    assert len({content for _, content in (broken.spoil(good, rng) for _ in range(200))}) > 60
