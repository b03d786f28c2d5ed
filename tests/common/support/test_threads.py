"""How PyTorch's threads wait, and how many there are."""

import math
import os
import subprocess
import sys
import threading

import pytest

from common.support import threads
from common.support.threads import SPIN, STAT, cpu_share, prepare, seconds_of, teams_needed
from tests.conftest import ROOT

PACKAGES = ["common", "ch_pretrain", "ch_instruct", "ch_sftmix", "ch_delift", "notebooks", "tests"]


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_anything_of_ours_settles_it_before_pytorch_is_loaded(package):
    """Python runs a package's own file before any module in it."""
    program = (f"import os, sys, {package}\n"
               f"print({{name: os.environ.get(name) for name in {list(SPIN)}}} == {SPIN}, 'torch' in sys.modules)")
    untouched = {name: value for name, value in os.environ.items() if name not in (*SPIN, "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", program], env=untouched | {"PYTHONPATH": str(ROOT)}, capture_output=True,
                          text=True)
    assert done.stdout == "True False\n", done.stderr


def test_every_package_is_among_them():
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(PACKAGES)


@pytest.mark.parametrize("theirs", [{"KMP_BLOCKTIME": "0"}, {"OMP_NUM_THREADS": "7"},
                                    {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_what_the_user_has_set_stays(theirs, monkeypatch):
    monkeypatch.setattr(threads, "cpu_share", lambda: 0.5)
    environment = dict(theirs)
    prepare(environment)
    assert theirs.items() <= environment.items()
    assert SPIN.keys().isdisjoint(environment) == ("OMP_WAIT_POLICY" in theirs)


@pytest.mark.parametrize(("share", "number"), [(math.inf, None), (1.0, "1"), (0.2, "1"), (1.5, "2"), (4.0, None), (3.0, "3")])
def test_a_container_that_may_take_less_than_its_cores_gets_fewer_threads(share, number, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 5, 6}, raising=False)
    monkeypatch.setattr(threads, "cpu_share", lambda: share)
    environment = {}
    prepare(environment)
    assert environment.get("OMP_NUM_THREADS") == number
    assert environment.get("GOMP_SPINCOUNT") == (number and "1000")


@pytest.mark.parametrize(("limits", "own", "share"), [
    ({}, "0::/\n", math.inf),
    ({".": "max 100000\n"}, "0::/\n", math.inf),
    ({".": "150000 100000\n"}, "0::/\n", 1.5),  # as a container sees it
    ({"user/session": "max 100000\n", "user": "50000 100000\n", "other": "10000 100000\n"}, "0::/user/session\n", 0.5),
    ({"user/session": "300000 100000\n", "user": "max 100000\n"}, "1:name=x:/a\n0::/user/session\n", 3.0),
    ({".": "200000 100000\n"}, "9:cpu:/\n", 2.0),
    ({".": "200000 100000\n"}, None, 2.0)])
def test_the_share_is_the_smallest_limit_on_the_way_up(limits, own, share, tmp_path):
    for folder, limit in limits.items():
        (tmp_path / "groups" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / folder / "cpu.max").write_text(limit)
    if own is not None:
        (tmp_path / "own").write_text(own)
    assert cpu_share(tmp_path / "groups", tmp_path / "own") == share


@pytest.mark.parametrize(("others", "cores", "ours", "needed"), [
    (0.1, 2, 2, 0), (0.9, 2, 2, 1),  # one team of two: three threads are more than the cores
    (0.9, 8, 4, 0), (3.9, 8, 4, 0), (4.5, 8, 4, 2),  # there are cores for the others, until they take more than four
    (2.0, 2, 1, 0), (130.0, 128, 2, 0)])  # one thread waits for none; 127 teams are too many
def test_teams_are_called_when_others_take_our_cores(others, cores, ours, needed):
    assert teams_needed(others, cores, ours) == needed
    assert not needed or ours + needed * (ours - 1) > cores >= ours + (needed - 1) * (ours - 1)


def test_what_the_cores_have_computed(tmp_path):
    (tmp_path / "stat").write_text("cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 100 20 3 999 999 40 5 6 7 7\n"
                                   "cpu1 1000 0 0 0 0 0 0 0 0 0\ncpu12 1 0 0 5 0 0 0 0 0 0\nintr 5\n")
    ticks = os.sysconf("SC_CLK_TCK")
    assert seconds_of({0, 12}, tmp_path / "stat") == pytest.approx((100 + 20 + 3 + 40 + 5 + 6 + 1) / ticks)


@pytest.mark.slow
@pytest.mark.skipif(not STAT.exists(), reason="only Linux tells what its cores do")
@pytest.mark.parametrize("settings", [{}, {"GOMP_SPINCOUNT": "5"}])
def test_sleeping_threads_come_and_go_with_the_load(settings):
    """Others take nothing, then one of a process's two cores, then nothing. (Both are made up.)"""
    program = """
import os, time
from common.support import threads
taken, load, then = 0.0, 0.0, time.monotonic()
def seconds_of(cores):  # ours, and the load of others since the last time
    global taken, then
    taken, then = taken + load * (time.monotonic() - then), time.monotonic()
    return taken + time.process_time()
threads.SECONDS, threads.seconds_of = 0.1, seconds_of
os.sched_getaffinity = lambda process: {0, 1}
import common.support.device, torch
torch.ones(2**20).sum()
found = []
for load in (0.0, 1.0, 0.0):
    time.sleep(1)
    found.append(len(os.listdir("/proc/self/task")))
print([number - found[0] for number in found])
load = 1.0
time.sleep(0.5)  # Python ends while a team sleeps
"""
    untouched = {name: value for name, value in os.environ.items() if name not in threads.THEIRS}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          env=untouched | settings | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"})
    assert (done.stdout, done.returncode, done.stderr) == ("[0, 0, 0]\n" if settings else "[0, 2, 0]\n", 0, "")


@pytest.mark.skipif(not STAT.exists(), reason="only Linux tells what its cores do")
def test_what_cannot_be_read_ends_the_watch_and_nothing_else(monkeypatch):
    def unreadable(cores):
        raise OSError("too many open files")

    monkeypatch.setattr(threads, "seconds_of", unreadable)
    before = threading.active_count()
    threads._watch()  # returns
    assert threading.active_count() == before
