"""A resume is confirmed by all ranks, or by none."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

pytest.importorskip("torch")
from torch.distributed import HashStore

from tests.support.checkpoints import flip_bit, make_manifest, tensor_file
from trainerd.checkpoint.store import CheckpointStore
from trainerd.errors import MismatchError
from trainerd.training.distributed.joint_resume import confirm_together, find_together, resume_together
from trainerd.training.distributed.rank_store import Ranks
from trainerd.training.state.objects import TrackedObjects

pytestmark = pytest.mark.torch

TREE = b'{"format":"trainerd.tree/1","objects":{"model":{"a":1}}}'
"""State of an object that no rank here tracks: a resume ends with the name of what it was to come from."""


def confirmed(*said):
    """Return what becomes of each rank, given its problem and what it notes."""
    store = HashStore()

    def confirm(rank):
        try:
            return confirm_together(Ranks(store, rank=rank, world_size=len(said)), *said[rank])
        except MismatchError as error:
            return error

    with ThreadPoolExecutor(len(said)) as pool:
        return list(pool.map(confirm, range(len(said))))


def test_each_rank_hears_what_all_note():
    assert confirmed((None, []), (None, ["one", "two"])) == [[[], ["one", "two"]]] * 2


def test_what_one_rank_could_not_take_no_rank_has_taken():
    problem = MismatchError("it does not fit", ["model: 1, here 2"])
    first, second = confirmed((None, []), (problem, []))
    assert second is problem
    assert isinstance(first, MismatchError)
    assert "rank 1: it does not fit" in str(first)
    assert first.differences == problem.differences


class CopiesOfRank:
    """What `MemoryTier` is to a resume: the newest copy in memory, of a checkpoint that is not on disk."""

    def __init__(self, store):
        self.store = store
        self.newest = None
        self.refused = []
        self.followed = []

    def found(self, disk):
        """Return the copy as the checkpoint that it is to become, or the newest one on disk."""
        present = () if self.refused else self.store.checkpoints()
        self.newest = present[-1] if present else None
        if self.newest is None:
            return disk.checkpoints()[-1]
        return replace(self.newest, path=disk.directory / self.newest.name)

    def copy_of(self, checkpoint):
        return self.newest if self.newest is not None and self.newest.name == checkpoint.name else None

    def refuse(self, reason):
        self.refused.append(reason)

    def follow(self, checkpoint):
        self.followed.append(checkpoint.name)


@pytest.fixture
def stores(tmp_path):
    """A store on disk with step 3, and one in memory with step 5: each has the files of two ranks."""
    found = []
    for name, step in (("disk", 3), ("memory", 5)):
        store = CheckpointStore(tmp_path / name)
        with store.lock():
            staging = store.begin(step)
            for rank in range(2):
                staging.write(f"rank-{rank:05d}.safetensors", [tensor_file(step)])
                staging.write(f"rank-{rank:05d}.json", [TREE])
            store.commit(staging, make_manifest(step, world_size=2))
        found.append(store)
    return found


def resumed(disk, memory, *, before_reading=lambda: None):
    """Let two ranks that track nothing resume; return what each says of it."""
    words = HashStore()
    copies = [CopiesOfRank(memory) for _ in range(2)]

    def find():
        found = copies[0].found(disk)
        if not copies[0].refused:
            before_reading()
        return found

    def resume(rank):
        ranks = Ranks(words, rank=rank, world_size=2)
        try:
            return resume_together(ranks, disk, find, TrackedObjects(), copies[rank])
        except MismatchError as error:
            return str(error)
        except BaseException as error:
            ranks.say_failed(error)  # or the other would wait for long
            raise

    with disk.lock(), ThreadPoolExecutor(2) as pool:
        return list(pool.map(resume, range(2))), copies


def test_all_ranks_find_the_copy_and_the_checkpoint_that_it_is_to_become(stores):
    disk, memory = stores
    words = HashStore()
    copies = CopiesOfRank(memory)

    def find(rank):
        ranks = Ranks(words, rank=rank, world_size=2)
        return find_together(ranks, "found", disk, lambda: copies.found(disk), copies)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(find, range(2))
    for found in (first, second):
        assert found.checkpoint.path == disk.directory / "step-000000005"
        assert found.files.path == memory.directory / "step-000000005"
    assert first.checkpoint == second.checkpoint


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("harm", ["flipped", "gone", "all gone"])
def test_a_copy_that_one_rank_cannot_read_is_used_by_none_and_all_take_the_disk(stores, rank, harm):
    disk, memory = stores

    def strike():
        (copy,) = memory.checkpoints()
        file = copy.path / f"rank-{rank:05d}.safetensors"
        if harm == "flipped":
            flip_bit(file)
        elif harm == "gone":
            file.unlink()
        else:
            copy.path.rename(memory.directory / "elsewhere")

    # Rank 0 has found it sound, and a rank finds it damaged.
    said, copies = resumed(disk, memory, before_reading=strike)
    assert all("step-000000003" in each and "step-000000005" not in each for each in said), said
    assert [each.followed for each in copies] == [[], []]
    assert [len(each.refused) for each in copies] == [1, 0], "rank 0 refuses it"
    assert disk.quarantined() == (), "what is in memory alone is not quarantined"
