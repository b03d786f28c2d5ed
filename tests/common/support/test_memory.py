"""Memory that a training step has freed is kept for the next."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from common.support import memory
from tests.conftest import ROOT

GNU = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
BLOCK = 2**27  # bytes, more than malloc keeps by itself
PAGES = BLOCK // 4096
PROGRAM = f"""
import ctypes, resource
from common.support import memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.create_string_buffer({BLOCK})  # it is cleared, so each of its pages is touched
    del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

new_pages()
before, first = held(), new_pages()
with memory.kept():
    new_pages()
    within, kept = new_pages(), held()
print(first, within, new_pages(), kept - before, held() - before)
"""


@pytest.mark.skipif(not GNU, reason="only GNU's malloc gives memory back at once")
@pytest.mark.parametrize("theirs", [{}, {"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}])
def test_pages_are_kept_within_the_context_only_and_given_back_after_it(theirs):
    untouched = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=untouched | theirs | {"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, within, after, kept, given_back = map(int, done.stdout.split())
    huge = first < PAGES // 2  # the system may clear 512 pages at once; then counting them shows little
    assert huge or (first > 0.9 * PAGES and after > 0.9 * PAGES)
    assert given_back < 0.1 * BLOCK
    if theirs:
        assert kept < 0.1 * BLOCK
    else:
        assert within < 0.1 * PAGES and kept > 0.9 * BLOCK


@pytest.mark.parametrize(("system", "opened"), [("win32", []), ("darwin", []), ("linux", [None])])
def test_another_systems_malloc_stays_as_it_is(system, opened, monkeypatch):
    """On Linux there may be musl's, which has no mallopt."""
    found = []
    monkeypatch.setattr(ctypes, "CDLL", found.append)
    monkeypatch.setattr(sys, "platform", system)
    with memory.kept({}):
        assert found == opened


@pytest.mark.skipif(not GNU, reason="only GNU's malloc has the settings")
def test_an_error_within_passes_through():
    with pytest.raises(ZeroDivisionError), memory.kept({}):
        raise ZeroDivisionError
