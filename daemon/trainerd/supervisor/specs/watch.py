"""Wakes the scanner of the jobs folder when something may have changed there.

Events decide nothing: they say *look*, and which files came by a rename, which is to say whole. So lost
events cost time and nothing else: the folder is looked at every `rescan_s` seconds anyway, and every `POLL_S`
where there are no events to be had (the limit of inotify is reached, or the filesystem belongs to another
machine, whose writers this kernel does not see), which the log says once. Invariant: while the folder exists
and can be watched, the watch is of the folder that is there now, even if it was deleted and made again.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from trainerd.contract.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

POLL_S: Final = 1.0
"""Between two looks where there are no events, and between two looks at whether the folder is still the
same."""

GATHER_S: Final = 0.02
"""Events come in bursts: after the first of one, so long is waited for the others."""

STOP_LIMIT_S: Final = 5.0
"""How long `close` waits for the threads; they are daemons and cannot keep the process alive."""

_REMOTE: Final = frozenset(
    {"9p", "afs", "ceph", "cifs", "gfs2", "glusterfs", "lustre", "nfs", "nfs4", "smb3", "smbfs", "virtiofs"}
)

_log = structlog.get_logger(__name__)


class FolderWatcher:
    """Watches one folder from threads of its own.

    Args:
        path: The folder; it may be absent and come later.
        wake: Called from a thread whenever it is time to look; must not block.
        arrivals: Takes the names of files that are renamed into the folder; None for an own one.
        rescan_s: Longest time between two calls, in seconds.
        observer: Makes the source of events; for tests.
    """

    def __init__(
        self,
        path: Path,
        wake: Callable[[], None],
        *,
        arrivals: Arrivals | None = None,
        rescan_s: float = 10.0,
        observer: Callable[[], Any] | None = None,
    ) -> None:
        self._path = path
        self._wake = wake
        self._rescan_s = rescan_s
        self._make_observer = observer or _inotify_observer
        self._observer: Any = None
        self._watched: tuple[int, int] | None = None
        self._complaint: str | None = None
        self._nudged = threading.Event()
        self._arrivals = arrivals if arrivals is not None else Arrivals()
        self._closing = threading.Event()
        self._clock = SystemClock()
        self._thread = threading.Thread(target=self._run, name="jobs-folder-watcher", daemon=True)

    def start(self) -> None:
        """Begin. `wake` is called at once, and then whenever it is time to look."""
        self._thread.start()

    def close(self) -> None:
        """End. No call of `wake` begins after this returns."""
        self._closing.set()
        self._nudged.set()
        if self._thread.is_alive():
            self._thread.join(STOP_LIMIT_S)

    @property
    def is_polling(self) -> bool:
        """Whether there are no events for now."""
        return self._watched is None

    def _run(self) -> None:
        due_s = self._clock.monotonic_s()
        while not self._closing.is_set():
            watched_before = self._watched
            # The watch is set before the folder is looked at, so that nothing falls between the two.
            self._renew_watch()
            is_due = self._clock.monotonic_s() >= due_s
            if self._nudged.is_set() or is_due or self.is_polling or self._watched != watched_before:
                self._nudged.clear()
                self._wake()
                due_s = self._clock.monotonic_s() + self._rescan_s
            if self._nudged.wait(min(POLL_S, self._rescan_s)):
                self._closing.wait(GATHER_S)
        self._drop_watch()

    def _renew_watch(self) -> None:
        """Make sure that the folder that is there now is watched, if it can be."""
        try:
            status = self._path.stat()
        except OSError as error:
            self._drop_watch()
            self._complain(f"the folder cannot be looked at: {error.strerror}")
            return
        identity = (status.st_dev, status.st_ino)
        if self._watched == identity and self._observer.is_alive() and self._has_emitter():
            return
        self._drop_watch()
        kind = filesystem_kind(self._path)
        if kind in _REMOTE or kind.startswith("fuse."):
            self._complain(f"a filesystem of the kind {kind} does not tell of changes made elsewhere")
            return
        try:
            self._observer = self._make_observer()
            self._observer.schedule(_Nudge(self._nudged, self._arrivals), str(self._path), recursive=False)
            self._observer.start()
        except OSError as error:
            self._observer = None
            self._complain(f"inotify is not to be had: {error.strerror or error}")
            return
        if self._complaint is not None:
            _log.info("jobs-folder.watched", folder=str(self._path))
        self._watched, self._complaint = identity, None

    def _has_emitter(self) -> bool:
        """Whether the observer still watches: its emitter ends when the folder is deleted."""
        return any(emitter.is_alive() for emitter in self._observer.emitters)

    def _drop_watch(self) -> None:
        self._watched = None
        observer, self._observer = self._observer, None
        if observer is not None and observer.is_alive():
            observer.stop()
            observer.join(STOP_LIMIT_S)

    def _complain(self, reason: str) -> None:
        if reason != self._complaint:
            self._complaint = reason
            _log.warning("jobs-folder.polled", folder=str(self._path), reason=reason, every_s=POLL_S)


class Arrivals:
    """Names of files that came by a rename, until they are taken or touched.

    Safe to share between threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: set[str] = set()

    def note(self, event: Any) -> None:
        with self._lock:
            self._names.discard(os.path.basename(os.fsdecode(event.src_path)))  # noqa: PTH119 (may be empty)
            if event.event_type == "moved" and event.dest_path:
                self._names.add(os.path.basename(os.fsdecode(event.dest_path)))  # noqa: PTH119 (as above)

    def take(self) -> frozenset[str]:
        """Return the names of files that were renamed into the folder and not touched since, once each.

        A file is written before it is renamed into its place. One that is not named may be complete too.
        """
        with self._lock:
            names, self._names = frozenset(self._names), set()
            return names


class _Nudge:
    """Handles every event alike: the folder must be scanned."""

    def __init__(self, nudged: threading.Event, arrivals: Arrivals) -> None:
        self._nudged = nudged
        self._arrivals = arrivals

    def dispatch(self, event: Any) -> None:
        # Our own reading of a spec makes events too; they change nothing and would wake us for ever.
        if event.event_type not in {"opened", "closed_no_write"}:
            self._arrivals.note(event)
            self._nudged.set()


def _inotify_observer() -> Any:
    from watchdog.observers.inotify import InotifyObserver

    # Of a file that is renamed into the folder from elsewhere, else no more is said than that it is there.
    return InotifyObserver(generate_full_events=True)


def filesystem_kind(path: Path) -> str:
    """Return the kind of filesystem that `path` is on, such as ``ext4``; empty if it cannot be told."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
    real = os.path.realpath(path)
    kind, length = "", -1
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].replace("\\040", " ")
        # Of two mounts at one place the later one is seen.
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= length:
            kind, length = after.split(" ")[0], len(point)
    return kind
