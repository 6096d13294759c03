"""What a run keeps: the order in which things become durable, and memory that is there before it is needed."""

import gc

import pytest
import torch

import trainerd
from trainerd.checkpoint.staging import Staging
from trainerd.training.collection import no_collection
from trainerd.training.history import HistoryWriter

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
    """Memory fresh from the system costs the loop several times the copy; it is provided beside the second step."""
    sizes = []

    def look(session):
        writer = session._keeper.checkpointer._writer
        if session.step == 1:
            assert writer._preparation is not None
            writer._preparation.join(LIMIT_S)
            assert writer._arena._memory is not None
            sizes.append(len(writer._arena._memory))
        elif session.step == 4:
            sizes.append(len(writer._arena._memory))

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
