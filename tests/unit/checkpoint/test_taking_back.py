"""A rollback is undone by going back to a checkpoint that it set aside."""

from __future__ import annotations

import shutil

import pytest

from tests.support.checkpoints import TENSORS, commit, flip_bit, names
from trainerd.checkpoint.taking_back import find_set_aside, take_back
from trainerd.contract import failpoints
from trainerd.errors import CorruptError


def name(step):
    return f"step-{step:09d}"


def line(store, steps, lineage, parent=None, attempt=1):
    """Commit checkpoints that follow from one another."""
    for step in steps:
        parent = commit(store, step, lineage=lineage, parent=parent, attempt=attempt).name


@pytest.fixture
def rolled_back(store):
    """Steps 1 to 4 on one line, back to 2, and 3 and 5 on another."""
    line(store, (1, 2, 3, 4), "first")
    store.pin(name(4), "best")
    store.set_aside_after(store.find("2"), "went back to 2")
    line(store, (3, 5), "second", parent=name(2), attempt=2)
    return store


def lineages(store):
    return [(each.step, each.manifest.lineage) for each in store.checkpoints()]


def test_the_line_that_was_left_is_in_place_again_and_the_other_is_aside(rolled_back):
    store = rolled_back
    taken = take_back(store, find_set_aside(store, "4"))
    assert (taken.brought, taken.left) == ((name(3), name(4)), (name(3), name(5)))
    assert lineages(store) == [(1, "first"), (2, "first"), (3, "first"), (4, "first")]
    assert store.newest_verified().step == 4
    assert store.pins() == {name(4): "best"}
    assert (store.directory / "last").resolve().name == name(4)
    assert [each.name for each in store.abandoned()] == [name(3), name(5)]
    assert {each.reason.partition(",")[0] for each in store.abandoned()} == {
        "the run went back to step-000000004"
    }


def test_that_can_be_undone_too(rolled_back):
    store = rolled_back
    take_back(store, find_set_aside(store, "4"))
    taken = take_back(store, find_set_aside(store, "step-5"))
    assert (taken.brought, taken.left) == ((name(3), name(5)), (name(3), name(4)))
    assert lineages(store) == [(1, "first"), (2, "first"), (3, "second"), (5, "second")]


def test_a_checkpoint_of_another_line_is_not_taken_for_a_pruned_one_of_the_same_name(rolled_back):
    store = rolled_back
    shutil.rmtree(find_set_aside(store, "3").path)
    take_back(store, find_set_aside(store, "4"))
    assert lineages(store) == [(1, "first"), (2, "first"), (4, "first")]


def test_what_came_after_the_chosen_one_stays_aside(rolled_back):
    store = rolled_back
    take_back(store, find_set_aside(store, name(3)))
    assert lineages(store) == [(1, "first"), (2, "first"), (3, "first")]
    assert sorted(each.name for each in store.abandoned()) == [name(3), name(4), name(5)]


def test_a_run_that_began_at_step_0_again_has_no_ancestor_in_common(store):
    line(store, (2, 4), "first")
    store.set_aside_after(None, "began at step 0 again")
    line(store, (1, 3), "second")
    taken = take_back(store, find_set_aside(store, "4"))
    assert lineages(store) == [(1, "second"), (2, "first"), (4, "first")]
    assert taken.left == (name(3),)


def test_of_several_of_a_name_the_newest_is_meant_and_the_folder_names_each(store, clock):
    for lineage in ("first", "second"):
        line(store, (1, 2), lineage)
        clock.now_s += 10
        store.set_aside_after(None, "began at step 0 again")
    assert find_set_aside(store, "2").path.name == f"{name(2)}~2"
    assert find_set_aside(store, name(2)).path.name == name(2)
    assert find_set_aside(store, f"{name(2)}~2").path.name == f"{name(2)}~2"
    assert find_set_aside(store, "9") is None


def test_a_damaged_one_is_refused_and_nothing_changes(rolled_back):
    store = rolled_back
    aside = find_set_aside(store, "4")
    flip_bit(aside.path / TENSORS)
    with pytest.raises(CorruptError):
        take_back(store, aside)
    assert lineages(store) == [(1, "first"), (2, "first"), (3, "second"), (5, "second")]


@pytest.mark.parametrize("point", ["fork.noted", "aside.moved", "aside.given-back"])
def test_one_that_was_cut_short_is_completed_by_the_same_request(rolled_back, point):
    store = rolled_back
    failpoints.arm(f"{point}=EIO")
    with pytest.raises(OSError):
        take_back(store, find_set_aside(store, "4"))
    failpoints.arm("")
    store.sweep()
    assert set(names(store)) <= {name(1), name(2), name(3)}
    take_back(store, find_set_aside(store, "4"))
    assert lineages(store) == [(1, "first"), (2, "first"), (3, "first"), (4, "first")]
