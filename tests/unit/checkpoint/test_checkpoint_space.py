"""Room on the disk: known before a save, made where that is safe, never at the price of the last good
checkpoint."""

from __future__ import annotations

import pytest

from tests.support.checkpoints import TENSORS, commit, flip_bit, names
from trainerd.checkpoint import housekeeping
from trainerd.checkpoint.space import MARGIN_BYTES
from trainerd.contract.policy import KeepBest, RetentionPolicy
from trainerd.errors import SpaceError

SIZE = 10 * 2**20
ROOM = 100 * 2**20


@pytest.fixture
def disk(store, monkeypatch):
    """A disk with just so many bytes, of which the checkpoints and the reserve take theirs."""

    class Disk:
        bytes = ROOM

        def free(self, directory):
            taken = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
            return self.bytes - taken

    disk = Disk()
    monkeypatch.setattr(housekeeping, "free_bytes", disk.free)
    return disk


def test_with_room_nothing_is_pruned(store, disk):
    for step in range(5):
        commit(store, step)
    store.make_room(SIZE, RetentionPolicy(keep_last=1))
    assert len(names(store)) == 5


def test_no_more_is_pruned_than_it_takes_and_oldest_first(store, disk):
    for step in range(5):
        commit(store, step, size_bytes=SIZE)
    disk.bytes = 5 * SIZE + MARGIN_BYTES + 2**20
    store.make_room(2 * SIZE, RetentionPolicy(keep_last=1))
    assert names(store) == ["step-000000002", "step-000000003", "step-000000004"]


def test_what_the_policy_wants_kept_is_not_pruned_for_room(store, disk):
    commit(store, 1, size_bytes=SIZE, scores={"a": 1.0})
    commit(store, 2, size_bytes=SIZE)
    store.pin("2")
    for step in (3, 4):
        commit(store, step, size_bytes=SIZE)
    disk.bytes = 4 * SIZE + MARGIN_BYTES
    with pytest.raises(SpaceError, match=r"needs 20\.0 MiB and 16\.0 MiB to spare") as raised:
        store.make_room(2 * SIZE, RetentionPolicy(keep_last=2, keep_best=(KeepBest("a"),)))
    assert "nothing that was there is lost" in str(raised.value)
    assert names(store) == ["step-000000001", "step-000000002", "step-000000004"]


def test_the_newest_verified_stays_even_with_a_limit_of_one(store, disk):
    commit(store, 1, size_bytes=SIZE)
    flip_bit(commit(store, 2, size_bytes=SIZE).path / TENSORS)
    fresh = type(store)(store.directory)  # a new process: nothing is verified yet
    disk.bytes = 2 * SIZE + MARGIN_BYTES
    with pytest.raises(SpaceError):
        fresh.make_room(2 * SIZE, RetentionPolicy(keep_last=1))
    assert "step-000000001" in names(store)


def test_with_all_kept_nothing_is_pruned_for_room(store, disk):
    commit(store, 1, size_bytes=SIZE)
    commit(store, 2, size_bytes=SIZE)
    disk.bytes = 2 * SIZE + MARGIN_BYTES
    with pytest.raises(SpaceError):
        store.make_room(SIZE, RetentionPolicy(keep_last=None))
    assert len(names(store)) == 2


def test_an_emergency_may_have_the_reserve_and_nobody_else(store, disk):
    commit(store, 1, size_bytes=SIZE)
    assert store.keep_reserve(SIZE)
    disk.bytes = 2 * SIZE + MARGIN_BYTES + 2**20
    with pytest.raises(SpaceError):
        store.make_room(SIZE, RetentionPolicy())
    assert (store.directory / ".reserve").stat().st_size == SIZE
    store.make_room(SIZE, RetentionPolicy(), is_emergency=True)
    assert not (store.directory / ".reserve").exists()


def test_an_emergency_with_room_leaves_the_reserve(store, disk):
    store.keep_reserve(SIZE)
    store.make_room(SIZE, RetentionPolicy(), is_emergency=True)
    assert (store.directory / ".reserve").exists()


def test_the_reserve_really_occupies_its_room_and_follows_its_size(store):
    for size in (SIZE, SIZE // 2, 0):
        assert store.keep_reserve(size)
        status = (store.directory / ".reserve").stat()
        assert (status.st_size, status.st_blocks * 512 >= size) == (size, True)


def test_no_room_for_a_reserve_is_no_error(store, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainerd.checkpoint.space.os.posix_fallocate", full)
    assert not store.keep_reserve(SIZE)
    assert not (store.directory / ".reserve").exists()
