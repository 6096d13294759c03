"""Run the attempts of a job one after the other, each in a process of its own: imports are paid for once.

``attempts.py JOB.py PLAN.json``: the plan is a list of environments. The job module is imported, and its
``main`` runs in one child process for each of them. Prints the exit codes as JSON. Imports that PyTorch
leaves for the first optimizer take several seconds, and are made here too.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path

import torch._dynamo  # noqa: F401 - see above

import trainerd.training.session  # noqa: F401 - see above
from trainerd.contract import failpoints

LIMIT_S = 60.0
"""How long an attempt may take."""

POLL_S = 0.01


def main() -> None:
    job_file, plan_file = Path(sys.argv[1]), Path(sys.argv[2])
    sys.path.insert(0, str(job_file.parent))
    job = importlib.import_module(job_file.stem)
    codes = []
    for environment in json.loads(plan_file.read_text()):
        pid = os.fork()
        if pid == 0:
            os.environ.update(environment)
            failpoints.arm(environment.get(failpoints.VARIABLE, ""))
            job.main()
            return  # the interpreter ends as that of any program does
        codes.append(wait_for(pid))
        if codes[-1] not in {0, 85, -9}:
            break
    print(json.dumps(codes))


def wait_for(pid: int) -> int:
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(POLL_S)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise TimeoutError(f"an attempt took more than {LIMIT_S:.0f} s")


if __name__ == "__main__":
    main()
