"""Run the tiny job where locks do not keep two processes apart, as on two machines with one folder."""

import fcntl
import runpy
from pathlib import Path

fcntl.lockf = fcntl.flock = lambda *_args: None
fcntl.fcntl = lambda _descriptor, command, *_args, _call=fcntl.fcntl: (
    0 if command in {fcntl.F_SETLK, fcntl.F_SETLKW} else _call(_descriptor, command, *_args)
)
runpy.run_path(
    str(Path(__file__).resolve().parents[3] / "jobs" / "examples" / "tiny" / "train.py"), run_name="__main__"
)
