"""Writes in the background and at once: in order, one at a time, and with their errors told."""

from __future__ import annotations

import errno
import multiprocessing
import threading
from queue import SimpleQueue

import pytest
import torch

from trainerd.checkpoint.checkpoint_names import is_leftover
from trainerd.checkpoint.digest import digest_of_file
from trainerd.checkpoint.manifest import Manifest
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.policy import RetentionPolicy
from trainerd.training.checkpointer import Checkpointer
from trainerd.training.engine.lineage import Lineage
from trainerd.training.engine.save_sequence import SaveSequence
from trainerd.training.state.rank_files import read_verified
from trainerd.training.state.snapshot import Snapshot, take_snapshot
from trainerd.training.writing import writer as writer_module
from trainerd.training.writing.direct_file import AbandonedError
from trainerd.training.writing.writer import CheckpointWriter

LIMIT_S = 30
WAITED_S = 0.3


class Gate:
    """Holds a background write between two pieces, until it is opened."""

    def __init__(self, monkeypatch) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        real = writer_module.write_direct

        def gated(path, pieces, size, **options):
            def held():
                for piece in pieces:
                    self.reached.set()
                    assert self.opened.wait(LIMIT_S)
                    yield piece

            return real(path, held(), size, **options)

        monkeypatch.setattr(writer_module, "write_direct", gated)


@pytest.fixture
def store(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints")
    with store.lock():
        yield store


@pytest.fixture
def writer(store):
    return CheckpointWriter(SaveSequence(store, Lineage(store), RetentionPolicy(keep_last=None)))


def manifest(step: int) -> Manifest:
    return Manifest(
        job="", lineage="line", parent=None, step=step, epoch=0, batch=0, reason="asked", scores={},
        world_size=1, attempt=1, fingerprint={}, history_bytes=0, is_final=False, created_wall_s=0.0,
        trainerd_version="0",
    )  # fmt: skip


def snapshot(value: float, count: int = 5000) -> Snapshot:
    document = {
        "format": "trainerd.tree/1",
        "objects": {"a": {"w": {"$tensor": "a.w"}}},
        "module_versions": {},
    }
    return Snapshot(document, {"a.w": torch.full((count,), value)})


def value_in(checkpoint) -> float:
    (value,) = read_verified(checkpoint, 0).objects["a"]["w"].unique().tolist()
    return value


def leftovers(store) -> list[str]:
    return [path.name for path in store.directory.iterdir() if is_leftover(path.name)]


def test_tensors_that_change_right_after_the_call_are_saved_as_they_were(writer, monkeypatch):
    gate = Gate(monkeypatch)
    state = snapshot(1.0)
    writer.write_in_background(state, manifest(1))
    state.tensors["a.w"].zero_()
    gate.opened.set()
    assert value_in(writer.wait()) == 1.0


def test_a_held_snapshot_is_written_as_it_was_held(writer):
    state = snapshot(1.0)
    staged = writer.stage(state)
    state.tensors["a.w"].zero_()
    assert value_in(writer.write_staged(staged, manifest(1))) == 1.0


def test_all_ways_to_write_give_equal_files(writer, store):
    writer.write_in_background(snapshot(3.0), manifest(1))
    first = writer.wait()
    others = [
        writer.write_now(snapshot(3.0), manifest(2)),
        writer.write_staged(writer.stage(snapshot(3.0)), manifest(3)),
    ]
    for other in others:
        for entry in first.manifest.files:
            assert digest_of_file(other.path / entry.name) == (entry.bytes, entry.digest)


def test_a_second_write_waits_for_the_first(writer, store, monkeypatch):
    gate = Gate(monkeypatch)
    writer.write_in_background(snapshot(1.0), manifest(1))
    assert gate.reached.wait(LIMIT_S)
    assert writer.is_busy
    second = threading.Thread(target=writer.write_in_background, args=(snapshot(2.0), manifest(2)))
    second.start()
    assert store.checkpoints() == ()
    gate.opened.set()
    second.join(LIMIT_S)
    writer.wait()
    assert [value_in(checkpoint) for checkpoint in store.checkpoints()] == [1.0, 2.0]


def test_an_urgent_write_calls_off_the_older_one_and_leaves_no_staging(writer, store, monkeypatch):
    monkeypatch.setattr("trainerd.training.writing.staging_buffer.FIRST_PIECE_BYTES", 4096)
    gate = Gate(monkeypatch)
    writer.write_in_background(snapshot(1.0), manifest(1))
    assert gate.reached.wait(LIMIT_S)
    writer._in_flight.is_called_off.set()
    gate.opened.set()
    assert value_in(writer.write_now(snapshot(2.0), manifest(2))) == 2.0
    assert [checkpoint.step for checkpoint in store.checkpoints()] == [2]
    assert leftovers(store) == []


@pytest.mark.parametrize("number", [errno.EIO, errno.EPERM])
def test_an_error_of_a_background_write_is_raised_by_the_next_call_and_once(
    writer, store, monkeypatch, number
):
    def failing(*_, **__):
        raise OSError(number, "failed")

    monkeypatch.setattr(writer_module, "write_direct", failing)
    writer.write_in_background(snapshot(1.0), manifest(1))
    assert writer._in_flight.future.exception(LIMIT_S)
    monkeypatch.undo()
    with pytest.raises(OSError, match="failed"):
        writer.write_in_background(snapshot(2.0), manifest(2))
    assert leftovers(store) == []
    writer.write_in_background(snapshot(3.0), manifest(3))
    assert value_in(writer.wait()) == 3.0


def test_a_copy_that_fails_is_raised_at_once_and_leaves_nothing(writer, store, monkeypatch):
    def failing(*_):
        raise MemoryError

    monkeypatch.setattr("trainerd.training.writing.staging_buffer.copy_all", failing)
    with pytest.raises(MemoryError):
        writer.write_in_background(snapshot(1.0), manifest(1))
    monkeypatch.undo()
    assert (store.checkpoints(), leftovers(store)) == ((), [])
    writer.write_in_background(snapshot(2.0), manifest(2))
    assert value_in(writer.wait()) == 2.0


@pytest.mark.parametrize("has_started", [True, False], ids=["started", "not started"])
def test_a_signal_handler_that_raises_while_the_writing_thread_starts_leaves_nobody_waiting(
    writer, store, monkeypatch, has_started
):
    """PyTorch's own does, when a loader worker is killed: the thread then waited for ever for a copy that
    nobody made."""
    start = threading.Thread.start

    def interrupted(thread):
        if has_started or thread.name != "trainerd-write":
            start(thread)
        if thread.name != "trainerd-write":
            return
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(RuntimeError, match="is killed by signal"):
            writer.write_in_background(snapshot(1.0), manifest(1))
    assert writer.wait() is None
    assert not writer.is_busy
    writer.write_in_background(snapshot(2.0), manifest(2))
    assert value_in(writer.wait()) == 2.0
    assert [checkpoint.step for checkpoint in store.checkpoints()] == [2]


def test_larger_tensors_get_a_larger_arena(writer):
    for step, count in enumerate((10, 100_000, 10), 1):
        writer.write_in_background(snapshot(float(step), count), manifest(step))
        assert value_in(writer.wait()) == float(step)


def test_an_arena_may_be_prepared_at_any_time(writer):
    writer.prepare(snapshot(0.0))
    writer.prepare(snapshot(0.0))
    writer.write_in_background(snapshot(1.0), manifest(1))
    writer.prepare(snapshot(0.0))
    assert value_in(writer.wait()) == 1.0


def test_a_child_forked_during_a_save_changes_nothing(writer, monkeypatch):
    """As data-loading workers are: they do not even have the arena's memory."""
    gate = Gate(monkeypatch)
    writer.write_in_background(snapshot(1.0), manifest(1))
    assert gate.reached.wait(LIMIT_S)
    child = multiprocessing.get_context("fork").Process(target=_make_garbage, daemon=True)
    child.start()
    child.join(LIMIT_S)
    gate.opened.set()
    assert child.exitcode == 0
    assert value_in(writer.wait()) == 1.0


def _make_garbage() -> None:
    assert len(bytes(1 << 20)) == 1 << 20


def test_an_urgent_save_is_not_read_back_and_prunes_nothing(tmp_path, monkeypatch):
    """There is no time for it: the next attempt verifies it, and prunes after its own first save."""
    with Checkpointer(tmp_path, torch.nn.Linear(3, 3), keep_last=1) as checkpointer:
        checkpointer.save(step=1)
        checkpointer.wait()
        with monkeypatch.context() as patch:
            patch.setattr("trainerd.checkpoint.store.verify_files", _forbidden)
            manager = checkpointer._manager
            manager.writer.write_now(
                take_snapshot(checkpointer.objects),
                manager.lineage.manifest(step=2, epoch=0, scores={}, reason="drain"),
            )
        assert [checkpoint.step for checkpoint in checkpointer.checkpoints()] == [1, 2]
        checkpointer.save(step=3)
        checkpointer.wait()
        assert [checkpoint.step for checkpoint in checkpointer.checkpoints()] == [3]


def _forbidden(*_: object) -> None:
    raise AssertionError


def test_a_write_aside_is_called_off_for_a_newer_snapshot_and_never_holds_parts_of_it(
    writer, tmp_path, monkeypatch
):
    aside = CheckpointStore(tmp_path / "aside")
    with aside.lock():
        gate, ended = Gate(monkeypatch), SimpleQueue()
        place = SaveSequence(aside, Lineage(aside), RetentionPolicy(keep_last=None))
        writer.write_aside(
            writer.stage(snapshot(1.0)), manifest(1), place, lambda error, _seconds: ended.put(error)
        )
        assert gate.reached.wait(LIMIT_S)
        assert writer.is_writing_aside
        newer = threading.Thread(target=writer.stage, args=(snapshot(2.0),))
        newer.start()
        while writer._aside is not None and newer.is_alive():  # called off, or overlooked
            newer.join(0.01)
        gate.opened.set()
        newer.join(LIMIT_S)
        assert isinstance(ended.get(timeout=LIMIT_S), AbandonedError)
        assert aside.checkpoints() == ()
        assert leftovers(aside) == []


def test_a_save_that_follows_a_write_aside_is_made_and_both_hold_what_they_say(writer, store, tmp_path):
    aside = CheckpointStore(tmp_path / "aside")
    with aside.lock():
        ended = threading.Event()
        place = SaveSequence(aside, Lineage(aside), RetentionPolicy(keep_last=None))
        writer.write_aside(writer.stage(snapshot(1.0)), manifest(1), place, lambda *_: ended.set())
        assert ended.wait(LIMIT_S)
        writer.write_in_background(snapshot(2.0), manifest(2))
        assert value_in(writer.wait()) == 2.0
        assert [value_in(each) for each in aside.checkpoints()] == [1.0]
        assert [each.step for each in store.checkpoints()] == [2]


def test_an_error_of_a_write_aside_is_told_and_fails_no_save(writer, store):
    errors = []

    class Refuses:
        rank, is_joint = 0, False

        def begin(self, _manifest):
            raise OSError(errno.EIO, "no")

    writer.write_aside(
        writer.stage(snapshot(1.0)), manifest(1), Refuses(), lambda error, _seconds: errors.append(error)
    )
    writer.write_and_wait(snapshot(2.0), manifest(2))
    assert [error.errno for error in errors] == [errno.EIO]
    assert not writer.has_failed
    assert [each.step for each in store.checkpoints()] == [2]


def test_what_a_write_aside_waits_for_is_not_its_cost(writer):
    costs = SimpleQueue()

    class Waits:
        rank, is_joint = 0, False

        def begin(self, _manifest):
            threading.Event().wait(WAITED_S)
            raise OSError(errno.EIO, "no")

    writer.write_aside(writer.stage(snapshot(1.0)), manifest(1), Waits(), lambda _, cost_s: costs.put(cost_s))
    assert costs.get(timeout=LIMIT_S) < WAITED_S / 2


def test_work_in_the_background_is_a_write_in_flight_that_is_waited_for_and_never_called_off(
    writer, store, monkeypatch
):
    monkeypatch.setattr(writer_module, "HOLD_LIMIT_S", LIMIT_S)
    opened, order = threading.Event(), []

    def work():
        assert opened.wait(LIMIT_S)
        order.append("work")

    writer.run_in_background(work)
    assert writer.is_busy
    writer.prepare(snapshot(1.0))  # it leaves the arena alone
    assert writer.is_preparing or writer._preparation is not None
    waits = threading.Thread(
        target=lambda: (writer.write_now(snapshot(2.0), manifest(2)), order.append("save"))
    )
    waits.start()
    opened.set()
    waits.join(LIMIT_S)
    assert order == ["work", "save"]
    assert [each.step for each in store.checkpoints()] == [2]


def test_what_is_staged_is_written_after_work_in_the_background(writer, store):
    staged, seen = writer.stage(snapshot(1.0)), []
    writer.run_in_background(lambda: seen.append(store.checkpoints()))
    assert writer.write_staged(staged, manifest(1)).step == 1
    assert seen == [()]


def test_work_in_the_background_begins_at_its_release(writer, monkeypatch):
    monkeypatch.setattr(writer_module, "HOLD_LIMIT_S", LIMIT_S)
    begun = threading.Event()
    writer.run_in_background(begun.set)
    assert not begun.wait(WAITED_S)
    writer.release()
    assert begun.wait(LIMIT_S)


def test_an_error_of_work_in_the_background_is_raised_by_the_next_call_that_meets_it(writer):
    def fail():
        raise OSError(errno.EIO, "no")

    writer.run_in_background(fail)
    with pytest.raises(OSError, match="no"):
        writer.wait()
