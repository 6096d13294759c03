"""What `Checkpointer` promises to loops that are not ours."""

from __future__ import annotations

import math

import pytest
import torch

from tests.support.checkpoints import flip_bit
from tests.support.exact import Box, assert_same
from trainerd import Checkpointer, KeepBest, KeepEvery
from trainerd.checkpoint.local_storage import LocalStorage
from trainerd.errors import CorruptError, LockedError, MismatchError, UserError

pytestmark = pytest.mark.torch


def steps(checkpointer) -> list[int]:
    return [checkpoint.step for checkpoint in checkpointer.checkpoints()]


def save_all(folder, saves, **options) -> Checkpointer:
    """Save each (step, scores) and close."""
    with Checkpointer(folder, {"box": Box(0)}, **options) as checkpointer:
        for step, scores in saves:
            checkpointer.objects["box"].tree = step
            checkpointer.save(step=step, scores=scores)
    return checkpointer


# --------------------------------------------------------------------- what is saved


def test_several_named_objects_come_back_under_their_names(tmp_path):
    objects = {"model": torch.nn.Linear(2, 2), "ema": torch.nn.Linear(2, 2), "best": Box({"loss": 0.25})}
    with Checkpointer(tmp_path, objects) as checkpointer:
        checkpointer.save(step=3, epoch=1)
    fresh = {"model": torch.nn.Linear(2, 2), "ema": torch.nn.Linear(2, 2), "best": Box()}
    checkpoint = Checkpointer(tmp_path, fresh).resume()
    assert (checkpoint.step, checkpoint.manifest.epoch) == (3, 1)
    for name, value in objects.items():
        assert_same(fresh[name].state_dict(), value.state_dict())


@pytest.mark.parametrize(
    "build", [lambda: torch.nn.Linear(2, 2), lambda: torch.nn.ModuleDict({"a": torch.nn.Linear(1, 1)})]
)
def test_a_single_object_needs_no_name(tmp_path, build):
    former, fresh = build(), build()
    with Checkpointer(tmp_path, former) as checkpointer:
        checkpointer.save(step=1)
    with Checkpointer(tmp_path, fresh) as checkpointer:
        checkpointer.resume()
    assert_same(fresh.state_dict(), former.state_dict())


@pytest.mark.parametrize("objects", [{"x": 3}, {"a.b": Box()}, {"": Box()}])
def test_what_has_no_state_or_no_proper_name_is_refused(tmp_path, objects):
    with pytest.raises(UserError, match="cannot track"):
        Checkpointer(tmp_path, objects)


@pytest.mark.parametrize(
    "how", [{"step": -1}, {"step": 1.5}, {"step": 1, "epoch": -2}, {"step": 1, "scores": {"a": "x"}}]
)
def test_a_step_or_score_that_is_no_number_is_refused(tmp_path, how):
    with Checkpointer(tmp_path, Box(1)) as checkpointer, pytest.raises(UserError):
        checkpointer.save(**how)
    assert steps(checkpointer) == []


def test_state_without_any_tensor_is_saved(tmp_path):
    checkpointer = save_all(tmp_path, [(1, None)])
    assert steps(checkpointer) == [1]


# --------------------------------------------------------------------- what is kept


KEPT = {
    "the newest": ({"keep_last": 2}, [4, 5]),
    "all": ({"keep_last": None}, [1, 2, 3, 4, 5]),
    "the best besides": ({"keep_last": 1, "keep_best": KeepBest("accuracy", n=2)}, [2, 4, 5]),
    "the smallest": ({"keep_last": 1, "keep_best": KeepBest("loss", mode="min")}, [3, 5]),
    "several metrics": (
        {"keep_last": 1, "keep_best": [KeepBest("accuracy"), KeepBest("loss", mode="min")]},
        [2, 3, 5],
    ),
    "the first of equals": ({"keep_last": 1, "keep_best": KeepBest("tied")}, [1, 5]),
    "the latest of equals": ({"keep_last": 1, "keep_best": KeepBest("tied", on_tie="latest")}, [4, 5]),
    "some for good": ({"keep_last": 1, "keep_every": KeepEvery(steps=2)}, [2, 4, 5]),
}
SAVES = [
    (1, {"accuracy": 0.1, "loss": 3.0, "tied": 1.0}),
    (2, {"accuracy": 0.9, "loss": math.nan, "tied": 1.0}),
    (3, {"accuracy": 0.2, "loss": 1.0, "tied": 0.5}),
    (4, {"accuracy": 0.90000000001 - 1e-11, "loss": -math.inf, "tied": 1.0}),
    (5, {"accuracy": math.nan, "loss": math.inf}),
]


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept(tmp_path, name):
    """NaN and infinities never rank, and the newest stays whatever its score."""
    options, expected = KEPT[name]
    assert steps(save_all(tmp_path, SAVES, **options)) == expected


def test_scores_that_differ_in_the_last_bit_are_not_equal(tmp_path):
    saves = [(1, {"a": 0.1 + 0.2}), (2, {"a": 0.3}), (3, {})]
    assert steps(save_all(tmp_path, saves, keep_last=1, keep_best=KeepBest("a", on_tie="latest"))) == [1, 3]


def test_with_a_limit_of_one_the_old_one_goes_only_after_the_new_one_stands(tmp_path):
    """As a save that is refused shows: the former checkpoint is still there and loads."""
    box = Box(1)
    with Checkpointer(tmp_path, {"box": box}, keep_last=1) as checkpointer:
        checkpointer.save(step=1)
        box.tree = object()
        with pytest.raises(UserError):
            checkpointer.save(step=2)
    assert steps(checkpointer) == [1]
    fresh = Box()
    Checkpointer(tmp_path, {"box": fresh}).resume()
    assert fresh.tree == 1


def test_one_that_was_removed_by_hand_does_not_disturb_the_next_save(tmp_path):
    import shutil

    with Checkpointer(tmp_path, {"box": Box(1)}, keep_last=2, keep_best=KeepBest("a")) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step=step, scores={"a": -step})
        shutil.rmtree(checkpointer.wait().path)
        shutil.rmtree(tmp_path / "step-000000001")
        checkpointer.save(step=3)
    assert steps(checkpointer) == [3]


def test_a_score_function_is_asked_at_each_save(tmp_path):
    accuracies = iter([0.5, 0.9, 0.7, 0.1])
    options = {
        "keep_last": 1,
        "keep_best": KeepBest("accuracy"),
        "score_functions": {"accuracy": lambda: next(accuracies)},
    }
    checkpointer = save_all(tmp_path, [(step, None) for step in (1, 2, 3, 4)], **options)
    assert steps(checkpointer) == [2, 4]
    assert checkpointer.best("accuracy").manifest.scores == {"accuracy": 0.9}


def test_a_listing_shows_steps_and_scores(tmp_path):
    checkpointer = save_all(tmp_path, [(7, {"accuracy": torch.tensor(0.5), "loss": math.nan})])
    (checkpoint,) = checkpointer.checkpoints()
    assert (checkpoint.name, checkpoint.step) == ("step-000000007", 7)
    assert checkpoint.manifest.scores["accuracy"] == 0.5
    assert math.isnan(checkpoint.manifest.scores["loss"])


# --------------------------------------------------------------------- it remembers nothing


def test_a_fresh_one_knows_what_the_former_one_knew(tmp_path):
    """Best, newest and what to prune are read from the disk: there is no state of its own to lose."""
    rule = KeepBest("accuracy")
    save_all(tmp_path, [(1, {"accuracy": 0.9}), (2, {"accuracy": 0.1})], keep_last=1, keep_best=rule)
    fresh = Checkpointer(tmp_path, {"box": Box()}, keep_last=1, keep_best=rule)
    assert (fresh.best("accuracy").step, fresh.newest.step) == (1, 2)
    fresh.resume()
    fresh.save(step=3, scores={"accuracy": 0.5})
    fresh.close()
    assert steps(fresh) == [1, 2, 3]  # 2 is what it resumed from
    assert fresh.best("accuracy").step == 1


def test_the_newest_is_the_newest_and_not_the_best(tmp_path):
    checkpointer = save_all(tmp_path, [(1, {"a": 2.0}), (2, {"a": 1.0})], keep_best=KeepBest("a"))
    assert checkpointer.newest.step == 2
    assert checkpointer.wait().step == 2
    assert Checkpointer(tmp_path, {"box": Box()}).resume().step == 2


def test_best_can_be_asked_of_any_score(tmp_path):
    checkpointer = save_all(tmp_path, [(1, {"loss": 2.0}), (2, {"loss": 1.0})])
    assert checkpointer.best("loss", mode="min").step == 2
    assert checkpointer.best("other", mode="max") is None
    with pytest.raises(UserError, match="no keep_best rule names 'loss'"):
        checkpointer.best("loss")


# --------------------------------------------------------------------- resuming


def test_there_may_be_nothing_to_resume(tmp_path):
    box = Box("as it was")
    with Checkpointer(tmp_path / "new" / "folder", {"box": box}) as checkpointer:
        assert checkpointer.resume() is None
        assert checkpointer.newest is None
    assert box.tree == "as it was"


def test_a_damaged_one_is_moved_aside_and_the_one_before_is_resumed(tmp_path):
    save_all(tmp_path, [(1, None), (2, None)])
    flip_bit(tmp_path / "step-000000002" / "rank-00000.json", offset=-3)
    box = Box()
    with Checkpointer(tmp_path, {"box": box}) as checkpointer:
        assert checkpointer.resume().step == 1
    assert box.tree == 1
    ((aside,), reason) = checkpointer.store.quarantined(), "rank-00000.json"
    assert reason in aside.reason


def test_a_damaged_one_that_is_asked_for_by_name_is_refused(tmp_path):
    save_all(tmp_path, [(1, None)])
    flip_bit(tmp_path / "step-000000001" / "rank-00000.json", offset=-3)
    box = Box("as it was")
    with pytest.raises(CorruptError):
        Checkpointer(tmp_path, {"box": box}).load("1")
    assert box.tree == "as it was"


@pytest.mark.parametrize("which", ["step-2", "2", "step-000000002"])
def test_one_is_loaded_by_any_of_its_names(tmp_path, which):
    checkpointer = save_all(tmp_path, [(1, None), (2, None), (3, None)])
    assert checkpointer.load(which).step == 2
    assert checkpointer.objects["box"].tree == 2


def test_one_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    checkpointer = save_all(tmp_path, [(1, None)])
    with pytest.raises(UserError, match="there are: step-000000001"):
        checkpointer.load("step-9")


def test_what_was_resumed_from_is_not_pruned(tmp_path):
    save_all(tmp_path, [(1, None)])
    with Checkpointer(tmp_path, {"box": Box()}, keep_last=1) as checkpointer:
        checkpointer.resume()
        for step in (2, 3, 4):
            checkpointer.save(step=step)
    assert steps(checkpointer) == [1, 4]


# --------------------------------------------------------------------- lines


def aside_steps(checkpointer) -> set[str]:
    return {aside.path.name for aside in checkpointer.store.abandoned()}


def test_later_ones_that_a_save_does_not_follow_are_set_aside(tmp_path):
    """A used folder, begun anew without resuming: the old run's later state is never resumed by accident."""
    save_all(tmp_path, [(50, None), (100, None)])
    with Checkpointer(tmp_path, {"box": Box("anew")}) as checkpointer:
        checkpointer.save(step=60)
    assert steps(checkpointer) == [50, 60]
    assert aside_steps(checkpointer) == {"step-000000100"}
    box = Box()
    with Checkpointer(tmp_path, {"box": box}) as checkpointer:
        checkpointer.resume()
    assert box.tree == "anew"


def test_going_on_from_an_older_one_forks_the_line(tmp_path):
    with Checkpointer(tmp_path, {"box": Box(0)}, keep_last=None) as checkpointer:
        for step in (1, 2, 3):
            checkpointer.save(step=step)
        former = checkpointer.wait()
        checkpointer.load("1")
        checkpointer.save(step=2)
        new = checkpointer.wait()
    assert steps(checkpointer) == [1, 2, 2]
    assert aside_steps(checkpointer) == {"step-000000003"}
    assert new.manifest.lineage != former.manifest.lineage


def test_manifests_name_the_one_before_in_their_line(tmp_path):
    save_all(tmp_path, [(1, None), (2, None)])
    with Checkpointer(tmp_path, {"box": Box()}) as checkpointer:
        checkpointer.resume()
        checkpointer.save(step=3)
    first, second, third = checkpointer.checkpoints()
    assert [one.manifest.parent for one in (first, second, third)] == [None, first.name, second.name]
    assert len({one.manifest.lineage for one in (first, second, third)}) == 1


def test_reset_begins_anew_and_deletes_nothing(tmp_path):
    """The next fold in the same folder: scores and steps of the last one do not count any more."""
    with Checkpointer(tmp_path, {"box": Box(0)}, keep_best=KeepBest("a")) as checkpointer:
        checkpointer.save(step=10, scores={"a": 1.0})
        checkpointer.reset("fold 2")
        assert (checkpointer.newest, checkpointer.best("a"), steps(checkpointer)) == (None, None, [])
        checkpointer.save(step=5, scores={"a": 0.5})
        assert checkpointer.wait().manifest.parent is None
        assert checkpointer.best("a").step == 5
    assert [(aside.path.name, aside.reason) for aside in checkpointer.store.abandoned()] == [
        ("step-000000010", "fold 2")
    ]


def test_a_second_save_of_a_step_is_newer_than_the_first(tmp_path):
    checkpointer = save_all(tmp_path, [(1, {"a": 1.0}), (1, {"a": 2.0})])
    assert [checkpoint.name for checkpoint in checkpointer.checkpoints()] == [
        "step-000000001",
        "step-000000001.1",
    ]
    assert checkpointer.newest.manifest.scores == {"a": 2.0}


# --------------------------------------------------------------------- others


def test_two_writers_on_one_folder_are_kept_apart(tmp_path):
    with Checkpointer(tmp_path, {"box": Box(0)}), pytest.raises(LockedError, match="this very process"):
        Checkpointer(tmp_path, {"box": Box(0)}).save(step=1)


def test_only_rank_zero_writes(tmp_path, monkeypatch):
    """The others call the same functions, take no lock, write nothing, and resume the same checkpoint."""
    asked = []
    with Checkpointer(tmp_path, {"box": Box(1)}, rank=0) as first:
        first.save(step=1)
        first.wait()
        monkeypatch.setenv("RANK", "1")
        box = Box(2)
        with Checkpointer(tmp_path, {"box": box}, score_functions={"a": lambda: asked.append(1)}) as second:
            second.save(step=2)
            second.wait()
            assert second.resume().step == 1
            second.reset()
    assert (steps(first), box.tree, asked) == ([1], 1, [])
    assert not second.is_committer


def test_ranks_agree_on_what_rank_zero_found(tmp_path):
    """Over torch.distributed: here with the other rank's answer laid before it."""
    save_all(tmp_path, [(1, None), (2, None)])
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        box = Box()
        with Checkpointer(tmp_path, {"box": box}) as checkpointer:
            assert checkpointer.resume().step == 2
    finally:
        torch.distributed.destroy_process_group()
    assert box.tree == 2


def test_the_callback_sees_each_checkpoint_when_it_is_durable_and_the_old_ones_are_gone(tmp_path):
    seen = []

    def on_saved(checkpoint):
        seen.append((checkpoint.step, checkpoint.path.is_dir(), steps(checkpointer)))

    with Checkpointer(tmp_path, {"box": Box(0)}, keep_last=1, on_saved=on_saved) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step=step)
    assert seen == [(1, True, [1]), (2, True, [2])]


def test_a_misfit_leaves_the_folder_open_for_another_try(tmp_path):
    save_all(tmp_path, [(1, None)])
    with Checkpointer(tmp_path, {"other": Box(0)}) as checkpointer:
        with pytest.raises(MismatchError):
            checkpointer.resume()
        assert checkpointer.load("1", strict=False).step == 1
    assert steps(checkpointer) == [1]


# --------------------------------------------------------------------- another place


def mirrored(tmp_path, folder, **options):
    return Checkpointer(
        tmp_path / folder, {"box": Box(folder)}, mirror=LocalStorage(tmp_path / "mirror"), **options
    )


def test_a_mirror_holds_what_is_kept_and_a_machine_with_an_empty_disk_goes_on_from_it(tmp_path):
    with mirrored(tmp_path, "first", keep_last=1) as checkpointer:
        for step in (1, 2, 3):
            checkpointer.save(step=step)
            checkpointer.wait()
            checkpointer._manager._mirror.wait(limit_s=10)
    assert LocalStorage(tmp_path / "mirror").folders() == ("step-000000003",)
    with mirrored(tmp_path, "second") as checkpointer:
        assert checkpointer.resume().step == 3
        assert checkpointer.objects["box"].tree == "first"
        checkpointer.save(step=4)
    assert LocalStorage(tmp_path / "mirror").folders() == ("step-000000003", "step-000000004")


@pytest.mark.filterwarnings("error")
def test_a_mirror_at_a_url_is_one_of_fsspec(tmp_path):
    pytest.importorskip("fsspec")
    url = (tmp_path / "mirror").as_uri()
    with Checkpointer(tmp_path / "here", {"box": Box(1)}, mirror=url) as checkpointer:
        checkpointer.save(step=1)
    box = Box()
    with Checkpointer(tmp_path / "there", {"box": box}, mirror=url) as checkpointer:
        assert checkpointer.resume().step == 1
    assert box.tree == 1


def test_a_mirror_that_cannot_be_reached_stops_nothing_and_is_tried_again(tmp_path):
    class Unreachable(LocalStorage):
        is_down = True

        def put(self, folder, files):
            if self.is_down:
                raise ConnectionError("no route to host")
            super().put(folder, files)

    storage = Unreachable(tmp_path / "mirror")
    checkpointer = Checkpointer(tmp_path / "here", {"box": Box(1)}, mirror=storage)
    checkpointer.save(step=1)
    with pytest.warns(UserWarning, match="step-000000001 is not there yet: no route to host"):
        checkpointer.close()
    storage.is_down = False
    with checkpointer:
        checkpointer.save(step=2)
    assert storage.folders() == ("step-000000002",)
    assert steps(checkpointer) == [1, 2]
