"""The tiny job, with each step as long as the copy of its boundary into memory: its own are far shorter."""

import runpy
from concurrent import futures
from pathlib import Path

from trainerd.training.engine.run_saves import RunSaves

LIMIT_S = 20.0

keep_in_memory = RunSaves.keep_in_memory


def keep_and_wait(saves: RunSaves) -> None:
    writer = saves._writer
    if writer._preparation is not None:
        writer._preparation.join(LIMIT_S)
    if writer._in_flight is not None:
        futures.wait([writer._in_flight.future], LIMIT_S)
    keep_in_memory(saves)
    aside = writer._aside
    if aside is not None:
        aside.has_ended.wait(LIMIT_S)


RunSaves.keep_in_memory = keep_and_wait  # type: ignore[method-assign]
TINY = Path(__file__).resolve().parents[3] / "jobs" / "examples" / "tiny"
runpy.run_path(str(TINY / "train.py"), run_name="__main__")
