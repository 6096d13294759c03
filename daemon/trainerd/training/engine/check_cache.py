"""Findings of scripts that were analysed before, kept over processes in the user's cache folder.

A start of a session then reads a small file in place of the analysis. The key is the content of the script
and of the analysis itself; what cannot be read or written is analysed again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trainerd.analysis
from trainerd.analysis.check_script import check_source
from trainerd.analysis.script_finding import ScriptFinding

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

ENTRIES_MAX: Final = 200
"""Most scripts that are kept; one more, and all others are forgotten."""

_BYTES_MAX: Final = 1 << 20
_FIELDS: Final = {
    "line": int,
    "column": int,
    "rule": str,
    "name": str,
    "why": str,
    "instead": str,
    "loops": tuple,
}


def findings_of(
    source: str, environ: Mapping[str, str] = os.environ, *, sessions: Collection[str] = ()
) -> tuple[ScriptFinding, ...]:
    """Return what the analysis finds in a script.

    Args:
        source: Its text.
        environ: Says where the cache is.
        sessions: Further names that it has for a session.

    Raises:
        ScriptSyntaxError: It is not valid Python.
    """
    folder, analysis = _folder(environ), _analysis()
    if folder is None or analysis is None:
        return check_source(source, sessions)
    file = folder / f"{_key(source, analysis, sessions)}.json"
    known = _read(file)
    if known is not None:
        return known
    found = check_source(source, sessions)
    with contextlib.suppress(OSError):
        _write(file, found)
    return found


def _folder(environ: Mapping[str, str]) -> Path | None:
    cache = environ.get("XDG_CACHE_HOME") or ""
    home = environ.get("HOME") or ""
    root = Path(cache) if cache.startswith("/") else Path(home) / ".cache" if home.startswith("/") else None
    return root / "trainerd" / "check" if root is not None else None


def _key(source: str, analysis: str, sessions: Collection[str] = ()) -> str:
    text = f"{analysis}\n{sys.version}\n{' '.join(sessions)}\n{source}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@functools.cache
def _analysis() -> str | None:
    """Return the digest of the analysis itself, None if its source is not in files, as in a zip archive."""
    digest = hashlib.blake2b(digest_size=16)
    files = sorted(Path(trainerd.analysis.__file__ or "").parent.glob("*.py"))
    try:
        for file in files:
            digest.update(file.read_bytes())
    except OSError:
        return None
    return digest.hexdigest() if files else None


def _read(file: Path) -> tuple[ScriptFinding, ...] | None:
    """Return the findings in a file, None if they are not there or are not findings."""
    try:
        with file.open("rb") as stream:
            known = json.loads(stream.read(_BYTES_MAX))
        found = tuple([ScriptFinding(**each | {"loops": _lines(each["loops"])}) for each in known])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    is_sound = all(type(getattr(each, name)) is kind for each in found for name, kind in _FIELDS.items())
    return found if is_sound else None


def _lines(known: object) -> tuple[tuple[int, int], ...]:
    if not isinstance(known, list):
        raise TypeError(known)
    return tuple([(int(first), int(last)) for first, last in known])


def _write(file: Path, found: tuple[ScriptFinding, ...]) -> None:
    """Keep findings. They are not worth waiting for the disk: a torn file is one that cannot be read."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    entries = list(file.parent.iterdir())  # parts that a process did not finish are among them
    if len(entries) >= ENTRIES_MAX:
        for each in entries:
            each.unlink(missing_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.write_text(json.dumps([asdict(each) for each in found]), encoding="utf-8")
    part.replace(file)
