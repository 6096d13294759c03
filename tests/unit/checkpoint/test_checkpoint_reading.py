"""Readers keep what they read; a pruner does not wait for them."""

from __future__ import annotations

import errno
import fcntl
import shutil

import pytest

from tests.support.checkpoints import commit, names
from trainerd.checkpoint.reading import is_being_read
from trainerd.checkpoint.removal import rename_for_removal
from trainerd.contract.policy import RetentionPolicy


def test_prune_keeps_a_checkpoint_that_is_being_read(store):
    read = commit(store, 1)
    commit(store, 2)
    with store.reading(read), store.reading(read):
        plan = store.prune(RetentionPolicy(keep_last=1))
        assert "being read" in plan.keep[0].reasons
        assert names(store) == ["step-000000001", "step-000000002"]
    store.prune(RetentionPolicy(keep_last=1))
    assert names(store) == ["step-000000002"]


def test_a_reader_that_begins_after_the_plan_is_not_disturbed(store):
    read = commit(store, 1)
    with store.reading(read):
        assert rename_for_removal(read.path) is None
    assert names(store) == ["step-000000001"]


def test_reading_what_is_gone_says_so(store):
    gone = commit(store, 1)
    shutil.rmtree(gone.path)
    with pytest.raises(FileNotFoundError), store.reading(gone):
        pass
    assert rename_for_removal(gone.path) is None
    assert not is_being_read(gone.path)


def test_a_reader_that_lost_the_race_is_told(store, monkeypatch):
    """It opened the folder, and before it had the lock the folder was renamed away."""
    read = commit(store, 1)
    flock = fcntl.flock

    def flock_after_the_rename(descriptor, operation):
        read.path.rename(read.path.with_name(".pruned"))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_after_the_rename)
    with pytest.raises(FileNotFoundError), store.reading(read):
        pass


def test_where_folders_cannot_be_locked_reading_and_pruning_go_on(store, monkeypatch):
    def no_locks(_descriptor, _operation):
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    read = commit(store, 1)
    commit(store, 2)
    with store.reading(read):
        assert not is_being_read(read.path)
    store.prune(RetentionPolicy(keep_last=1))
    assert names(store) == ["step-000000002"]
