"""Which copy in memory a run goes on from, and what becomes of the others."""

import itertools
import os
from dataclasses import replace
from typing import NamedTuple

import pytest

from trainerd.checkpoint.committed import Checkpoint
from trainerd.checkpoint.manifest import Manifest
from trainerd.checkpoint.memory_return import find_copy, why_not, write_back
from trainerd.checkpoint.store import CheckpointStore
from trainerd.errors import CorruptError, FencedError, SpaceError

BASE = Manifest(
    job="ant", lineage="line", parent=None, step=0, epoch=0, batch=0, reason="memory", history_bytes=50
)


@pytest.fixture
def disk(tmp_path):
    store = CheckpointStore(tmp_path / "disk")
    with store.lock():
        yield store


@pytest.fixture
def memory(tmp_path):
    store = CheckpointStore(tmp_path / "memory")
    with store.lock():
        yield store


def saved(store, step, **fields):
    staging = store.begin(step)
    for name in ("rank-00000.json", "rank-00000.safetensors"):
        staging.write(name, [f"{name} of {step}".encode() * 1000])
    return store.commit(staging, replace(BASE, step=step, **fields))


class Back(NamedTuple):
    checkpoint: Checkpoint | None
    reasons: tuple[str, ...]


def returned(disk, memory, *, history_bytes=50, make_room=lambda _: None):
    found, reasons = find_copy(disk, memory, memory.verify, history_bytes=history_bytes, make_room=make_room)
    if found is None:
        return Back(None, reasons)
    checkpoint = write_back(disk, found)
    assert checkpoint.manifest.files == found.checkpoint.manifest.files
    assert replace(checkpoint, manifest=found.checkpoint.manifest) == found.checkpoint, "what was announced"
    return Back(checkpoint, reasons)


def test_the_newest_copy_becomes_the_newest_checkpoint_and_follows_from_the_one_on_disk(disk, memory):
    saved(disk, 4)
    saved(memory, 6, parent="step-000000004")
    copy = saved(memory, 7, parent="step-000000004")
    found = returned(disk, memory)
    assert (found.checkpoint.name, found.reasons) == ("step-000000007", ())
    newest = disk.checkpoints()[-1]
    disk.verify(newest)
    assert newest.manifest == copy.manifest


def test_a_run_that_has_nothing_on_disk_goes_on_from_its_copy(disk, memory):
    saved(memory, 3)
    assert returned(disk, memory).checkpoint.step == 3


def test_a_save_on_disk_since_the_parent_becomes_the_parent(disk, memory):
    saved(disk, 4)
    saved(disk, 8, parent="step-000000004")
    saved(memory, 9, parent="step-000000004")
    assert returned(disk, memory).checkpoint.manifest.parent == "step-000000008"


@pytest.mark.parametrize("step", [7, 8])
def test_a_copy_that_is_not_newer_is_left_without_a_word(disk, memory, step):
    saved(disk, step)
    saved(memory, 7)
    assert returned(disk, memory) == returned(disk, CheckpointStore(memory.directory / "none"))


STALE = {
    "of before a rollback": ({"parent": "step-000000006"}, "it follows from step-000000006"),
    "of another line with the same beginning": ({"lineage": "other"}, "it follows from another beginning"),
    "of another line that went further": (
        {"parent": "step-000000002", "lineage": "other"},
        "it follows from step-000000002",
    ),
    "of a parent without a name": ({"parent": "../x"}, "it follows from"),
    "of several ranks": ({"parent": "step-000000004", "world_size": 2}, "it is of 2 ranks, and 1 go on"),
    "of a longer history": ({"parent": "step-000000004", "history_bytes": 51}, "51 bytes"),
}


@pytest.mark.parametrize(("fields", "reason"), STALE.values(), ids=STALE.keys())
def test_a_copy_that_does_not_follow_from_the_disk_is_not_used(disk, memory, fields, reason):
    saved(disk, 4)
    saved(memory, 7, **fields)
    found = returned(disk, memory)
    assert found.checkpoint is None
    assert reason in found.reasons[0]
    assert [each.step for each in disk.checkpoints()] == [4]


def test_a_copy_of_several_ranks_is_used_by_as_many_ranks(disk, memory):
    saved(disk, 4)
    copy = saved(memory, 7, parent="step-000000004", world_size=2)
    newest = disk.checkpoints()[-1]
    found = {ranks: why_not(copy.manifest, newest, history_bytes=50, world_size=ranks) for ranks in (1, 2, 3)}
    assert found[2] is None
    assert found[1] == "it is of 2 ranks, and 1 go on"
    assert found[3] == "it is of 2 ranks, and 3 go on"


def test_a_copy_is_used_in_no_other_case_than_all_conditions_say(disk):
    """Every combination of a few values of each."""
    newest = {None: None} | {step: saved(disk, step) for step in (2, 4)}
    parents = (None, "step-000000002", "step-000000004")
    cases = itertools.product(newest, (2, 3, 5), parents, ("line", "other"), (1, 2), (1, 2), (50, 51))
    used = 0
    for disk_step, step, parent, lineage, saved_by, go_on, history in cases:
        copy = replace(
            BASE, step=step, parent=parent, lineage=lineage, world_size=saved_by, history_bytes=history
        )
        follows = {
            None: parent is None,
            2: parent == "step-000000002" or (parent is None and lineage == "line"),
            4: parent == "step-000000004" or (parent != "step-000000004" and lineage == "line"),
        }[disk_step]
        is_good = step > (disk_step or 0) and saved_by == go_on and history <= 50 and follows
        problem = why_not(copy, newest[disk_step], history_bytes=50, world_size=go_on)
        assert (problem is None) == is_good, (disk_step, copy, go_on, problem)
        used += is_good
    assert used > 0


def test_a_copy_whose_parent_is_gone_with_all_of_the_disk_is_not_used(memory, disk):
    copy = saved(memory, 7, parent="step-000000004")
    assert "the disk has no checkpoint" in why_not(copy.manifest, None, history_bytes=50)


@pytest.mark.parametrize("harm", ["flipped", "cut", "longer", "gone", "manifest", "fifo"])
def test_a_damaged_copy_is_not_used_but_a_whole_one_before_it(disk, memory, harm):
    saved(memory, 6)
    copy = saved(memory, 7)
    file = copy.path / ("manifest.json" if harm == "manifest" else "rank-00000.safetensors")
    data = bytearray(file.read_bytes())
    data[100] ^= 4
    changed = {"cut": data[:-1], "longer": file.read_bytes() + b"x"}.get(harm, data)
    file.unlink()
    if harm == "fifo":
        os.mkfifo(file)
    elif harm != "gone":
        file.write_bytes(changed)
    found = returned(disk, memory)
    assert found.checkpoint.step == 6
    assert "step-000000007" in found.reasons[0]
    assert [each.step for each in disk.checkpoints()] == [6]
    assert [path.name for path in disk.directory.iterdir() if path.name.startswith(".staging")] == []


def test_a_copy_that_changes_between_the_look_and_the_write_makes_no_checkpoint(disk, memory):
    copy = saved(memory, 7)
    found, _ = find_copy(disk, memory, memory.verify, history_bytes=50, make_room=lambda _: None)
    (copy.path / "rank-00000.safetensors").write_bytes(b"something else")
    with pytest.raises(CorruptError, match=r"rank-00000\.safetensors"):
        write_back(disk, found)
    assert disk.checkpoints() == ()
    assert [each.name for each in memory.checkpoints()] == ["step-000000007"]


def test_a_copy_whose_name_is_taken_on_disk_has_the_next_one(disk, memory):
    saved(disk, 4)
    (disk.directory / "step-000000007").mkdir()  # without a manifest, so it is no checkpoint
    saved(memory, 7, parent="step-000000004")
    assert returned(disk, memory).checkpoint.name == "step-000000007.1"


def test_where_the_disk_is_full_the_run_goes_on_from_what_is_there(disk, memory):
    def no_room(_bytes):
        raise SpaceError("no room")

    saved(disk, 4)
    saved(memory, 7, parent="step-000000004")
    found = returned(disk, memory, make_room=no_room)
    assert (found.checkpoint, found.reasons) == (None, ("step-000000007: no room",))


def test_an_attempt_that_was_taken_over_brings_nothing_back(disk, memory):
    disk.take_over()
    saved(memory, 7)
    CheckpointStore(disk.directory).fence_off()
    with pytest.raises(FencedError):
        returned(disk, memory)
