"""Committing: what is written is whole, ordinary files, under one name, or nothing at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.support.checkpoints import TENSORS, commit, flip_bit, is_whole, make_manifest, names
from trainerd.checkpoint.digest import digest_of_bytes
from trainerd.checkpoint.manifest import FileEntry
from trainerd.contract.policy import RetentionPolicy
from trainerd.errors import CorruptError, InternalError, SpaceError, UnsupportedValueError


def test_a_committed_checkpoint_is_what_was_written(store):
    checkpoint = commit(store, 120, scores={"accuracy": 0.5}, epoch=2)
    assert (checkpoint.name, checkpoint.step, checkpoint.ordinal) == ("step-000000120", 120, 0)
    assert store.checkpoints() == (checkpoint,)
    assert is_whole(checkpoint)
    assert load_file(checkpoint.path / TENSORS)["weight"].tolist() == [120] * 64
    assert [entry.name for entry in checkpoint.manifest.files] == ["rank-00000.json", TENSORS]


def test_a_second_boundary_at_the_same_step_is_a_checkpoint_of_its_own(store):
    made = [commit(store, 7) for _ in range(3)]
    assert [one.name for one in made] == ["step-000000007", "step-000000007.1", "step-000000007.2"]
    assert names(store) == [one.name for one in made]


def test_a_step_beyond_a_billion_has_its_place(store):
    commit(store, 12_345_678_901)
    commit(store, 9)
    assert names(store) == ["step-000000009", "step-12345678901"]


@pytest.mark.parametrize(
    ("umask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750)]
)
def test_permissions_are_the_ordinary_ones(store, umask, file_mode, folder_mode):
    former = os.umask(umask)
    try:
        checkpoint = commit(store, 1)
    finally:
        os.umask(former)
    assert {stat.S_IMODE(path.stat().st_mode) for path in checkpoint.path.iterdir()} == {file_mode}
    assert stat.S_IMODE(checkpoint.path.stat().st_mode) == folder_mode


@pytest.mark.parametrize(
    "sizes", [[], [0], [1, 2, 3], [2**20], [2**20 - 1, 1, 1], [3 * 2**20, 5, 2**20 + 1, 7]]
)
def test_chunks_of_any_size_arrive_in_order_and_hashed(store, sizes):
    chunks = [bytes([index + 1]) * size for index, size in enumerate(sizes)]
    staging = store.begin(1)
    entry = staging.write("data", (memoryview(chunk) for chunk in chunks))
    whole = b"".join(chunks)
    assert (staging.path / "data").read_bytes() == whole
    assert entry == FileEntry("data", len(whole), digest_of_bytes(whole))
    staging.abandon()


def test_a_file_that_somebody_else_wrote_is_taken_in(store):
    staging = store.begin(3)
    (staging.path / "rank-00001.json").write_bytes(b"{}")
    staging.add(FileEntry("rank-00001.json", 2, digest_of_bytes(b"{}")))
    assert store.commit(staging, make_manifest(3, world_size=2)).manifest.bytes == 2


def test_a_file_that_is_not_what_was_announced_never_counts(store):
    """A bit that flipped between the writer's hash and the disk: found by the read-back, set aside, told."""
    commit(store, 1)
    staging = store.begin(3)
    (staging.path / "data").write_bytes(b"{}")
    staging.add(FileEntry("data", 2, digest_of_bytes(b"{]")))
    with pytest.raises(CorruptError, match="digest"):
        store.commit(staging, make_manifest(3))
    assert names(store) == ["step-000000001"]
    assert [aside.name for aside in store.quarantined()] == ["step-000000003"]
    assert "read back after it was written" in store.quarantined()[0].reason


def test_what_was_not_read_back_lets_nothing_be_pruned(store):
    commit(store, 1)
    staging = store.begin(2)
    staging.write("data", [b"new"])
    hasty = store.commit(staging, make_manifest(2), reads_back=False)
    flip_bit(hasty.path / "data")
    store.prune(RetentionPolicy(keep_last=1))
    assert names(store) == ["step-000000001", "step-000000002"]


def test_an_abandoned_staging_leaves_nothing(store):
    staging = store.begin(3)
    staging.write("data", [b"x"])
    staging.abandon()
    staging.abandon()
    assert names(store) == []
    assert store.sweep() == []


def test_after_a_commit_abandoning_does_nothing(store):
    staging = store.begin(3)
    staging.write("data", [b"x"])
    checkpoint = store.commit(staging, make_manifest(3))
    staging.abandon()
    store.verify(checkpoint)


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "manifest.json", "taken", "nul\0"])
def test_a_file_cannot_have_a_name_that_leads_elsewhere_or_is_taken(store, name):
    staging = store.begin(3)
    staging.write("taken", [b"x"])
    with pytest.raises(InternalError):
        staging.write(name, [b"x"])
    staging.abandon()


def test_a_staging_is_used_once(store):
    staging = store.begin(3)
    staging.write("data", [b"x"])
    store.commit(staging, make_manifest(3))
    for act in (
        lambda: staging.write("more", []),
        lambda: store.commit(staging, make_manifest(3)),
        lambda: staging.add(FileEntry("a", 0, "")),
    ):
        with pytest.raises(InternalError, match="used up"):
            act()


def test_a_manifest_of_another_step_is_a_bug(store):
    staging = store.begin(3)
    with pytest.raises(InternalError, match="step 4"):
        store.commit(staging, make_manifest(4))
    staging.abandon()


def test_chunks_that_fail_leave_a_staging_that_cannot_be_committed(store):
    staging = store.begin(3)

    def chunks():
        yield b"x"
        raise UnsupportedValueError("model.odd", object())

    with pytest.raises(UnsupportedValueError):
        staging.write("data", chunks())
    with pytest.raises(InternalError, match="used up"):
        store.commit(staging, make_manifest(3))
    staging.abandon()
    assert names(store) == []


def test_an_error_at_the_close_is_an_error_of_the_write(store, monkeypatch):
    """NFS reports at the close what it could not write before."""
    close = os.close

    def failing_close(descriptor):
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        close(descriptor)
        if name == "data":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    staging = store.begin(3)
    monkeypatch.setattr(os, "close", failing_close)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        staging.write("data", [b"x"])
    with pytest.raises(InternalError, match="used up"):
        staging.write("more", [])
    staging.abandon()


def test_the_error_of_a_write_is_not_replaced_by_that_of_the_close(store, monkeypatch):
    close = os.close

    def failing_close(descriptor):
        close(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def full(_descriptor, _data):
        monkeypatch.setattr(os, "close", failing_close)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    staging = store.begin(3)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(SpaceError):
        staging.write("data", [b"x"])
    monkeypatch.undo()
    staging.abandon()


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_is_left_open(store):
    before = open_descriptors()
    for step in range(5):
        commit(store, step)
    store.newest_verified()
    store.prune(RetentionPolicy(keep_last=1))
    assert open_descriptors() == before


def test_everything_is_synced_in_the_order_that_makes_it_safe(store, monkeypatch):
    """A kill cannot show a missing sync; a power cut would."""
    done = []
    fsync, rename, unlink = os.fsync, Path.rename, shutil.rmtree

    def named(path):
        return re.sub(r"-\d+-\d+$", "", Path(path).name)

    def recorded_fsync(descriptor):
        done.append(("sync", named(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    def recorded_rename(self, target):
        done.append(("rename", named(self), named(target)))
        return rename(self, target)

    def recorded_removal(path, **options):
        done.append(("remove", named(path)))
        unlink(path, **options)

    commit(store, 1)
    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "rename", recorded_rename)
    monkeypatch.setattr(shutil, "rmtree", recorded_removal)
    commit(store, 2)
    store.prune(RetentionPolicy(keep_last=1))
    staging = ".staging-step-000000002"
    assert done == [
        ("sync", TENSORS),
        ("sync", "rank-00000.json"),
        ("sync", "manifest.json"),
        ("sync", staging),
        ("rename", staging, "step-000000002"),
        ("sync", "checkpoints"),
        ("rename", "step-000000001", ".pruned-step-000000001"),
        ("sync", "checkpoints"),
        ("remove", ".pruned-step-000000001"),
    ]


def test_the_read_back_asks_the_disk_and_not_the_page_cache(store, monkeypatch):
    """Pages are dropped once they are synced; dirty ones would stay."""
    done = []
    fsync, advise = os.fsync, os.posix_fadvise

    def named(descriptor):
        return Path(f"/proc/self/fd/{descriptor}").readlink().name

    def recorded_fsync(descriptor):
        done.append(("sync", named(descriptor)))
        fsync(descriptor)

    def recorded_advice(descriptor, offset, length, advice):
        if advice == os.POSIX_FADV_DONTNEED:
            done.append(("drop", named(descriptor), offset, length))
        advise(descriptor, offset, length, advice)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "posix_fadvise", recorded_advice)
    commit(store, 1)
    files = [TENSORS, "rank-00000.json"]
    expected = [each for name in files for each in (("sync", name), ("drop", name, 0, 0))]
    assert done[: len(expected)] == expected
