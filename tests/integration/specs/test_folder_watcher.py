"""The watcher wakes whoever scans: at events, at the latest after a while, and over a folder that comes and
goes."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import pytest
import structlog
from watchdog import events

from trainerd.supervisor.specs import watch
from trainerd.supervisor.specs.watch import Arrivals, FolderWatcher, filesystem_kind

DEADLINE_S = 10.0
NEVER_S = 3600.0


class Calls:
    """Counts calls, and lets a test wait for one more."""

    def __init__(self):
        self.count = 0
        self._changed = threading.Condition()

    def __call__(self):
        with self._changed:
            self.count += 1
            self._changed.notify_all()

    def wait_beyond(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: self.count > count, DEADLINE_S), "was not woken"
            return self.count


def wait_until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.005)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "jobs"
    folder.mkdir()
    return folder


@pytest.fixture
def watching(folder):
    opened = []

    def start(**arguments):
        calls = Calls()
        watcher = FolderWatcher(folder, calls, **{"rescan_s": NEVER_S, **arguments})
        watcher.start()
        opened.append(watcher)
        calls.wait_beyond(0)
        return watcher, calls

    yield start
    for watcher in opened:
        watcher.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "jobs-folder-watcher"]


def test_a_rename_into_the_folder_is_told_from_all_else_until_the_file_is_touched(folder, watching):
    arrivals = Arrivals()
    _, calls = watching(arrivals=arrivals)
    (folder / ".hidden").write_text("x")
    for name in ("out.yaml", "touched.yaml"):
        (folder.parent / name).write_text("x")
    before = calls.count
    (folder / "written.yaml").write_text("x")
    (folder.parent / "touched.yaml").rename(folder / "touched.yaml")
    with (folder / "touched.yaml").open("a") as file:
        file.write("y")
    (folder / ".hidden").rename(folder / "inside.yaml")
    (folder.parent / "out.yaml").rename(folder / "out.yaml")
    seen = set()
    while "out.yaml" not in seen:
        before = calls.wait_beyond(before)
        seen |= arrivals.take()
    assert seen - {"touched.yaml"} == {"inside.yaml", "out.yaml"}
    assert arrivals.take() == frozenset()


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: (folder / "new.yaml").write_text("x"),
        lambda folder: (folder / "old.yaml").write_text("y"),
        lambda folder: (folder / "old.yaml").rename(folder / "other.yaml"),
        lambda folder: (folder / "old.yaml").rename(folder.parent / "away.yaml"),
        lambda folder: (folder / "old.yaml").unlink(),
        lambda folder: (folder / "old.yaml").chmod(0o600),
        lambda folder: (folder / "sub").mkdir(),
        lambda folder: (folder / "link.yaml").symlink_to("old.yaml"),
    ],
    ids=["created", "written", "renamed", "moved away", "removed", "chmod", "folder made", "linked"],
)
def test_every_change_wakes(folder, watching, act):
    (folder / "old.yaml").write_text("x")
    _, calls = watching()
    before = calls.count
    act(folder)
    calls.wait_beyond(before)


def test_a_file_moved_in_wakes(folder, watching):
    (folder.parent / "in.yaml").write_text("x")
    _, calls = watching()
    before = calls.count
    (folder.parent / "in.yaml").rename(folder / "in.yaml")
    calls.wait_beyond(before)


def test_without_any_event_it_wakes_all_the_same_after_a_while(watching):
    _, calls = watching(rescan_s=0.05)
    for _ in range(3):
        calls.wait_beyond(calls.count)


def test_reading_the_folder_does_not_wake(folder, watching):
    """Else each scan would be the cause of the next."""
    (folder / "a.yaml").write_text("x")
    _, calls = watching()
    seen = []
    (folder / "b.yaml").write_text("x")
    calls.wait_beyond(1)
    wait_until(lambda: seen.append(calls.count) or (len(seen) > 40 and len(set(seen[-40:])) == 1))
    before = calls.count
    for _ in range(20):
        (folder / "a.yaml").read_text()
        list(os.scandir(folder))
    # An event that does count comes after them, in order: if they had woken, the count would be higher.
    (folder / "c.yaml").touch()
    assert calls.wait_beyond(before) == before + 1


@pytest.mark.parametrize(
    ("event", "wakes"),
    [
        (events.FileOpenedEvent, False),
        (events.FileClosedNoWriteEvent, False),
        (events.FileClosedEvent, True),
        (events.FileCreatedEvent, True),
        (events.FileModifiedEvent, True),
        (events.FileMovedEvent, True),
        (events.FileDeletedEvent, True),
        (events.DirDeletedEvent, True),
    ],
)
def test_only_what_changes_something_counts(event, wakes):
    nudged = threading.Event()
    watch._Nudge(nudged, watch.Arrivals()).dispatch(event("/jobs/a.yaml"))
    assert nudged.is_set() == wakes


def test_a_burst_of_a_thousand_files_wakes_far_fewer_times(folder, watching):
    _, calls = watching()
    for number in range(1000):
        (folder / f"{number}.yaml").write_text("x")
    (folder / "last.yaml").write_text("x")
    calls.wait_beyond(1)
    assert calls.count < 200


def test_a_folder_deleted_and_made_anew_is_watched_again(folder, watching, monkeypatch):
    monkeypatch.setattr(watch, "POLL_S", 0.02)
    watcher, calls = watching()
    for _ in range(2):
        shutil.rmtree(folder)
        wait_until(lambda: watcher.is_polling)
        folder.mkdir()
        wait_until(lambda: not watcher.is_polling)
        before = calls.count
        (folder / "new.yaml").write_text("x")
        calls.wait_beyond(before)


def test_a_folder_exchanged_for_another_is_watched(folder, watching, monkeypatch):
    monkeypatch.setattr(watch, "POLL_S", 0.02)
    _, calls = watching()
    before = calls.count
    folder.rename(folder.with_name("old"))
    folder.mkdir()
    before = calls.wait_beyond(before)
    (folder / "newer.yaml").write_text("x")
    calls.wait_beyond(before)


def test_a_folder_that_is_not_there_yet_is_waited_for(folder, watching, monkeypatch):
    monkeypatch.setattr(watch, "POLL_S", 0.02)
    folder.rmdir()
    watcher, calls = watching()
    assert watcher.is_polling
    folder.mkdir()
    wait_until(lambda: not watcher.is_polling)
    before = calls.count
    (folder / "new.yaml").write_text("x")
    calls.wait_beyond(before)


class LimitReached:
    emitters = ()

    def schedule(self, *_args, **_kwargs):
        pass

    def start(self):
        raise OSError(28, "inotify watch limit reached")


def test_without_inotify_it_polls_and_says_so_once(folder, watching, monkeypatch):
    monkeypatch.setattr(watch, "POLL_S", 0.02)
    with structlog.testing.capture_logs() as lines:
        watcher, calls = watching(observer=LimitReached)
        for _ in range(5):
            calls.wait_beyond(calls.count)
        assert watcher.is_polling
        watcher.close()
    assert [(line["event"], line["log_level"]) for line in lines] == [("jobs-folder.polled", "warning")]
    assert "inotify watch limit reached" in lines[0]["reason"]


def test_a_filesystem_of_another_machine_is_polled(folder, watching, monkeypatch):
    monkeypatch.setattr(watch, "filesystem_kind", lambda _path: "nfs4")
    with structlog.testing.capture_logs() as lines:
        watcher, _ = watching()
        assert watcher.is_polling
        watcher.close()
    assert "nfs4" in lines[0]["reason"]


def test_nobody_is_woken_after_close(folder, watching):
    watcher, calls = watching()
    watcher.close()
    before = calls.count
    (folder / "new.yaml").write_text("x")
    assert calls.count == before


def test_the_kind_of_a_filesystem_is_read_from_the_kernel(tmp_path):
    assert filesystem_kind(Path("/proc/self")) == "proc"
    assert filesystem_kind(tmp_path)
