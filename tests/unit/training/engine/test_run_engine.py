"""The engine is driven by calls alone: it needs neither a loader nor an iterator of ours."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from trainerd.checkpoint.store import CheckpointStore  # noqa: E402 - only where torch is
from trainerd.contract import records  # noqa: E402
from trainerd.contract.metric_history import read_history  # noqa: E402
from trainerd.contract.paths import RunPaths  # noqa: E402
from trainerd.contract.records import OutcomeRecord  # noqa: E402
from trainerd.training.engine.run_engine import RunEngine  # noqa: E402
from trainerd.training.engine.run_parts import RunParts  # noqa: E402
from trainerd.training.settings import resolve_settings  # noqa: E402

pytestmark = pytest.mark.torch

EPOCHS, BATCHES, BATCHES_A_STEP = 3, 4, 2


class CrashError(Exception):
    pass


def drive(run_dir, *, crash_after_step=None, every_steps=1):
    """Train as a framework does that calls us after each batch; return the weights and the numbers of the
    steps made."""
    run = RunParts.meet(
        resolve_settings(
            run_dir=run_dir, seed=7, every={"steps": every_steps, "epochs": None}, keep_last=None,
            keep_best=None, keep_every=None, grace_s=None, environ={},
        )
    )  # fmt: skip
    engine = RunEngine(run)
    made = []
    engine.open()
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    run.state.objects.update(model=model, optimizer=optimizer)
    try:
        engine.begin()
        run.link.epochs = EPOCHS
        position = run.state.position
        while position.epoch < EPOCHS:
            engine.begin_epoch()
            if not engine.skips_loop():
                run.resume.restore_again()
                while position.batch < BATCHES:
                    engine.enter_step()
                    loss = model(torch.rand(3, 2)).square().mean()
                    loss.backward()
                    run.measurements.note({"loss": loss})
                    is_last = position.batch + 1 == BATCHES
                    if ends_step := (position.batch + 1) % BATCHES_A_STEP == 0:
                        optimizer.step()
                        optimizer.zero_grad()
                    engine.batch_done(ends_step=ends_step, is_last=is_last)
                    if ends_step:
                        made.append(position.step)
                        run.saves.wait()
                        if position.step == crash_after_step:
                            raise CrashError  # noqa: TRY301 - where a framework's own code would raise
                engine.loop_done()
            engine.epoch_done()
        engine.finish()
    except CrashError as error:
        engine.fail(error)
    finally:
        engine.close()
    return model.weight.detach().clone(), made


def test_a_run_that_is_driven_resumes_exactly(tmp_path):
    expected, steps = drive(tmp_path / "undisturbed")
    assert steps == [1, 2, 3, 4, 5, 6]
    assert drive(tmp_path / "run", crash_after_step=3)[1] == [1, 2, 3]
    weights, steps = drive(tmp_path / "run")
    assert steps == [4, 5, 6]
    assert torch.equal(weights, expected)
    run = RunPaths(tmp_path / "run")
    rows = read_history(run.metrics).rows
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows == read_history(RunPaths(tmp_path / "undisturbed").metrics).rows


def test_a_step_is_a_boundary_and_a_batch_within_it_is_none(tmp_path):
    drive(tmp_path)
    store = CheckpointStore.of_run(RunPaths(tmp_path))
    assert {checkpoint.manifest.batch for checkpoint in store.checkpoints()} <= {0, 2, 4}
    assert store.checkpoints()[-1].manifest.is_final


def test_what_the_script_raised_is_on_record_and_nothing_is_saved_for_it(tmp_path):
    drive(tmp_path, crash_after_step=3, every_steps=2)
    run = RunPaths(tmp_path)
    outcome = records.read(run.attempt(1).outcome(0), OutcomeRecord)
    assert (outcome.kind, outcome.step) == ("exception", 3)
    assert [checkpoint.step for checkpoint in CheckpointStore.of_run(run).checkpoints()] == [2]
    assert not run.finished.exists()


def test_a_run_that_is_finished_has_no_step_left_and_is_not_saved_again(tmp_path):
    store = CheckpointStore.of_run(RunPaths(tmp_path))
    first, _ = drive(tmp_path)
    saved = [checkpoint.name for checkpoint in store.checkpoints()]
    second, steps = drive(tmp_path)
    assert steps == []
    assert [checkpoint.name for checkpoint in store.checkpoints()] == saved
    assert torch.equal(first, second)
