"""A process that has imported torch already and forks a rank whenever it is asked to.

    with RankServer() as server:
        rank = server.launch(script, arguments, environment, log)
        rank.wait(10)

Only the interpreter's teardown is left out, which takes seconds in a process with all of torch.
"""

from __future__ import annotations

import gc
import importlib
import signal
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
if __name__ == "__main__":  # instead of this file's folder, which has nothing to import
    sys.path[:1] = [str(REPOSITORY / "daemon"), str(REPOSITORY)]

from tests.support.fork_server import ForkServer, become, serve  # noqa: E402 -- needs the path


class RankServer(ForkServer):
    """Starts the process with its first use, and ends it with the block or with this process.

    Args:
        modules: What to import besides torch and trainerd.
    """

    def __init__(self, *modules: str) -> None:
        super().__init__(Path(__file__).resolve(), *modules)


def _warm_up(modules: list[str]) -> None:
    """Import what the scripts import. No thread may live here, for none would live on in a fork."""
    import torch.distributed

    import tests.support.tiny_parts
    import trainerd
    import trainerd.training.session

    assert (torch.distributed, tests.support.tiny_parts, trainerd) is not None
    next(iter(torch.utils.data.DataLoader(torch.zeros(1, 1))))  # imports more
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # what is shared stays shared


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _warm_up(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if (asked := serve()) is not None:
        exit_code = become(asked)
        from trainerd.training.interruption import leaving

        leaving.end_workers()
        leaving.exit_process(exit_code)
