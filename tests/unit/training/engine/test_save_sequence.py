"""What is done with the files of a snapshot, in which order, and what is left out in a hurry or after a
failure."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from trainerd.checkpoint.local_storage import LocalStorage  # noqa: E402 - only where torch is
from trainerd.checkpoint.staging import Staging  # noqa: E402
from trainerd.checkpoint.store import CheckpointStore  # noqa: E402
from trainerd.contract.policy import RetentionPolicy  # noqa: E402
from trainerd.errors import CorruptError  # noqa: E402
from trainerd.training.engine.checkpoint_manager import CheckpointManager  # noqa: E402
from trainerd.training.engine.history import HistoryWriter  # noqa: E402
from trainerd.training.state.snapshot import take_snapshot  # noqa: E402
from trainerd.training.writing.mirror import Mirror  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture
def acts(monkeypatch):
    """What is done from here on, in its order; each act is the real one."""
    done = []

    def note(owner, name):
        real = getattr(owner, name)

        def noted(*arguments, **options):
            done.append(name)
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, noted)

    note(HistoryWriter, "sync")
    note(Staging, "publish")
    for name in ("verify", "prune"):
        note(CheckpointStore, name)
    note(Mirror, "take")
    return done


@pytest.fixture
def manager(tmp_path, acts):
    history = HistoryWriter(tmp_path / "metrics.jsonl").open()
    manager = CheckpointManager(
        CheckpointStore(tmp_path / "checkpoints"),
        RetentionPolicy(keep_last=1),
        rank=0,
        history=history,
        mirror=Mirror(LocalStorage(tmp_path / "mirror")),
        on_saved=lambda checkpoint: acts.append("on_saved"),
    ).open()
    yield manager
    manager.close()
    history.close()


def save(manager, step, *, is_urgent=False):
    snapshot = take_snapshot({"model": torch.nn.Linear(2, 2)})
    manifest = manager.lineage.manifest(step=step, epoch=0, scores={}, reason="asked")
    write = manager.writer.write_now if is_urgent else manager.writer.write_and_wait
    return write(snapshot, manifest)


def test_the_order(manager, acts):
    save(manager, 1)
    assert acts == ["sync", "publish", "verify", "prune", "take", "on_saved"]


def test_an_urgent_save_is_not_read_back_and_so_nothing_is_pruned(manager, acts):
    save(manager, 1)
    acts.clear()
    newest = save(manager, 2, is_urgent=True)
    assert acts == ["sync", "publish", "take", "on_saved"]
    assert manager.lineage.newest == newest
    assert [checkpoint.step for checkpoint in manager.store.checkpoints()] == [1, 2]


def test_each_checkpoint_follows_from_the_one_before_and_is_counted(manager):
    first, second = save(manager, 1), save(manager, 2)
    assert (first.manifest.parent, second.manifest.parent) == (None, first.name)
    assert manager.sequence.saves == 2
    assert manager.sequence.longest_save_s > 0


def test_what_does_not_read_back_is_followed_by_nothing(manager, acts, monkeypatch):
    """The history is durable already, which does no harm; the checkpoint before stays the newest."""
    newest = save(manager, 1)
    acts.clear()

    def damaged(_checkpoint):
        raise CorruptError("a bit has flipped")

    with monkeypatch.context() as patch:
        patch.setattr("trainerd.checkpoint.store.verify_files", damaged)
        with pytest.raises(CorruptError):
            save(manager, 2)
    assert acts == ["sync", "publish", "verify"]
    assert manager.lineage.newest == newest
    assert manager.sequence.saves == 1
    assert [checkpoint.step for checkpoint in manager.store.checkpoints()] == [1]
