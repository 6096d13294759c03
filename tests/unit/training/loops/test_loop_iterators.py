"""What the session's loops say of themselves: numbers, lengths, ends; and what many loops cost."""

import time

import pytest

torch = pytest.importorskip("torch")

import trainerd  # noqa: E402 - only where torch is
from tests.support.loop_shapes import Again, Bar  # noqa: E402
from tests.support.struck import StruckRun  # noqa: E402
from trainerd.checkpoint.store import CheckpointStore  # noqa: E402
from trainerd.contract.paths import RunPaths  # noqa: E402

pytestmark = pytest.mark.torch

FEW = [1, 2, 3, 4]


def test_the_length_is_that_of_the_batches_that_are_left(tmp_path, monkeypatch):
    seen = []

    def script(session, tick):
        for _ in session.epochs(1):
            for _ in range(2):
                batches = session.batches(FEW)
                seen.append(len(batches))
                for number in batches:
                    session.log(loss=number)
                    seen.append((session.batch, len(batches)))
                    tick()
                seen.append(len(batches))

    run = StruckRun(monkeypatch, tmp_path, script)
    assert not run.attempt("SIGTERM", 6)
    assert seen == [4, (0, 3), (1, 2), (2, 1), (3, 0), 0, 4, (0, 3), (1, 2)]
    seen.clear()
    assert run.attempt()
    assert seen == [0, 0, 2, (2, 1), (3, 0), 0]


def test_the_length_ends_with_the_last_step(tmp_path):
    with trainerd.session(tmp_path) as session:
        for _ in session.epochs(None, max_steps=3):
            bar = Bar(session.batches(FEW, accumulate=2))
            assert bar.total == (4 if session.epoch == 0 else 2)
            assert len(list(bar)) == bar.total
    assert (session.step, session.epoch) == (3, 2)


def test_a_loader_without_a_length_has_none(tmp_path):
    with trainerd.session(tmp_path) as session:
        batches = session.batches(Again())
        with pytest.raises(TypeError, match="not known"):
            len(batches)
        assert len(list(batches)) == 4


def test_the_numbers_count_over_attempts_and_in_evaluation(tmp_path, monkeypatch):
    numbers = []

    def script(session, tick):
        for number, batch in session.enumerate(FEW):
            session.log(loss=batch)
            numbers.append((number, batch))
            tick()
        assert list(session.enumerate(FEW, train=False)) == list(enumerate(FEW))

    run = StruckRun(monkeypatch, tmp_path, script)
    assert not run.attempt("SIGTERM", 2)
    assert run.attempt()
    assert numbers == list(enumerate(FEW))


def test_a_finished_run_goes_on_if_more_steps_are_asked_for(tmp_path):
    seen = []
    for total in (3, 5):
        with trainerd.session(tmp_path) as session:
            seen += list(session.steps(total))
    assert seen == [0, 1, 2, 3, 4]
    assert session.step == 5


def test_the_final_checkpoint_is_one_and_is_marked(tmp_path):
    for _ in range(2):
        with trainerd.session(tmp_path, every={"epochs": 1}) as session:
            weight = torch.nn.Linear(1, 1)
            session.track(weight=weight)
            for _ in session.epochs(2):
                list(session.batches(FEW))
            with torch.no_grad():
                weight.weight.fill_(7.0)
        checkpoints = CheckpointStore.of_run(RunPaths(tmp_path)).checkpoints()
        assert [each.manifest.is_final for each in checkpoints] == [False, False, True]


def test_many_finished_loops_are_skipped_fast_and_leave_nothing_behind(tmp_path, monkeypatch):
    loops, many = 40, 20_000
    took_s = []

    def script(session, tick):
        session.resume()
        if session.resumed_from is not None:  # as if so many had been finished
            session._run.resume.position.loop += many
        began_s = time.process_time()
        for _ in range(loops + many * (session.resumed_from is not None)):
            for number in session.batches(FEW):
                session.log(loss=number)
                tick()
                if len(took_s) < session.attempt:
                    took_s.append(time.process_time() - began_s)
        assert len(session._run.state.loop_sources) < 20

    run = StruckRun(monkeypatch, tmp_path, script, every={"steps": None, "seconds": None, "epochs": None})
    assert not run.attempt("SIGTERM", 4 * loops - 2)
    manifest = CheckpointStore.of_run(RunPaths(tmp_path)).checkpoints()[-1].manifest
    assert len(manifest.fingerprint["data"]) < 20
    assert run.attempt()
    assert took_s[1] < 2.0, f"{took_s[1] / many * 1e6:.0f} microseconds a loop"
