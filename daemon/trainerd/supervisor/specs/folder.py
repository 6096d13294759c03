"""The jobs folder as a whole: one scan, one view.

Level-triggered: a scan says what is there now, whatever events were lost or repeated before it. Invariants:

* A file is read only when it has settled, or was renamed into its place: a half-written spec may look
  complete.
* A spec that cannot be observed (a changing file, a read error, a name that has just gone) keeps its last
  reading. Absence from `FolderView.specs` is evidence of removal only as `FolderView.is_removed` has it.
* A folder that cannot be read is unknown, not empty: `SpecFolder.scan` raises.
* Who has a name that several files claim follows from the folder and from who had it before (`claims`).
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract.clock import SystemClock
from trainerd.contract.safe_text import safe_text
from trainerd.errors import UserError
from trainerd.supervisor.specs.claims import Broken, Claim, awarded_names
from trainerd.supervisor.specs.document import SUFFIXES, meant_suffix
from trainerd.supervisor.specs.load import ParsedSpec, parse_spec, read_bytes
from trainerd.supervisor.specs.view import Accepted, FolderView

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trainerd.contract.clock import Clock
    from trainerd.supervisor.specs.trust import TrustPolicy

SETTLE_S: Final = 0.3
"""A file that was untouched for so long is taken to be complete; a name that was gone for so long,
removed."""

BROKEN_SETTLE_S: Final = 2.0
"""An empty or invalid file may still be being written; untouched for so long, it is refused."""

_SLACK_S: Final = 0.001
"""A timer may fire, and a sum of floats end, a hair early."""

_NO_TARGET: Final = -1
"""Stands for the inode of what a dangling link leads to."""


@dataclass(frozen=True)
class _Signature:
    """Changes whenever the content, the owner or the mode of a file may have changed."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    link: tuple[int, int] = (0, 0)


@dataclass
class _File:
    """What is remembered of one file.

    `reading` may be older than `signature`; it is of the present content only if `read_at` equals it.
    `parsed` is kept while a spec that is valid in itself lacks something around it: resolved again at each
    scan.
    """

    signature: _Signature
    since_s: float
    reading: Accepted | Broken | None = None
    read_at: _Signature | None = None
    parsed: ParsedSpec | None = None
    missing_since_s: float | None = None
    look_again_s: float | None = None


@dataclass
class SpecFolder:
    """Reads the jobs folder again and again, and only what changed. Not to be shared between threads.

    Attributes:
        path: The folder.
        trust: Whose specs are run; None trusts all users.
        clock: Tells when a file has settled.
        holders: Names that files held before this supervisor started, with the file of each.
        take_arrived: Returns the names of files that came by a rename and were not touched since.
        keep_lock: Locks the folder that has the name now; raises if another supervisor runs on it.
    """

    path: Path
    trust: TrustPolicy | None
    clock: Clock = field(default_factory=SystemClock)
    holders: Mapping[str, Path] = field(default_factory=dict)
    take_arrived: Callable[[], frozenset[str]] = frozenset
    keep_lock: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.path = Path(os.path.abspath(self.path))  # noqa: PTH100 (links are kept)
        self._files: dict[str, _File] = {}
        self._device: int | None = None
        self._holders = {name: path for name, path in self.holders.items() if path.parent == self.path}

    def scan(self) -> FolderView:
        """Look at the folder.

        Raises:
            UntrustedError: Another user could write to the folder: nothing in it can be believed.
            LockedError: Another supervisor runs the jobs of the folder.
            OSError: The folder cannot be read. It is unknown, not empty.
        """
        if self.trust is not None:
            self.trust.judge_folder(self.path)
        self.keep_lock()
        arrived = self.take_arrived()  # before the look: what comes after it is news for the next one
        found = self._listed()
        self._check_device(is_empty=not found)
        now_s, wall_s = self.clock.monotonic_s(), self.clock.wall_s()
        for name in self._files.keys() - found.keys():
            # A listing may miss a name that is being replaced while it is made: ask for the file itself.
            signature = _signature_of(self.path / name)
            if signature is not None:
                found[name] = signature
            else:
                self._miss(name, now_s)
        for name, signature in found.items():
            self._look(name, signature, now_s, wall_s, is_whole=name in arrived)
        return self._view()

    def _check_device(self, *, is_empty: bool) -> None:
        """Refuse to take a mount point that its filesystem has left for a folder that a user has emptied.

        Raises:
            OSError: So it looks.
        """
        device = self.path.stat().st_dev
        if is_empty and self._files and device != self._device:
            raise OSError(
                errno.ESTALE,
                "is empty, and on another filesystem than before: is its own mounted?",
                str(self.path),
            )
        self._device = device

    def _listed(self) -> dict[str, _Signature]:
        found = {}
        with os.scandir(self.path) as entries:
            for entry in entries:
                if not is_spec_name(entry.name):
                    continue
                if entry.is_symlink():
                    signature = _signature_of(self.path / entry.name)
                    if signature is not None:
                        found[entry.name] = signature
                    continue
                with contextlib.suppress(FileNotFoundError):  # it vanished since it was listed
                    found[entry.name] = _signature(entry.stat(follow_symlinks=False))
        return found

    def _miss(self, name: str, now_s: float) -> None:
        """An editor may remove a file and write it again: only one that stays away is gone."""
        known = self._files[name]
        if known.missing_since_s is None:
            known.missing_since_s = now_s
        left_s = known.missing_since_s + SETTLE_S - now_s
        if left_s <= _SLACK_S or known.reading is None:
            del self._files[name]
        else:
            known.look_again_s = left_s

    def _look(self, name: str, signature: _Signature, now_s: float, wall_s: float, *, is_whole: bool) -> None:
        known = self._files.get(name)
        if known is None:
            known = self._files[name] = _File(signature, now_s)
        elif known.signature != signature:
            known.signature, known.since_s = signature, now_s
        known.missing_since_s = None
        if known.read_at == signature:
            known.look_again_s = None
            if known.parsed is not None:
                self._resolve(known, known.parsed)
            return
        # By the kernel's clock a file may have been quiet long before it was first seen here; a change time
        # in the future (a clock that jumped, another machine's) says nothing.
        age_s = now_s - known.since_s
        leads_nowhere = signature.inode == _NO_TARGET
        if not leads_nowhere:
            age_s = max(age_s, wall_s - signature.ctime_ns / 1e9)
        settle_s = BROKEN_SETTLE_S if leads_nowhere or signature.size == 0 else SETTLE_S
        if is_whole and signature.size > 0 and signature.link == (0, 0):
            settle_s = 0.0  # of a link it says nothing about the target
        if age_s < settle_s - _SLACK_S:
            known.look_again_s = settle_s - age_s
        else:
            known.look_again_s = None
            self._read(name, known, age_s)

    def _read(self, name: str, known: _File, age_s: float) -> None:
        path = self.path / name
        data = b""
        try:
            data, status = read_bytes(path, self.trust)
            if _signature(status, known.signature.link) != known.signature:
                known.look_again_s = SETTLE_S
                return
            parsed = parse_spec(path, data)
        except UserError as error:
            if not os.path.lexists(path) or (data and age_s < BROKEN_SETTLE_S):
                known.look_again_s = SETTLE_S
                return
            known.reading = Broken(_displayable(str(error)), getattr(error, "claims", None))
            known.parsed = None
        except OSError as error:
            # Not read is not refused: what was known stays, and the next scan tries again.
            if known.reading is None:
                known.reading = Broken(f"{path}: cannot be read: {error.strerror}")
            known.look_again_s = BROKEN_SETTLE_S
            return
        else:
            self._resolve(known, parsed)
        known.read_at = known.signature

    def _resolve(self, known: _File, parsed: ParsedSpec) -> None:
        try:
            known.reading = Accepted(parsed.resolve(self.trust))
            known.parsed = None
        except (UserError, OSError) as error:
            known.reading = Broken(_displayable(str(error)), parsed.spec.name)
            known.parsed = parsed

    def _view(self) -> FolderView:
        claims = [
            Claim(
                self.path / _displayable(name),
                known.reading,
                known.signature.mtime_ns,
                is_missing=known.missing_since_s is not None,
            )
            for name, known in self._files.items()
        ]
        awarded = awarded_names(claims, self._holders)
        self._holders = awarded.holders
        wait_s = {
            self.path / _displayable(name): known.look_again_s
            for name, known in self._files.items()
            if known.look_again_s is not None
        }
        unsettled = sorted(wait_s.keys() | set(awarded.waiting))
        return FolderView(awarded.specs, tuple(unsettled), min(wait_s.values(), default=None))


def is_spec_name(file_name: str) -> bool:
    """Return whether a file of this name is taken for a spec.

    Not hidden, no editor's backup, a known ending, or one that is a known one misspelt.
    """
    if file_name[0] in ".#":
        return False
    is_known = os.path.splitext(file_name)[1].lower() in SUFFIXES  # noqa: PTH122 (speed)
    return is_known or meant_suffix(file_name) is not None


def _signature_of(path: Path) -> _Signature | None:
    """Return the signature of one file, None if there is none.

    Raises:
        OSError: It could not be looked at, which says nothing about whether it is there.
    """
    try:
        own = path.lstat()
    except FileNotFoundError:
        return None
    if not path.is_symlink():
        return _signature(own)
    try:
        return _signature(path.stat(), (own.st_ino, own.st_mtime_ns))
    except OSError:
        return _Signature(
            _NO_TARGET, _NO_TARGET, own.st_mtime_ns, own.st_ctime_ns, (own.st_ino, own.st_mtime_ns)
        )


def _signature(status: os.stat_result, link: tuple[int, int] = (0, 0)) -> _Signature:
    return _Signature(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, link)


def _displayable(text: str) -> str:
    """Return `text` with all that could harm logs, journals and terminals written as escapes."""
    return safe_text(text)
