"""One copy in memory out of the files of several ranks: whichever rank dies or gives up at whichever act, the
newest copy is one that all ranks hold, and is at most one copy behind."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
from torch.distributed import HashStore  # noqa: E402 - only where torch is

from tests.support.checkpoints import make_manifest, tensor_file  # noqa: E402
from trainerd.checkpoint.store import CheckpointStore  # noqa: E402
from trainerd.errors import InternalError, RankLostError, SpaceError  # noqa: E402
from trainerd.training.distributed.rank_store import Ranks  # noqa: E402
from trainerd.training.engine.joint_copies import JointCopies, JointCopy, bytes_of_all  # noqa: E402
from trainerd.training.state.rank_files import tensors_name, tree_name  # noqa: E402
from trainerd.training.writing.direct_file import AbandonedError  # noqa: E402

pytestmark = pytest.mark.torch

LIMIT_S = 20.0
FIRST, SECOND, THIRD = 3, 5, 8
"""Steps of the copies."""


class Died(BaseException):
    """The process is gone: nothing is cleaned up."""


class Struck:
    """Ends a rank, or has it call its copy off, at an act: a word said or removed, a file written."""

    def __init__(self, rank=None, act=None, *, how="dies"):
        self.rank, self.act, self.how = rank, act, how
        self.is_armed = False
        self.has_struck = False
        self.acts = 0

    def pass_act(self, rank, copy):
        if not self.is_armed or rank != self.rank or self.has_struck:
            return
        self.acts += 1
        if self.acts > self.act:
            self.has_struck = True
            if self.how == "dies":
                raise Died
            copy.called_off.set()


class WatchedRanks(Ranks):
    """Ranks that are struck at an act, and notice at once that another one is dead."""

    def __init__(self, store, rank, world_size, struck, dead):
        super().__init__(store, rank=rank, world_size=world_size)
        self.copy = None
        self._struck = struck
        self._dead = dead

    def pass_act(self):
        self._struck.pass_act(self.rank, self.copy)

    def put(self, key, value):
        self.pass_act()
        super().put(key, value)
        self.pass_act()

    def forget(self, key):
        self.pass_act()
        super().forget(key)

    def look_for_the_lost(self):
        if any(rank != self.rank for rank in self._dead):
            raise RankLostError("a rank has ended")


class Place:
    """Where rank 0 has the copies: as `MemoryTier`, it removes the former ones behind a new one."""

    def __init__(self, store, ranks):
        self.store, self.ranks = store, ranks
        self.sizes = []
        self.problem = None

    def store_for(self, size_bytes):
        self.sizes.append(size_bytes)
        if self.problem is not None:
            raise self.problem
        return self.store

    def commit(self, part, manifest, *, is_urgent):
        assert not is_urgent
        copy = part.commit(manifest, reads_back=False)
        self.ranks.pass_act()
        for former in self.store.checkpoints():
            if former.name != copy.name:
                for file in former.path.iterdir():
                    file.unlink()
                former.path.rmdir()
        return copy


def give_up_if_called_off(copy):
    """Do as `write_direct` does."""
    if copy.called_off.is_set():
        raise AbandonedError


class World:
    """Ranks, each a thread for each copy, that make copies into one folder."""

    def __init__(self, folder, struck, world_size=2):
        self.words = HashStore()
        self.struck = struck
        self.dead = []
        self.store = CheckpointStore(folder)
        self.ranks = [
            WatchedRanks(self.words, rank, world_size, struck, self.dead) for rank in range(world_size)
        ]
        self.copies = [JointCopies(ranks) for ranks in self.ranks]
        self.place = Place(self.store, self.ranks[0])
        self.numbers = itertools.count()

    def copy(self, step, declines=(), sizes=(10, 20, 30)):
        """Let all ranks make a copy; return how it ended for each."""
        number, endings = next(self.numbers), {}

        def work(rank):
            try:
                if rank in declines:
                    self.copies[rank].decline(number)
                else:
                    self._copy(rank, number, step, sizes[rank])
                endings[rank] = "done"
            except Died:
                self.dead.append(rank)
                endings[rank] = "died"
            except Exception as error:  # noqa: BLE001 - compared by the test
                endings[rank] = type(error).__name__

        alive = [rank for rank in range(len(self.ranks)) if rank not in self.dead]
        threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in alive]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
            assert not thread.is_alive(), "a rank hangs"
        return [endings.get(rank, "dead") for rank in range(len(self.ranks))]

    def _copy(self, rank, number, step, size):
        ranks = self.ranks[rank]
        copy = JointCopy(self.copies[rank], number, size_bytes=size, place=self.place)
        ranks.copy = copy
        manifest = make_manifest(step, world_size=len(self.ranks))
        part = copy.begin(manifest)
        try:
            for name in (tensors_name(rank), tree_name(rank)):
                ranks.pass_act()
                give_up_if_called_off(copy)
                part.staging.write(name, [tensor_file(rank + step)])
                ranks.pass_act()
            copy.commit(part, manifest, is_urgent=False)
        except Exception:
            part.abandon()
            raise

    def newest(self):
        """Return the step of the newest copy. All that have a name are whole."""
        present = self.store.checkpoints()
        assert self.store.problems() == ()
        for copy in present:
            self.store.verify(copy)
            names = {name(rank) for rank in range(len(self.ranks)) for name in (tensors_name, tree_name)}
            assert {entry.name for entry in copy.manifest.files} == names
        return present[-1].step if present else None

    def close(self):
        for ranks in self.ranks:
            ranks._bounded.close()


@pytest.fixture
def world_of(tmp_path):
    worlds = []

    def make(struck=None, world_size=2):
        world = World(tmp_path / f"memory-{len(worlds)}", struck or Struck(), world_size)
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.close()


def with_lock(world, work):
    with world.store.lock():
        return work()


def test_each_copy_holds_the_files_of_all_ranks_and_the_one_before_goes(world_of):
    world = world_of(world_size=3)

    def work():
        for step in (FIRST, SECOND, THIRD):
            assert world.copy(step) == ["done"] * 3
            assert world.newest() == step
            assert len(world.store.checkpoints()) == 1

    with_lock(world, work)
    assert world.place.sizes == [60, 60, 60]  # memory is counted for all ranks together


def test_words_of_former_copies_are_removed(world_of):
    world = world_of()

    def work():
        counts = []
        for step in range(1, 8):
            world.copy(step, declines=[step % 3] if step % 3 < 2 else [])
            counts.append(world.words.num_keys())
        return counts

    counts = with_lock(world, work)
    assert counts[-1] <= max(counts[:4])


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_at_any_act_leaves_the_copy_before_or_the_new_one(world_of, rank, world_size):
    outcomes = []
    for act in itertools.count():
        struck = Struck(rank, act)
        world = world_of(struck, world_size)

        def work(world=world, struck=struck):
            assert world.copy(FIRST) == ["done"] * world_size
            struck.is_armed = True
            return world.copy(SECOND)

        endings = with_lock(world, work)
        newest = world.newest()
        assert newest in {FIRST, SECOND}
        if not struck.has_struck:
            assert (endings, newest) == (["done"] * world_size, SECOND)
            break
        assert endings[rank] == "died"
        if newest == FIRST:
            assert "done" not in endings, "no rank takes it for made"
        outcomes.append(newest)
    assert outcomes == sorted(outcomes), "from one act on the new copy is there"
    assert outcomes[0] == FIRST
    if rank == 0:  # another rank's last act is its announcement, of which rank 0 may not know yet
        assert outcomes[-1] == SECOND


@pytest.mark.parametrize("rank", [0, 1])
def test_a_copy_that_a_rank_calls_off_at_any_act_is_given_up_by_all_and_the_next_one_is_made(world_of, rank):
    for act in itertools.count():
        struck = Struck(rank, act, how="calls off")
        world = world_of(struck)

        def work(world=world, struck=struck):
            assert world.copy(FIRST) == ["done"] * 2
            struck.is_armed = True
            endings = world.copy(SECOND)
            assert set(endings) <= {"done", "AbandonedError", "FencedError", "FileNotFoundError"}
            newest = world.newest()
            assert newest in {FIRST, SECOND}
            if newest == FIRST:
                assert "done" not in endings
            struck.is_armed = False
            assert world.copy(THIRD) == ["done"] * 2
            assert world.newest() == THIRD

        with_lock(world, work)
        if not struck.has_struck:
            break
    assert act > 4


@pytest.mark.parametrize("declines", [[0], [1], [0, 1]])
def test_a_copy_that_a_rank_has_nothing_for_is_made_by_none(world_of, declines):
    world = world_of()

    def work():
        assert world.copy(FIRST) == ["done"] * 2
        endings = world.copy(SECOND, declines=declines)
        assert endings == ["done" if rank in declines else "AbandonedError" for rank in (0, 1)]
        assert world.newest() == FIRST
        assert world.copy(THIRD) == ["done"] * 2

    with_lock(world, work)
    assert world.newest() == THIRD


def test_where_memory_is_short_for_all_together_no_rank_writes(world_of):
    world = world_of()
    world.place.problem = SpaceError("two copies are needed")
    assert with_lock(world, lambda: world.copy(FIRST)) == ["SpaceError"] * 2
    assert world.newest() is None
    assert [path for path in world.store.directory.iterdir() if path.name.startswith(".staging")] == []


def test_a_rank_that_does_not_see_the_place_has_all_give_up(world_of, monkeypatch):
    world = world_of()
    begun = CheckpointStore.begin

    def begin_elsewhere(store, step):
        staging = begun(store, step)
        hidden = staging.path.with_name("hidden")
        staging.path.rename(hidden)
        return staging

    monkeypatch.setattr(CheckpointStore, "begin", begin_elsewhere)
    endings = with_lock(world, lambda: world.copy(FIRST))
    assert "done" not in endings
    assert world.newest() is None


BOUNDARIES = [list(each) for each in itertools.product((1, 2), (0, 1), (0, 3))]


def test_a_copy_is_made_only_where_all_ranks_hold_the_same_boundary():
    for mine, second, third in itertools.product(BOUNDARIES, repeat=3):
        heard = {1: {"boundary": second, "bytes": 5}, 2: {"boundary": third, "bytes": 7}}
        if mine == second == third:
            assert bytes_of_all(mine, 11, heard) == 23
            continue
        with pytest.raises(InternalError, match="do not run the same loops"):
            bytes_of_all(mine, 11, heard)


def test_ranks_that_hold_different_boundaries_make_no_copy(world_of, monkeypatch):
    world = world_of()
    make = make_manifest
    steps = iter((FIRST, SECOND))
    monkeypatch.setitem(
        globals(), "make_manifest", lambda step, **more: replace(make(step, **more), step=next(steps))
    )
    endings = with_lock(world, lambda: world.copy(FIRST))
    assert endings[0] == "InternalError"
    assert "done" not in endings
    assert world.newest() is None
