"""What this program has imported, noted for the standby process of the next attempt.

Modules of the user's own code are not imported in advance: only what lies where packages are installed, the
standard library and trainerd itself are noted as modules. The user's own files are noted as marks, with a
digest of what they decide about imports, since other code may import other modules, or change the environment
before it does.
"""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract.import_surface import surface_of
from trainerd.contract.module_note import ModuleNote, OwnFile, write_note
from trainerd.contract.paths import AttemptPaths
from trainerd.training.data.found_generators import is_installed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

_OURS: Final = "TRAINERD_"
_SET_BY_COMPILING: Final = frozenset(
    {"TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR"}
)
"""What torch sets when it compiles: nothing that is imported in advance depends on it."""


def note_imported_modules(path: Path, *, attempt: int, attempt_dir: Path | None = None) -> None:
    """Write the note; one that cannot be written is left out, and the next attempt has no standby.

    Args:
        path: Where to.
        attempt: Number of the attempt.
        attempt_dir: Its folder, whose launch record tells since when it runs: a file that was written later
            need not be what was imported. None takes every file for what was imported.
    """
    libraries = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    roots = (*(f"{folder}/" for folder in libraries), f"{Path(__file__).parents[2]}/")
    modules, files = divided(list(sys.modules.items()), roots, began_ns=_began_ns(attempt_dir))
    with contextlib.suppress(OSError):
        environment = changed_variables(Path("/proc/self/environ").read_bytes(), os.environb)
        write_note(path, ModuleNote(attempt, modules, environment, files))


def divided(
    imported: Iterable[tuple[str, ModuleType | None]],
    roots: tuple[str, ...],
    *,
    began_ns: int | None = None,
) -> tuple[tuple[tuple[str, str], ...], tuple[OwnFile, ...]]:
    """Return the modules that can be imported in advance, and the files of the program's own code.

    Args:
        imported: Names and modules, in the order in which they were imported.
        roots: Folders of modules that are not the user's, beside those where packages are installed.
        began_ns: When the attempt began, in nanoseconds since the epoch; None is not known.
    """
    modules: list[tuple[str, str]] = []
    files: list[OwnFile] = []
    for name, module in imported:
        file = getattr(module, "__file__", None)
        if not isinstance(file, str):
            continue
        is_package = is_installed(file) or file.startswith(roots)
        if name == "__main__" or not is_package:
            file = os.path.abspath(file)  # noqa: PTH100 - links are not followed
            with contextlib.suppress(OSError):
                files.append(_own_file(file, began_ns))
        elif getattr(getattr(module, "__spec__", None), "name", None) == name:
            modules.append((name, file))
    return tuple(modules), tuple(files)


def _own_file(file: str, began_ns: int | None) -> OwnFile:
    with open(file, "rb") as opened:  # noqa: PTH123 - the text is what matters
        seen = os.fstat(opened.fileno())
        is_as_imported = began_ns is None or max(seen.st_mtime_ns, seen.st_ctime_ns) < began_ns
        imports = surface_of(opened.read()).digest if is_as_imported else ""
    return OwnFile(file, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino, imports)


def _began_ns(attempt_dir: Path | None) -> int | None:
    if attempt_dir is None:
        return None
    try:
        return AttemptPaths(attempt_dir).launch.stat().st_mtime_ns
    except OSError:
        return 0


def changed_variables(
    at_start: bytes, now: Iterable[tuple[bytes, bytes]] | os._Environ[bytes]
) -> tuple[str, ...]:
    """Return the names of variables that differ from what the process was started with, but for trainerd's.

    Args:
        at_start: What `/proc/self/environ` holds.
        now: The variables as they are.
    """
    before = dict(entry.split(b"=", 1) for entry in at_start.split(b"\0") if b"=" in entry)
    after = dict(now)
    names = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    texts = [os.fsdecode(name) for name in names]
    return tuple(
        sorted([text for text in texts if not text.startswith(_OURS) and text not in _SET_BY_COMPILING])
    )
