"""What holds for every test."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from trainerd.contract.signals import STOP

UNTIMED = [HealthCheck.too_slow]
"""How fast inputs are made says how busy the machine is, not whether a fact holds."""

settings.register_profile("everyday", derandomize=True, suppress_health_check=UNTIMED)
"""The same inputs each time: a test that failed fails again, and none fails for luck."""

settings.register_profile("new-inputs", derandomize=False, print_blob=True, suppress_health_check=UNTIMED)
"""Other inputs each time, as CI tries them."""

settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "everyday"))

LONG_BYTES = 60
"""A TMPDIR longer than this leaves no room for the sockets of multiprocessing, such as those of loader
workers."""


def pytest_configure() -> None:
    """See to it that Ctrl-C reaches what the tests start, and that a long TMPDIR is no reason to fail.

    A shell that puts the suite in the background has it ignore SIGINT, and `nohup` has it ignore SIGHUP. So
    would every program that a test interrupts: what is ignored stays so across exec, what is handled does
    not.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if len(tempfile.gettempdir()) > LONG_BYTES:
        # Newer Pythons do the same by themselves; older ones let the workers hang.
        short = tempfile.mkdtemp(dir="/tmp", prefix="trainerd-")
        atexit.register(shutil.rmtree, short, ignore_errors=True)
        multiprocessing.current_process()._config["tempdir"] = short


def name_apart(items: list[pytest.Item]) -> None:
    """Number the tests that have the same id, as schemathesis gives one to all operations of an API.

    xdist hands out tests by their ids: of those with the same one it would run a single one.
    """
    seen: Counter[str] = Counter()
    for item in items:
        seen[item.nodeid] += 1
        if (number := seen[item.nodeid]) > 1:
            own: Any = item
            nodeid = f"{item.nodeid}[{number}]"
            if hasattr(item, "_id"):  # of pytest 9.2 and later
                own._id = type(own._id).parse(nodeid)
            else:
                own._nodeid = nodeid


@pytest.hookimpl(trylast=True)  # without what is deselected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files whose slow tests may take longest, by their limits.

    A worker of xdist takes its next file while it has two tests left: were files of one or two long tests the
    last ones, some workers would keep several of them while the others have nothing to do.
    """
    name_apart(items)
    limit_s = float(config.getini("timeout"))
    longest_s = dict.fromkeys((item.path for item in items), 0.0)
    for item in items:
        if item.get_closest_marker("slow") is not None:
            own = item.get_closest_marker("timeout")
            longest_s[item.path] += own.args[0] if own is not None else limit_s
    items.sort(key=lambda item: -longest_s[item.path])


@pytest.fixture(autouse=True)
def _signals_are_handled_as_before(request: pytest.FixtureRequest):
    """Fail a test that leaves a handler behind: others in the same process would be deaf and fail."""
    before = {number: signal.getsignal(number) for number in STOP}
    yield
    left = [number for number in STOP if signal.getsignal(number) != before[number]]
    for number in left:
        signal.signal(number, before[number])
    assert not left, (
        f"{request.node.nodeid} left handlers of its own: {[signal.Signals(n).name for n in left]}"
    )


@pytest.fixture(autouse=True)
def _working_directory_is_as_before(request: pytest.FixtureRequest):
    """Fail a test that leaves the process in another folder: what others start there finds no modules."""
    before = Path.cwd()
    yield
    try:
        after = Path.cwd()
    except FileNotFoundError:
        after = "a folder that is gone"
    if after != before:
        os.chdir(before)
    assert after == before, f"{request.node.nodeid} left the process in {after}"
