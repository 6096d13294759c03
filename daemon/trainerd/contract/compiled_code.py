"""Compiled code of a run: where `torch.compile` keeps it, and which of its files are known to be whole.

```
compiled/<digest of the processor and the C library>/
    inductor/      TORCHINDUCTOR_CACHE_DIR
    triton/        TRITON_CACHE_DIR
    whole.json     the files that were whole while no build was in progress, by rank 0 of the machine
```

torch writes most of these files under another name and renames them, so that the death of a process leaves
them whole; the compiler writes libraries in place. None of them is synced. And torch uses each of them by its
name alone, without a digest. So a shim removes, before it starts the ranks, what is not known to be whole.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract import codec
from trainerd.contract.durable import read_file, write_file
from trainerd.contract.environment import COMPILED_DIR
from trainerd.contract.regular_file import NotRegularError
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INDUCTOR: Final = "TORCHINDUCTOR_CACHE_DIR"
TRITON: Final = "TRITON_CACHE_DIR"

FORMAT: Final = "trainerd.compiled/1"
FILES_MAX: Final = 50_000
"""Most files that a record names; those beyond are removed before the next attempt, and made again."""

_PARTS: Final = (("inductor", INDUCTOR), ("triton", TRITON))
_BUILT_IN_PLACE: Final = frozenset({".so", ".o", ".a", ".gch", ".pch"})
_LOCK: Final = ".lock"
_DIGEST_BYTES: Final = 16
_CHUNK_BYTES: Final = 1 << 20
_FIRST_PROCESSOR_CHARACTERS: Final = 1 << 14
_DIVIDED: Final = re.compile(r"[\s'\"\\]")
_TEMPORARY: Final = re.compile(r"(^|/)(\.[^/]*\.tmp$|tmp\.pid_)")
_PROCESSOR: Final = re.compile(
    r"^(vendor_id|cpu family|model|flags|CPU implementer|CPU part|Features)\s*:(.*)$", re.MULTILINE
)


@dataclass(frozen=True)
class WholeFile:
    """A file of compiled code that was whole.

    Attributes:
        path: Relative to the folder of the record.
        size_bytes: Its size.
        modified_ns: When it was modified, in nanoseconds since the epoch.
        digest: BLAKE2b of its content, 128 bits in hexadecimal.
    """

    path: str
    size_bytes: int
    modified_ns: int
    digest: str


@dataclass(frozen=True)
class CompiledRecord:
    """Which files of a folder were whole.

    Attributes:
        torch: Version of torch that uses them.
        files: The files.
    """

    torch: str
    files: tuple[WholeFile, ...]


def with_compiled_place(environ: Mapping[str, str], machine: str) -> dict[str, str]:
    """Return the environment of a rank, in which torch finds the run's folder of compiled code.

    Where the user has chosen a folder of Inductor's, or the run's is unfit, everything is left as it is.

    Args:
        environ: The environment, with the run's folder in it.
        machine: What `machine_digest` returns.
    """
    others = {name: value for name, value in environ.items() if name != COMPILED_DIR}
    if COMPILED_DIR not in environ or environ.get(INDUCTOR):
        return others
    folder = Path(environ[COMPILED_DIR], machine)
    if why_unfit(folder) is not None:
        return others
    return {variable: str(folder / part) for part, variable in _PARTS} | others | {COMPILED_DIR: str(folder)}


def why_unfit(folder: Path) -> str | None:
    """Return why compiled code cannot be kept in a folder, None if it can."""
    if _DIVIDED.search(str(folder)):  # torch divides the command lines of the compiler as a shell does
        return "its path has characters that torch does not pass on to the compiler"
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        is_refused = os.statvfs(place).f_flag & os.ST_NOEXEC
    except OSError as error:
        return f"it cannot be looked at: {error.strerror}"
    return "its file system is mounted noexec" if is_refused else None


def machine_digest(cpuinfo: str, c_library: str) -> str:
    """Return a digest of what compiled code needs of a machine: it is compiled for this very processor."""
    first = cpuinfo.partition("\n\n")[0]
    parts = [os.uname().machine, c_library, *[f"{name}:{value}" for name, value in _PROCESSOR.findall(first)]]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=6).hexdigest()


@cache
def this_machine() -> str:
    """Return that digest of this machine."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            cpuinfo = file.read(_FIRST_PROCESSOR_CHARACTERS)
    except OSError:
        cpuinfo = ""
    return machine_digest(cpuinfo, os.confstr("CS_GNU_LIBC_VERSION") or "")


def is_built_in_place(path: str) -> bool:
    """Tell whether the compiler writes a file under its own name, so that a death leaves a part of it."""
    top, _, name = path.partition("/")
    return top == "inductor" and os.path.splitext(name)[1] in _BUILT_IN_PLACE  # noqa: PTH122 - a name


def is_temporary(path: str) -> bool:
    """Tell whether torch or Triton is writing a file under another name, or has died before it renamed it."""
    return _TEMPORARY.search(path) is not None


def files_below(folder: Path) -> Iterator[str]:
    """Yield the regular files of compiled code, relative to the folder, without locks; links are left out."""
    for path in _paths_below(folder):
        if not path.name.endswith(_LOCK) and path.is_file() and not path.is_symlink():
            yield str(path.relative_to(folder))


def locks_below(folder: Path) -> list[Path]:
    """Return the files that torch locks while it builds."""
    return [path for path in _paths_below(folder) if path.name.endswith(_LOCK)]


def _paths_below(folder: Path) -> Iterator[Path]:
    for part, _ in _PARTS:
        for parent, _, names in os.walk(folder / part):
            for name in names:
                yield Path(parent, name)


def is_unchanged(folder: Path, known: WholeFile) -> bool:
    """Tell by size and time whether a file is the one that was looked at, without reading it."""
    try:
        found = (folder / known.path).stat()
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns) == (known.size_bytes, known.modified_ns)


def look_at(folder: Path, path: str, *, syncs: bool = False) -> WholeFile | None:
    """Read a file; return None if it is not there, or changes meanwhile.

    Args:
        folder: The folder of the record.
        path: The file, relative to it.
        syncs: Whether a power cut is to leave it.
    """
    try:
        with (folder / path).open("rb") as file:
            before = os.fstat(file.fileno())
            digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
            if syncs:
                os.fsync(file.fileno())
            after = os.fstat(file.fileno())
    except OSError:
        return None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        return None
    return WholeFile(path, after.st_size, after.st_mtime_ns, digest.hexdigest())


def record_path(folder: Path) -> Path:
    """Return where the record of a folder is."""
    return folder / "whole.json"


def read_compiled(folder: Path) -> CompiledRecord | None:
    """Return the record of a folder; None if there is none that can be read."""
    path = record_path(folder)
    try:
        return codec.from_json(read_file(path), CompiledRecord, FORMAT, source=path)
    except (CorruptError, NotRegularError, OSError):
        return None


def write_compiled(folder: Path, record: CompiledRecord) -> None:
    """Write the record of a folder, durably. A crash leaves the former record, which names fewer files.

    Raises:
        SpaceError: The disk is full or read-only.
        OSError: It cannot be written.
    """
    write_file(record_path(folder), codec.to_json(record, FORMAT))
