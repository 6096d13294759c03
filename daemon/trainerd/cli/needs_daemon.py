"""The packages of the command line: a clear message where trainerd was installed for training only.

Imports the standard library alone, since it runs before click is known to be installed.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Final

PACKAGES: Final = (
    "click",
    "fastapi",
    "httpx",
    "jinja2",
    "prometheus_client",
    "psutil",
    "pydantic",
    "rich",
    "structlog",
    "uvicorn",
    "watchdog",
    "yaml",
)
"""Import names of the extra `daemon` in pyproject.toml."""

_USER_ERROR: Final = 1
"""The exit code of every other mistake of the user's: see `trainerd.cli.main.Verbs.invoke`."""


def refuse_without_daemon() -> None:
    """End the process with a message if a package of the daemon is missing; takes a millisecond.

    All are looked for at once. Most are imported late, some in threads: a supervisor that starts and then
    misses one would be worse than none.

    Raises:
        SystemExit: A package of the extra `daemon` is not installed.
    """
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        sys.stderr.write(
            f"error: not installed for {sys.executable}, and needed by the command trainerd: "
            f"{', '.join(missing)}\n"
            f"  {sys.executable} -m pip install 'trainerd[daemon]'\n"
        )
        sys.exit(_USER_ERROR)
