"""A process that has imported the supervisor, which takes 1.3 s, and forks one whenever it is asked to."""

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

COMMAND_LINE = REPOSITORY / "daemon" / "trainerd" / "__main__.py"
MODULES = (
    "trainerd.cli.main",
    "trainerd.cli.needs_daemon",
    "trainerd.cli.run",
    "trainerd.supervisor.api.app",
    "trainerd.supervisor.api.server",
    "trainerd.supervisor.api.web.web_server",
    "trainerd.supervisor.service.configuration",
    "trainerd.supervisor.service.preflight",
    "trainerd.supervisor.service.service",
)
"""What `trainerd run` imports, in its own time."""


def supervisor_server() -> ForkServer:
    """Return a server whose process starts with its first use, and ends with this process."""
    return ForkServer(Path(__file__).resolve())


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for module in MODULES:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # what is shared stays shared
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if (asked := serve()) is not None:
        sys.exit(become(asked))
