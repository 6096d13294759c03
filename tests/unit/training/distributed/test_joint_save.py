"""One checkpoint of several ranks: nothing is committed unless each rank proved its part of the same
boundary."""

from __future__ import annotations

import contextlib
import errno
import threading

import pytest

torch = pytest.importorskip("torch")
from torch.distributed import HashStore  # noqa: E402 - only where torch is

from tests.support.checkpoints import make_manifest, tensor_file  # noqa: E402
from trainerd.checkpoint.store import CheckpointStore  # noqa: E402
from trainerd.errors import InternalError  # noqa: E402
from trainerd.training.distributed.joint_save import JointSaves  # noqa: E402
from trainerd.training.distributed.rank_store import Ranks  # noqa: E402
from trainerd.training.state.rank_files import tensors_name, tree_name  # noqa: E402

pytestmark = pytest.mark.torch

LIMIT_S = 20.0
WORLD = 3


class Saver(threading.Thread):
    """One rank that makes one save, and notes how it ended."""

    def __init__(self, store, folder, rank, manifest, files=None):
        super().__init__(daemon=True)
        self.rank, self.manifest = rank, manifest
        self.files = files if files is not None else (tensors_name(rank), tree_name(rank))
        self.store = CheckpointStore(folder)
        self.saves = JointSaves(Ranks(store, rank=rank, world_size=WORLD), self.store)
        self.checkpoint = self.problem = None

    def run(self):
        with self.store.lock() if self.rank == 0 else contextlib.nullcontext():
            self.save()

    def save(self):
        try:
            part = self.saves.begin(self.manifest)
            try:
                self.write(part)
                self.checkpoint = part.commit(self.manifest)
            except BaseException:
                part.abandon()
                raise
        except (InternalError, OSError) as error:
            self.problem = error

    def write(self, part):
        for name in self.files:
            if name == "no room":
                raise OSError(errno.EIO, "the disk is broken")
            part.staging.write(name, [tensor_file(self.rank)])


def save_together(folder, **second):
    """Let three ranks save; the second one as the arguments say."""
    store = HashStore()
    manifests = [make_manifest(7, epoch=1, batch=3, world_size=WORLD) for _ in range(WORLD)]
    manifests[1] = second.pop("manifest", manifests[1])
    ranks = [
        Saver(store, folder, rank, manifest, **(second if rank == 1 else {}))
        for rank, manifest in enumerate(manifests)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(LIMIT_S)
        assert not rank.is_alive(), f"rank {rank.rank} hangs"
    return ranks


def what_is_there(folder):
    """What a save left, after the sweep that the next start makes: a rank may have written while rank 0
    removed."""
    store = CheckpointStore(folder)
    with store.lock():
        store.sweep()
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(("step-", ".staging-")))


def test_the_files_of_all_ranks_make_one_checkpoint(tmp_path):
    ranks = save_together(tmp_path)
    assert [rank.problem for rank in ranks] == [None] * WORLD
    assert what_is_there(tmp_path) == ["step-000000007"]
    assert len({rank.checkpoint.name for rank in ranks}) == 1
    assert len(ranks[0].checkpoint.manifest.files) == 2 * WORLD


@pytest.mark.parametrize(
    "other",
    [
        {"manifest": make_manifest(8, epoch=1, batch=3, world_size=WORLD)},
        {"manifest": make_manifest(7, epoch=2, batch=3, world_size=WORLD)},
        {"manifest": make_manifest(7, epoch=1, batch=4, world_size=WORLD)},
        {"files": ()},
        {"files": (tensors_name(1),)},
        {"files": (tensors_name(2), tree_name(2))},
        {"files": ("no room",)},
    ],
    ids=[
        "another step",
        "another epoch",
        "another batch",
        "no files",
        "one file",
        "a stranger's files",
        "a broken disk",
    ],
)
def test_a_rank_that_does_not_prove_its_part_of_this_boundary_ends_the_save_on_all(tmp_path, other):
    ranks = save_together(tmp_path, **other)
    assert all(isinstance(rank.problem, InternalError | OSError) for rank in ranks)
    assert what_is_there(tmp_path) == []


def test_the_leader_compares_the_boundaries_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "trainerd.training.distributed.joint_save.FollowingPart._check_boundary", lambda *_: None
    )
    ranks = save_together(tmp_path, manifest=make_manifest(8, epoch=1, batch=3, world_size=WORLD))
    assert isinstance(ranks[0].problem, InternalError)
    assert what_is_there(tmp_path) == []
