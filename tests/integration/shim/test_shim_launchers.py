"""Below programs that start others, the process that trains is found, told to stop and waited for."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

from shim_workbench import wait_for
from test_shim_wrappers import TRAINER

LAUNCHERS = {
    "xargs": "echo train.py | xargs $PYTHON; true",
    "timeout": "timeout 60 $TRAIN; true",
    "timeout --foreground": "timeout --foreground 60 $TRAIN; true",
    "env -S": 'env -S "$TRAIN"; true',
    "nice": "nice -n 1 $TRAIN; true",
    "stdbuf": "stdbuf -oL $TRAIN; true",
    "setsid": "setsid -w $TRAIN; true",
    "setsid --fork": "setsid -f $TRAIN; true",
    "nohup": "nohup $TRAIN; true",
    "script": 'script -qec "$TRAIN" /dev/null; true',
    "su": 'su root -m -s /bin/sh -c "$TRAIN"; true',
    "runuser": "runuser -u root -- $TRAIN; true",
    "make": "make -s train; true",
    "flock": "flock lock $TRAIN; true",
    "find": "find train.py -exec $PYTHON {} ';'; true",
    "trap": "trap '' TERM; $TRAIN; true",
    "coproc": "bash -c 'coproc $TRAIN; wait'; true",
    "process substitution": "bash -c '$TRAIN > >(cat)'; true",
    "unshare --pid": "unshare --fork --pid $TRAIN; true",
    "unshare --pid --mount-proc": "unshare --fork --pid --mount-proc $TRAIN; true",
}
ROOT_ONLY = {"su", "runuser", "unshare --pid", "unshare --pid --mount-proc"}
UNSHARES = ["unshare", "--fork", "--pid", "--mount-proc", "true"]


def test_a_stop_reaches_the_session_below_each_launcher(workbench):
    names = [name for name in LAUNCHERS if shutil.which(name.split()[0]) or name in {"trap", "coproc"}]
    if os.geteuid() != 0:
        names = [name for name in names if name not in ROOT_ONLY]
    elif shutil.which("unshare") and subprocess.run(UNSHARES, capture_output=True, check=False).returncode:
        names = [name for name in names if not name.startswith("unshare")]
    started = {}
    for attempt, name in enumerate(names, 1):
        here = workbench.here / str(attempt)
        here.mkdir()
        (here / "train.py").write_text(TRAINER)
        (here / "Makefile").write_text("train:\n\t$(TRAIN)\n")
        paths = workbench.launch(
            ("sh", "-c", LAUNCHERS[name]),
            attempt=attempt,
            workdir=here,
            HERE=str(here),
            PYTHON=sys.executable,
            TRAIN=f"{sys.executable} {here}/train.py",
            ATTEMPT=str(workbench.run.attempt(attempt).root),
            PYTHONPATH=os.environ.get("PYTHONPATH", ""),
        )
        started[name] = here, paths
    for name, (here, paths) in started.items():
        wait_for((here / "trainer").exists, f"the trainer below {name}")
        workbench.launcher.signal(paths, signal.SIGTERM)
    for name, (here, paths) in started.items():
        (rank,) = workbench.ended(paths).ranks
        assert (here / "saved").exists(), name
        assert rank.killed_by_shim is None, name
