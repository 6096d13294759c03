"""Which program this is: its script and its arguments, and the folder in which it was started."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trainerd.checkpoint.digest import digest_of_bytes
from trainerd.contract.start_folder import folder_of, start_folder

NOTEBOOK: Final = "notebook:"
KERNEL: Final = "kernel:"
COMMAND: Final = "command:"
INTERACTIVE: Final = "interactive"
"""What stands for the script where there is none: the notebook's file, the kernel if that is unknown, the
digest of what follows ``python -c``, and a terminal or standard input."""

_PER_RANK: Final = re.compile(r"--local[-_]rank(=.*)?")
"""Argument that older launchers give each rank: it is no part of what the user asked for."""


@dataclass(frozen=True)
class ProgramIdentity:
    """What tells one program from another.

    Attributes:
        script: Path of the script relative to `start`, or what there is instead.
        arguments: Its arguments.
        start: Folder in which it was started.
    """

    script: str
    arguments: tuple[str, ...]
    start: Path

    def is_same_script(self, script: str) -> bool:
        """Tell whether `script` is the script of this program; of kernels, any may have had its notebook."""
        return script == self.script or (script.startswith(KERNEL) and self.script.startswith(KERNEL))


def identify_program() -> ProgramIdentity:
    """Return which program this process runs."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    words = tuple(sys.argv[1:])
    hydra = _hydra_job()
    start = Path(hydra[1]) if hydra is not None else start_folder()
    if isinstance(file, str):
        arguments = _of_hydra(words, hydra[0]) if hydra is not None else words
        return ProgramIdentity(script_path(file, start), _of_all_ranks(arguments), start)
    notebook = _notebook()
    if notebook is not None:
        return ProgramIdentity(notebook, (), start)
    if sys.argv[:1] == ["-c"] and "-c" in sys.orig_argv:
        code = sys.orig_argv[sys.orig_argv.index("-c") + 1]
        return ProgramIdentity(COMMAND + digest_of_bytes(code.encode(errors="replace"))[-8:], words, start)
    return ProgramIdentity(INTERACTIVE, words, start)


def script_path(file: str, start: Path) -> str:
    """Return the path of a script relative to a folder: the same for every way of writing it.

    Links among the folders are followed. A script that is a link itself is a script of its own.
    """
    whole = Path(os.path.normpath(start / file))
    return os.path.relpath(Path(os.path.realpath(whole.parent)) / whole.name, os.path.realpath(start))


def _of_all_ranks(words: tuple[str, ...]) -> tuple[str, ...]:
    kept = []
    skips = False
    for word in words:
        found = _PER_RANK.fullmatch(word)
        if found is None and not skips:
            kept.append(word)
        skips = found is not None and found[1] is None
    return tuple(kept)


def _hydra_job() -> tuple[tuple[str, ...], str] | None:
    """Return what Hydra overrides in this job and the folder it was started in, None without Hydra.

    With ``--multirun`` one process runs several jobs, one after the other, with the same command line.
    """
    holder: Any = getattr(sys.modules.get("hydra.core.hydra_config"), "HydraConfig", None)
    try:
        if holder is None or not holder.initialized():
            return None
        found = holder.get()
        return tuple([str(each) for each in found.overrides.task]), str(found.runtime.cwd)
    except Exception:  # noqa: BLE001 - another version of Hydra: the command line says enough
        return None


def _of_hydra(words: tuple[str, ...], overrides: tuple[str, ...]) -> tuple[str, ...]:
    """Return Hydra's own options and the overrides of this job; where its outputs go does not count."""
    options: list[str] = []
    for word in words:
        is_option = word.startswith("-") or (options and options[-1].startswith("--") and "=" not in word)
        if is_option and word not in {"-m", "--multirun"} and word not in overrides:
            options.append(word)
    return (*options, *overrides)


def _notebook() -> str | None:
    """Return which notebook this is, None if it is none.

    Jupyter and VS Code say the file; of others, only the kernel is known.
    """
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = get_shell() if get_shell is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    file = shell.user_ns.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME")
    if file:
        return NOTEBOOK + script_path(str(file), folder_of(None, ""))
    connections = [word.rpartition("=")[2] for word in sys.argv[1:] if word.endswith(".json")]
    return KERNEL + (Path(connections[0]).stem.removeprefix("kernel-") if connections else str(os.getpid()))
