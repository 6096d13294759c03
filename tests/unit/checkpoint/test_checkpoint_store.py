"""The store: lists what is committed, trusts what verifies, and takes whatever is found in its folder."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from tests.support.checkpoints import TENSORS, commit, damaged_manifest, flip_bit, names
from trainerd.checkpoint import digest
from trainerd.checkpoint import store as store_module
from trainerd.checkpoint.manifest import NewerFormatError
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import failpoints
from trainerd.contract.paths import RunPaths
from trainerd.contract.policy import RetentionPolicy
from trainerd.errors import CorruptError, UserError


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES = {
    "a flipped bit": (lambda folder: flip_bit(folder / TENSORS), "has digest"),
    "a cut file": (lambda folder: cut(folder / TENSORS), "bytes, not"),
    "an empty file": (lambda folder: (folder / TENSORS).write_bytes(b""), "has 0 bytes, not"),
    "a missing file": (lambda folder: (folder / TENSORS).unlink(), "No such file"),
    "a folder for a file": (
        lambda folder: ((folder / TENSORS).unlink(), (folder / TENSORS).mkdir()),
        "bytes, not",
    ),
    "a link for a file": (
        lambda folder: (
            (folder / TENSORS).rename(folder / "other"),
            (folder / TENSORS).symlink_to("other"),
        ),
        "bytes, not",
    ),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "manifest.json: No such file"),
    "an empty manifest": (lambda folder: (folder / "manifest.json").write_bytes(b""), "no digest of itself"),
    "a flipped bit in the manifest": (
        lambda folder: flip_bit(folder / "manifest.json", offset=200),
        "does not match",
    ),
    "a manifest of another step": (
        lambda folder: (folder / "manifest.json").write_bytes(damaged_manifest(3)),
        "says step 3",
    ),
    "an empty folder": (lambda folder: (shutil.rmtree(folder), folder.mkdir()), "No such file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_quarantined_with_the_reason_and_the_one_before_is_used(store, damage):
    do_damage, reason = DAMAGES[damage]
    older = commit(store, 1)
    do_damage(commit(store, 2).path)
    assert store.newest_sound() == older
    assert store.quarantined() == ()
    assert store.newest_verified() == older
    (aside,) = store.quarantined()
    assert (aside.name, aside.path.name) == ("step-000000002", "step-000000002")
    assert reason in aside.reason
    assert names(store) == ["step-000000001"]


def test_if_all_are_damaged_there_is_none_and_nothing_is_deleted(store):
    for step in (1, 2):
        flip_bit(commit(store, step).path / TENSORS)
    assert store.newest_verified() is None
    assert len(store.quarantined()) == 2


def test_an_empty_or_missing_folder_has_no_checkpoints(tmp_path):
    store = CheckpointStore(tmp_path / "missing")
    assert (store.checkpoints(), store.newest_verified(), store.problems()) == ((), None, ())
    assert not store.directory.exists()


def test_a_folder_that_cannot_be_read_is_unknown_and_not_empty(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    store = CheckpointStore(tmp_path / "checkpoints")
    for look in (store.checkpoints, store.newest_verified, store.problems):
        with pytest.raises(NotADirectoryError):
            look()


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE])
def test_what_cannot_be_read_is_not_called_damaged(store, monkeypatch, number):
    """Failing to observe is no evidence: the error is raised, nothing is quarantined, nothing starts anew."""
    commit(store, 1)

    def unreadable(_path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("trainerd.checkpoint.verify.digest_of_file", unreadable)
    with pytest.raises(OSError) as raised:
        CheckpointStore(store.directory).newest_verified()
    assert raised.value.errno == number
    monkeypatch.undo()
    assert names(store) == ["step-000000001"]


def test_one_unreadable_file_does_not_hide_an_older_checkpoint_that_reads(store, monkeypatch):
    older = commit(store, 1)
    commit(store, 2)
    read = digest.digest_of_file

    def bad_sector(path):
        if "step-000000002" in str(path):
            raise OSError(errno.EIO, "bad sector")
        return read(path)

    monkeypatch.setattr("trainerd.checkpoint.verify.digest_of_file", bad_sector)
    assert store.newest_verified() == older
    assert names(store) == ["step-000000001", "step-000000002"]


def test_a_checkpoint_of_a_newer_trainerd_is_neither_used_nor_passed_over(store):
    commit(store, 1)
    newer = commit(store, 120)
    (newer.path / "manifest.json").write_bytes(damaged_manifest(120, format="trainerd.checkpoint/2"))
    with pytest.raises(NewerFormatError, match="the trainerd that wrote it"):
        store.newest_verified()
    assert [problem.message.partition(":")[0] for problem in store.problems()] == ["step-000000120"]
    assert store.quarantined() == ()


def test_foreign_things_in_the_folder_are_left_alone(store):
    commit(store, 5)
    foreign = store.directory / "notes.txt", store.directory / "step-12", store.directory / ".staging-mine"
    foreign[0].write_text("mine")
    foreign[1].mkdir()
    foreign[2].mkdir()
    (store.directory / "step-000000009").write_text("a file")
    (store.directory / "step-000000008").symlink_to("step-000000005")
    for name in ("step-000000005.0", "step-0000000007", "step-7", "step-000000007~2", "step-000000007.01"):
        (store.directory / name).mkdir()
    assert names(store) == ["step-000000005"]
    assert store.problems() == ()
    assert store.newest_verified().step == 5
    assert store.quarantined() == ()
    store.sweep()
    store.prune(RetentionPolicy(keep_last=0))
    store.set_aside_after(None, "anew")
    assert all(path.exists() for path in foreign)
    assert (store.directory / "step-000000009").is_file()


def test_a_checkpoint_with_a_foreign_file_in_it_still_verifies(store):
    checkpoint = commit(store, 5)
    (checkpoint.path / ".DS_Store").write_text("")
    (checkpoint.path / "notes").mkdir()
    store.verify(checkpoint)


@pytest.mark.parametrize("reason", ["flushed", "memory"])
def test_checkpoints_of_crashes_take_no_place_from_others(store, reason):
    for step in (25, 50):
        commit(store, step)
    for step in (51, 52, 53):
        commit(store, step, reason=reason)
    store.prune(RetentionPolicy(keep_last=3))
    assert names(store) == ["step-000000025", "step-000000050", "step-000000053"]


def test_checkpoints_removed_by_hand_are_simply_gone(store):
    for step in (1, 2, 3, 4):
        commit(store, step)
    listed = store.checkpoints()
    shutil.rmtree(listed[0].path)
    shutil.rmtree(listed[3].path)
    with pytest.raises(FileNotFoundError):
        store.verify(listed[3])
    assert store.newest_verified() == listed[2]
    store.prune(RetentionPolicy(keep_last=1))
    assert names(store) == ["step-000000003"]


def test_a_checkpoint_that_goes_while_it_is_verified_is_passed_over(store, monkeypatch):
    older, newest = commit(store, 1), commit(store, 2)
    verify = store_module.verify_files

    def removed_under_us(checkpoint):
        if checkpoint == newest:
            shutil.rmtree(newest.path)
        verify(checkpoint)

    monkeypatch.setattr(store_module, "verify_files", removed_under_us)
    assert store.newest_verified() == older
    shutil.rmtree(older.path)
    newest = commit(store, 3, reads_back=False)
    assert store.newest_verified() is None
    assert store.quarantined() == ()


def test_sweep_removes_what_a_crash_left_and_nothing_else(store):
    kept = commit(store, 1)
    left = [
        store.directory / ".staging-step-000000002-4711-0",
        store.directory / ".pruned-step-000000000.1-4711-12",
    ]
    for path in left:
        path.mkdir()
        (path / "data").write_bytes(b"x")
    record = store.directory / ".step-000000001.pin.json.tmp-4711-0"
    record.write_bytes(b"x")
    assert set(store.sweep()) == {*left, record}
    assert names(store) == [kept.name]
    assert store.sweep() == []


@pytest.mark.parametrize("asked", ["step-000000120", "step-120", "120", "step-000000120.1", "120.1"])
def test_a_person_can_name_a_checkpoint_in_short(store, asked):
    commit(store, 120)
    commit(store, 120)
    assert store.find(asked).name == f"step-000000120{'.1' if asked.endswith('.1') else ''}"


@pytest.mark.parametrize("asked", ["121", "last", "../step-120", "", "step-120.9"])
def test_an_unknown_name_is_answered_with_those_that_there_are(store, asked):
    commit(store, 120)
    with pytest.raises(UserError, match="there are: step-000000120"):
        store.find(asked)


def test_a_damaged_checkpoint_of_a_step_that_was_damaged_before_is_kept_too(store):
    for _ in range(3):
        flip_bit(commit(store, 5).path / TENSORS)
        store.newest_verified()
    assert [aside.path.name for aside in store.quarantined()] == [
        f"step-000000005{x}" for x in ("", "~2", "~3")
    ]
    assert {aside.name for aside in store.quarantined()} == {"step-000000005"}


def test_a_full_disk_takes_no_note_and_the_damaged_one_is_set_aside_all_the_same(store):
    older = commit(store, 1)
    flip_bit(commit(store, 2).path / TENSORS)
    failpoints.arm("record.written=ENOSPC")
    assert store.newest_verified() == older
    assert [aside.reason for aside in store.quarantined()] == ["the reason was not recorded"]


def test_quarantine_and_abandoned_of_a_run_lie_beside_its_checkpoints(tmp_path, clock):
    run = RunPaths(tmp_path / "runs" / "mnist")
    store = CheckpointStore.of_run(run)
    with store.lock():
        flip_bit(commit(store, 2).path / TENSORS)
        commit(store, 1)
        store.newest_verified()
        store.newest_sound()
        store.set_aside_after(None, "anew")
    assert (run.quarantine / "step-000000002").is_dir()
    assert (run.abandoned / "step-000000001").is_dir()


def test_where_a_rename_cannot_leave_the_folder_things_are_set_aside_inside_it(tmp_path, monkeypatch):
    """The checkpoints folder may be a mount of its own."""
    store = CheckpointStore(tmp_path / "checkpoints", quarantine=tmp_path / "quarantine")
    rename = type(tmp_path).rename

    def rename_on_two_filesystems(self, target):
        if str(target).startswith(str(tmp_path / "quarantine")):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(self, target)

    with store.lock():
        flip_bit(commit(store, 2).path / TENSORS)
        monkeypatch.setattr(type(tmp_path), "rename", rename_on_two_filesystems)
        assert store.newest_verified() is None
    assert [aside.path.parent for aside in store.quarantined()] == [store.directory / "quarantine"]


def test_where_nothing_can_be_moved_the_damaged_one_is_still_passed_over(store, monkeypatch):
    older = commit(store, 1)
    flip_bit(commit(store, 2).path / TENSORS)

    def read_only(*_arguments, **_options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(store_module, "take_aside", read_only)
    assert store.newest_verified() == older
    assert names(store) == ["step-000000001", "step-000000002"]


def test_deletion_in_the_background_is_out_of_sight_at_once(store):
    for step in (1, 2, 3):
        commit(store, step)
    store.prune(RetentionPolicy(keep_last=2), in_background=True)
    store.prune(RetentionPolicy(keep_last=1), in_background=True)
    assert names(store) == ["step-000000003"]
    assert store.wait_for_removals(limit_s=20)
    assert not list(store.directory.glob(".pruned-*"))


def test_verify_says_what_differs_and_changes_nothing(store):
    checkpoint = commit(store, 5)
    flip_bit(checkpoint.path / TENSORS)
    with pytest.raises(CorruptError, match=f"step-000000005: {TENSORS} has digest xxh3-128:"):
        store.verify(checkpoint)
    assert names(store) == ["step-000000005"]
