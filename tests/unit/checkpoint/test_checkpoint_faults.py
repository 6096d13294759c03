"""Whatever fails and wherever the process dies: the old newest checkpoint or the new one, and training goes
on.

The act has everything that touches the disk: a save, its read-back, pruning, links, a pin, a quarantine and a
fork. Each failpoint on the way is struck once, by an error and by SIGKILL in a process of its own.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.checkpoints import TENSORS, commit, flip_bit, is_whole, names
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import failpoints
from trainerd.contract.policy import KeepBest, RetentionPolicy
from trainerd.errors import SpaceError

LIMIT_S = 60
POLICY = RetentionPolicy(keep_last=2, keep_best=(KeepBest("a"),))

SAVE = (
    "checkpoint.data.written",
    "checkpoint.data.synced",
    "checkpoint.manifest.synced",
    "checkpoint.staged",
    "checkpoint.renamed",
    "checkpoint.committed",
)
PRUNE = ("prune.renamed", "prune.removed", "link.made", "link.replaced", "reserve.made")
REST = (
    "aside.noted",
    "aside.moved",
    "fork.noted",
    "fork.cleared",
    "pin.removed",
    "record.written",
    "record.synced",
)
RECORDS = ("record.renamed", "record.durable")


def prepare(directory: Path) -> None:
    """Three checkpoints, of which the policy keeps two."""
    store = CheckpointStore(directory)
    with store.lock():
        for step in (1, 2, 3):
            commit(store, step, scores={"a": float(step)})


def live(directory: Path) -> None:
    """What a process does in the life of a run, from the sweep to a fork."""
    store = CheckpointStore(directory)
    with store.lock():
        store.sweep()
        assert store.newest_verified() is not None
        store.keep_reserve(4096)
        newest = commit(store, 4, scores={"a": 0.5})
        store.prune(POLICY, protected={newest.name: "newest"})
        store.pin("4", "mine")
        store.unpin("4")
        flip_bit(commit(store, 5).path / TENSORS)
        store.newest_verified()
        commit(store, 6)
        store.set_aside_after(newest, "fork")


def check(directory: Path, *, at_least: int = 3) -> CheckpointStore:
    """A new process finds a checkpoint that verifies, not older than before, and can go on saving."""
    store = CheckpointStore(directory)
    with store.lock():
        store.sweep()
        found = store.newest_verified()
        assert found is not None
        assert found.step >= at_least
        assert is_whole(found)
        newer = commit(store, found.step + 1)
        store.prune(POLICY)
        assert store.newest_verified() == newer
    leftovers = [
        path.name for path in directory.iterdir() if path.name[0] == "." and path.name != ".writer.lock"
    ]
    assert set(leftovers) <= {".reserve"}
    assert (directory / "last").resolve().name == newer.name
    return store


@pytest.mark.parametrize("point", [*SAVE, *PRUNE, *REST, *RECORDS])
def test_the_act_passes_every_point(tmp_path, point):
    """Or the tests below would strike nothing."""
    prepare(tmp_path)
    failpoints.arm(f"{point}=EIO@1000000")
    live(tmp_path)
    assert failpoints.REGISTRY[point].hits > 0


@pytest.mark.parametrize("point", SAVE)
@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO], ids=errno.errorcode.get
)
def test_a_save_that_fails_leaves_the_former_checkpoint_valid(tmp_path, point, number):
    prepare(tmp_path)
    store = CheckpointStore(tmp_path)
    is_space = number != errno.EIO and point != "checkpoint.committed"
    with store.lock():
        failpoints.arm(f"{point}={errno.errorcode[number]}")
        with pytest.raises(SpaceError if is_space else OSError):
            commit(store, 4)
        failpoints.arm("")
        expected = ["step-000000004"] if point == "checkpoint.committed" else []
        assert names(store) == ["step-000000001", "step-000000002", "step-000000003", *expected]
        assert store.sweep() == []
    check(tmp_path)


@pytest.mark.parametrize("point", [*PRUNE, *REST, *RECORDS])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_housekeeping_that_fails_loses_nothing(tmp_path, point, number):
    prepare(tmp_path)
    failpoints.arm(f"{point}={errno.errorcode[number]}")
    with contextlib.suppress(OSError, SpaceError):
        live(tmp_path)
    failpoints.arm("")
    check(tmp_path)


@pytest.mark.parametrize(
    ("point", "hit"),
    [(point, 1) for point in (*SAVE, *PRUNE, *REST, *RECORDS)] + [(point, 2) for point in SAVE],
)
def test_a_kill_at_any_point_leaves_the_old_newest_or_the_new_one(tmp_path, point, hit):
    prepare(tmp_path)
    ending = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from {__name__} import live; from pathlib import Path; live(Path({str(tmp_path)!r}))",
        ],
        env={"TRAINERD_FAILPOINTS": f"{point}=kill@{hit}", "PYTHONPATH": ":".join(sys.path)},
        stderr=subprocess.PIPE,
        timeout=LIMIT_S,
        check=False,
    )
    assert ending.returncode == -signal.SIGKILL, ending.stderr.decode()
    check(tmp_path)


def test_a_disk_that_is_really_full_keeps_the_former_checkpoint(tmp_path, monkeypatch):
    """The kernel itself says ENOSPC, in the middle of a write."""
    prepare(tmp_path)
    store = CheckpointStore(tmp_path)
    with store.lock():
        staging = store.begin(4)
        (staging.path / TENSORS).symlink_to("/dev/full")
        monkeypatch.setattr("trainerd.checkpoint.staging.os.O_EXCL", 0)
        with pytest.raises(SpaceError, match="No space left on device"):
            staging.write(TENSORS, [b"x" * 2**20])
        staging.abandon()
    check(tmp_path)
