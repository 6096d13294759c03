"""Forks, pins and links: what people do to a run's checkpoints."""

from __future__ import annotations

import pytest

from tests.support.checkpoints import TENSORS, commit, flip_bit, names
from trainerd.checkpoint.links import best_link_name
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import failpoints
from trainerd.contract.policy import KeepBest, RetentionPolicy
from trainerd.errors import CorruptError, UserError


@pytest.fixture
def four(store):
    return [commit(store, step, scores={"a": 1.0 / step, "val/loss": float(step)}) for step in (1, 2, 3, 4)]


def test_a_fork_sets_the_newer_ones_aside_for_good(store, four):
    assert store.set_aside_after(four[1], "resumed from step 2") == ("step-000000003", "step-000000004")
    assert names(store) == ["step-000000001", "step-000000002"]
    assert store.newest_verified() == four[1]
    assert [aside.name for aside in store.abandoned()] == ["step-000000003", "step-000000004"]
    assert {aside.reason for aside in store.abandoned()} == {"resumed from step 2"}


def test_after_a_fork_the_same_steps_are_saved_again_under_their_names(store, four):
    store.set_aside_after(four[1], "once")
    assert commit(store, 3).name == "step-000000003"
    store.set_aside_after(four[1], "twice")
    assert [aside.path.name for aside in store.abandoned()] == [
        "step-000000003",
        "step-000000003~2",
        "step-000000004",
    ]


def test_a_fork_from_nothing_leaves_all_behind_and_one_from_the_newest_none(store, four):
    assert store.set_aside_after(four[-1], "no fork") == ()
    assert len(store.set_aside_after(None, "began anew")) == 4
    assert store.newest_verified() is None


@pytest.mark.parametrize("point", ["fork.noted", "aside.noted", "aside.moved"])
@pytest.mark.parametrize("completed_by", ["sweep", "begin", "set_aside_after"])
def test_a_fork_that_was_cut_short_counts_from_the_decision_on(store, four, point, completed_by):
    failpoints.arm(f"{point}=EIO")
    with pytest.raises(OSError):
        store.set_aside_after(four[1], "resumed from step 2")
    failpoints.arm("")
    # Whoever looks now sees the fork as done, though folders may still be in place.
    later = CheckpointStore(store.directory)
    assert names(later) == ["step-000000001", "step-000000002"]
    assert later.newest_verified() == four[1]
    {
        "sweep": store.sweep,
        "begin": lambda: store.begin(3).abandon(),
        "set_aside_after": lambda: store.set_aside_after(four[1], "again"),
    }[completed_by]()
    assert [aside.name for aside in store.abandoned()] == ["step-000000003", "step-000000004"]
    assert not (store.directory / "fork.json").exists()
    commit(store, 3)
    assert names(store) == ["step-000000001", "step-000000002", "step-000000003"]


def test_the_note_of_a_fork_that_cannot_be_read_stops_everything(store, four):
    (store.directory / "fork.json").write_text("{")
    for look in (store.checkpoints, store.newest_verified, lambda: store.begin(9)):
        with pytest.raises(CorruptError, match=r"(?s)fork.json.*then delete"):
            look()


def test_a_pin_keeps_a_checkpoint_until_it_is_taken_away(store, four):
    store.pin("step-1", "the one in the paper")
    store.pin("2")
    assert store.pins() == {"step-000000001": "the one in the paper", "step-000000002": ""}
    plan = store.prune(RetentionPolicy(keep_last=1))
    assert plan.keep[0].reasons == ("pinned: the one in the paper",)
    assert names(store) == ["step-000000001", "step-000000002", "step-000000004"]
    assert store.unpin("step-1")
    assert not store.unpin("step-1")
    store.prune(RetentionPolicy(keep_last=1))
    assert names(store) == ["step-000000002", "step-000000004"]


def test_a_pin_needs_no_lock_and_survives_a_restart(unlocked):
    with unlocked.lock():
        commit(unlocked, 1)
    CheckpointStore(unlocked.directory).pin("1", "later")
    assert CheckpointStore(unlocked.directory).pins() == {"step-000000001": "later"}


def test_pinning_what_is_not_there_is_answered_with_what_is(store, four):
    with pytest.raises(UserError, match="there are: step-000000001, "):
        store.pin("step-9")
    assert not store.unpin("nonsense")


def test_a_pin_that_cannot_be_read_still_pins(store, four):
    (store.directory / "step-000000001.pin.json").write_text("{")
    store.prune(RetentionPolicy(keep_last=1))
    assert names(store) == ["step-000000001", "step-000000004"]


def test_a_pin_goes_aside_with_its_checkpoint(store, four):
    """A later checkpoint of the same step is another one."""
    store.pin("4", "mine")
    flip_bit(four[3].path / TENSORS)
    store.newest_verified()
    assert store.pins() == {}
    assert store.quarantined()[0].note.pin == "mine"


POLICY = RetentionPolicy(keep_last=2, keep_best=(KeepBest("a"), KeepBest("val/loss", mode="max")))


def links(store):
    return {path.name: str(path.readlink()) for path in store.directory.iterdir() if path.is_symlink()}


def test_links_lead_to_the_newest_and_the_best(store, four):
    assert links(store) == {"last": "step-000000004"}
    store.prune(POLICY)
    assert links(store) == {
        "last": "step-000000004",
        "best-a": "step-000000001",
        "best-val_loss": "step-000000004",
    }
    assert (store.directory / "last" / "manifest.json").exists()


def test_last_is_the_newest_and_not_the_best(store, four):
    store.prune(POLICY)
    newer = commit(store, 5, scores={"a": -1.0})
    store.prune(POLICY)
    assert links(store)["last"] == newer.name
    assert links(store)["best-a"] == "step-000000001"


def test_links_never_lead_nowhere(store, four):
    store.prune(POLICY)
    store.set_aside_after(None, "anew")
    assert links(store) == {}


def test_links_survive_a_move_of_the_folder_and_nothing_reads_them(store, four, tmp_path):
    store.prune(POLICY)
    moved = store.directory.rename(tmp_path / "elsewhere")
    assert (moved / "best-a" / "manifest.json").exists()
    (moved / "last").unlink()
    (moved / "last").symlink_to("step-000000001")
    assert CheckpointStore(moved).newest_verified().step == 4


def test_a_foreign_file_with_the_name_of_a_link_is_left_alone(store, four):
    (store.directory / "best-a").write_text("mine")
    store.prune(POLICY)
    assert (store.directory / "best-a").read_text() == "mine"


def test_a_filesystem_without_links_has_none_and_nothing_else_changes(store, four, monkeypatch):
    def refused(*_arguments):
        raise PermissionError("no links here")

    monkeypatch.setattr(type(store.directory), "symlink_to", refused)
    commit(store, 5)
    store.prune(POLICY)
    assert names(store)[-1] == "step-000000005"


@pytest.mark.parametrize(
    ("metric", "name"),
    [("accuracy", "best-accuracy"), ("val/acc@1", "best-val_acc_1"), ("../x", "best-.._x")],
)
def test_a_metric_of_any_name_has_a_link_inside_the_folder(metric, name):
    assert best_link_name(metric) == name
