"""Which programs start with the signals held that ask for a stop, and that they lose none of them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from trainerd.contract.signals import SIGNALS_HELD, STOP
from trainerd.shim.held_start import SCRIPT_BYTES_MAX, takes_over_signals
from trainerd.shim.spawn import spawn


@pytest.mark.parametrize(
    "command",
    [
        ["python", "t.py"],
        ["/usr/bin/python3.11", "-u", "-W", "ignore", "t.py", "--lr", "1"],
        ["nice", "-n", "5", "python", "t.py"],
        ["env", "A=b", "python3", "-Xdev", "t.py"],
    ],
    ids=" ".join,
)
def test_an_interpreter_that_runs_a_script_with_trainerd_is_held(tmp_path, command):
    (tmp_path / "t.py").write_text("import os\nimport torch, trainerd.early as early\n")
    assert takes_over_signals(command, str(tmp_path))
    (tmp_path / "t.py").write_text('"""No session.\n\nimport trainerd\n"""\n')
    assert not takes_over_signals(command, str(tmp_path))


@pytest.mark.parametrize(
    "command",
    [
        *(["bash", "-c", "python t.py"], ["timeout", "1h", "python", "t.py"], ["torchrun", "t.py"]),
        *(["python", "-m", "t"], ["python", "-c", "import trainerd"], ["python"], ["python", "-"], []),
        *(["python", "gone.py"], ["python", "\0"], ["env"]),
    ],
    ids=" ".join,
)
def test_what_may_not_take_the_signals_over_is_not_held(tmp_path, command):
    (tmp_path / "t.py").write_text("from trainerd import session\n")
    assert not takes_over_signals(command, str(tmp_path))


@pytest.mark.parametrize(
    "source",
    [
        *("import trainerd_tools", "from . import trainerd", "def f():\n    import trainerd"),
        *(
            "import trainerd\n(",
            "import trainerd\n" + "(" * 500,
            "import trainerd\n" + " " * SCRIPT_BYTES_MAX,
        ),
    ],
    ids=["another", "relative", "later", "no syntax", "nested", "long"],
)
def test_a_script_that_may_not_import_trainerd_is_not_held(tmp_path, source):
    (tmp_path / "t.py").write_text(source)
    assert not takes_over_signals(["python", "t.py"], str(tmp_path))


SCRIPT = """
import os, signal, subprocess, sys, time
from pathlib import Path

Path("began").touch()
while not Path("signalled").exists():
    time.sleep(0.01)
import trainerd
from trainerd.training.interruption.early_signals import EARLY

number, at_s = EARLY.release()
age_s = time.monotonic() - at_s
held = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
code = "import os; print('TRAINERD_SIGNALS_HELD' in os.environ)"
child = subprocess.run([sys.executable, "-c", code], capture_output=True)
Path("found").write_text(f"{number} {age_s > 0.2} {held} {child.stdout.decode().strip()}")
"""


def test_a_signal_before_the_import_is_noted_and_counts_from_the_beginning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a shim goes to / when it has started a rank
    (tmp_path / "t.py").write_text(SCRIPT)
    environ = {**os.environ, SIGNALS_HELD: "1"}
    pid = spawn((sys.executable, "t.py"), str(tmp_path), environ, 2, held=STOP)
    os.kill(pid, signal.SIGUSR1)  # the interpreter has not begun yet
    deadline_s = time.monotonic() + 30
    while not (tmp_path / "began").exists() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    os.kill(pid, signal.SIGTERM)  # the same request
    time.sleep(0.2)
    (tmp_path / "signalled").touch()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    number, is_early, held, is_told = (tmp_path / "found").read_text().split()
    assert int(number) in {signal.SIGUSR1, signal.SIGTERM}
    assert (is_early, held, is_told) == ("True", "[]", "False")


def test_an_import_alone_takes_no_signal_where_the_shim_holds_none():
    code = "import signal, trainerd; print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"
    environ = {name: value for name, value in os.environ.items() if name != SIGNALS_HELD}
    found = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=True)
    assert found.stdout == b"True\n"
