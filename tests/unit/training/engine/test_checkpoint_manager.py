"""What a run keeps: the order in which things become durable, and memory that is there before it is
needed."""

import contextlib
import gc
import time

import pytest
import torch

import trainerd
from trainerd.checkpoint.staging import Staging
from trainerd.contract import failpoints
from trainerd.training.engine.history import HistoryWriter
from trainerd.training.writing.gc_pause import no_collection

LIMIT_S = 20.0


def train(run_dir, batches, *, every, after_batch=lambda session: None):
    with trainerd.session(run_dir, every=every, keep_last=None) as session:
        model = torch.nn.Linear(2, 2)
        session.track(model=model, optimizer=torch.optim.SGD(model.parameters()))
        for _ in session.epochs(1):
            for _ in session.batches(batches):
                session.log(loss=1.0)
                after_batch(session)


def test_the_history_is_durable_as_far_as_a_checkpoint_says_before_that_is_committed(tmp_path, monkeypatch):
    durable_bytes, claims = [0], []
    sync, rename = HistoryWriter.sync, Staging._rename

    def noted_sync(writer):
        end = writer.position_bytes
        result = sync(writer)
        durable_bytes.append(end)
        return result

    def noted_rename(staging, manifest):
        claims.append((manifest.history_bytes, durable_bytes[-1]))
        return rename(staging, manifest)

    monkeypatch.setattr(HistoryWriter, "sync", noted_sync)
    monkeypatch.setattr(Staging, "_rename", noted_rename)
    train(tmp_path, list(range(5)), every={"steps": 1})
    assert len(claims) >= 2
    assert all(0 < claimed <= durable for claimed, durable in claims), claims


def test_memory_for_saves_is_there_before_the_first_one(tmp_path):
    """Memory fresh from the system costs the loop several times the copy; it is provided beside the second
    step."""
    sizes = []

    def look(session):
        writer = session._run.checkpoints.writer
        if session.step == 1:
            assert writer._preparation is not None
            writer._preparation.join(LIMIT_S)
            assert writer._arena._buffer is not None
            sizes.append(len(writer._arena._buffer))
        elif session.step == 4:
            sizes.append(len(writer._arena._buffer))

    train(tmp_path, list(range(5)), every={"steps": 3}, after_batch=look)
    assert sizes[0] == sizes[1], "the first save needed other memory than was provided"


@pytest.mark.parametrize("was_enabled", [True, False])
def test_no_garbage_is_looked_for_in_a_save_and_then_all_is_as_before(was_enabled):
    (gc.enable if was_enabled else gc.disable)()
    try:
        with no_collection():
            assert not gc.isenabled()
        assert gc.isenabled() == was_enabled
    finally:
        gc.enable()


def test_drains_before_the_first_periodic_save_do_not_fill_the_disk(tmp_path):
    """An urgent save prunes nothing, as it is not read back; the next attempt does, once it has read it."""
    found = []
    for _ in range(4):
        with (
            contextlib.suppress(KeyboardInterrupt),
            trainerd.session(tmp_path, every={"steps": 1000, "epochs": None}, keep_last=1) as session,
        ):
            session.track(model=torch.nn.Linear(2, 2))
            for _ in session.epochs(100):
                for _ in session.batches(list(range(5))):
                    if session.step == session._run.link.resumed_step + 3:
                        # What a drain does before it leaves the process.
                        session._run.saves.save_now("drain")
                        found.append(len(session._run.checkpoints.store.checkpoints()))
                        raise KeyboardInterrupt
    assert found == [1, 2, 2, 2]


def test_a_save_that_has_failed_in_the_background_is_met_at_the_next_boundary(tmp_path):
    """Met at the next save, an interval later, it would put two intervals of work at stake."""
    next_hit = failpoints.REGISTRY["checkpoint.data.synced"].hits + 1
    failpoints.arm(f"checkpoint.data.synced=EIO@{next_hit}")
    seen = []

    def look(session):
        writer = session._run.checkpoints.writer
        seen.append(session.step)
        deadline_s = time.monotonic() + LIMIT_S
        while writer.is_busy and time.monotonic() < deadline_s:
            time.sleep(0.001)

    try:
        with pytest.raises(OSError, match="Input/output error"):
            train(tmp_path, list(range(100)), every={"steps": 10}, after_batch=look)
    finally:
        failpoints.arm("")
    assert seen[-1] == 10, "the save of step 10 failed while the next step was computed"
