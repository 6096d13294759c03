"""What cannot be resumed exactly is an error that says what to write instead."""

import itertools
import threading

import pytest

torch = pytest.importorskip("torch")

import trainerd  # noqa: E402 - only where torch is
from tests.support.struck import StruckRun  # noqa: E402
from trainerd.contract.metric_history import read_history  # noqa: E402
from trainerd.contract.paths import RunPaths  # noqa: E402
from trainerd.errors import UserError  # noqa: E402

pytestmark = pytest.mark.torch

FEW = [1, 2, 3, 4]


def refused(tmp_path, script):
    with pytest.raises(UserError) as caught, trainerd.session(tmp_path) as session:
        script(session)
    return f"{caught.value} {caught.value.hint}"


def zips(session):
    for _ in zip(session.batches(FEW), session.batches(list(FEW)), strict=False):
        pass


def nests(session):
    for _ in session.batches(FEW):
        for _ in session.batches(list(FEW)):
            pass


@pytest.mark.parametrize("script", [zips, nests])
def test_two_training_loops_at_once(tmp_path, script):
    assert "session.batches(a, b)" in refused(tmp_path, script)


def test_a_loop_that_repeats_what_it_has_seen(tmp_path):
    assert "itertools.cycle" in refused(tmp_path, lambda session: next(itertools.cycle(session.batches(FEW))))


def test_a_loop_that_counts_anew_in_every_attempt(tmp_path):
    def script(session):
        for _ in itertools.islice(session.batches(FEW), 2):
            pass

    assert "session.enumerate" in refused(tmp_path, script)


def test_a_thread_that_reads_ahead(tmp_path):
    def script(session):
        caught = []

        def read(batches):
            try:
                next(batches)
            except UserError as error:
                caught.append(error)

        reader = threading.Thread(target=read, args=(session.batches(FEW),))
        reader.start()
        reader.join()
        raise caught[0]

    assert "num_workers" in refused(tmp_path, script)


def test_measurements_from_another_thread_than_that_of_the_batches(tmp_path):
    def script(session):
        kept = []
        reader = threading.Thread(target=lambda: kept.append(next(iter_of(session))))
        reader.start()
        reader.join()
        session.log(loss=1.0)

    def iter_of(session):
        session.kept = session.batches(FEW)
        return session.kept

    assert "another thread" in refused(tmp_path, script)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda session: session.batches(FEW, accumulate=0), "at least 1 batch"),
        (lambda session: session.batches(), "needs a loader"),
        (lambda session: session.steps(-1), "non-negative"),
        (lambda session: session.epochs(2, max_steps=0), "at least 1 step"),
    ],
)
def test_numbers_that_make_no_loop(tmp_path, call, what):
    assert what in refused(tmp_path, call)


USES = {
    "batches": lambda session: session.batches(FEW),
    "enumerate": lambda session: session.enumerate(FEW),
    "steps": lambda session: session.steps(3),
    "epochs": lambda session: session.epochs(3),
    "log": lambda session: session.log(loss=1.0),
    "report": lambda session: session.report(loss=1.0),
    "resume": lambda session: session.resume(),
    "checkpoint_now": lambda session: session.checkpoint_now(),
}


@pytest.mark.parametrize("use", USES)
def test_a_session_without_its_block(tmp_path, use):
    session = trainerd.session(tmp_path)
    with pytest.raises(UserError) as caught:
        USES[use](session)
    assert "with trainerd.session() as session" in caught.value.hint


@pytest.mark.parametrize("use", [*USES, "track"])
def test_a_session_after_its_block(tmp_path, use):
    with trainerd.session(tmp_path) as session:
        pass
    with pytest.raises(UserError, match="is over"):
        (USES | {"track": lambda session: session.track(model=torch.nn.Linear(1, 1))})[use](session)


def test_a_session_that_is_entered_twice(tmp_path):
    session = trainerd.session(tmp_path)
    with session, pytest.raises(UserError, match="open already"):
        session.__enter__()
    with pytest.raises(UserError, match="is over"):
        session.__enter__()


def test_a_variable_that_only_the_skipped_loop_would_set_is_explained(tmp_path, monkeypatch):
    def script(session, tick):
        for _ in session.epochs(2):
            for number in session.batches(FEW):
                last = number
                tick()
            tick()
            session.report(last=last)

    run = StruckRun(monkeypatch, tmp_path, script)
    assert not run.attempt("SIGTERM", 4)
    with pytest.raises(UnboundLocalError) as caught:
        run.attempt()
    assert "'last'" in caught.value.__notes__[0]
    assert "session.value" in caught.value.__notes__[0]


def test_a_variable_that_is_missing_without_a_resume_is_not_explained(tmp_path):
    with pytest.raises(NameError) as caught, trainerd.session(tmp_path):
        _ = missing  # noqa: F821
    assert not hasattr(caught.value, "__notes__")


def test_a_script_that_no_longer_comes_to_the_interrupted_loop_is_suspect(tmp_path, monkeypatch):
    found = []

    def script(session, tick, loops):
        for _ in range(loops):
            for number in session.batches(FEW):
                session.log(loss=number)
                tick()
        found.append(session._run.suspicions)

    run = StruckRun(monkeypatch, tmp_path, lambda session, tick: script(session, tick, 3))
    assert not run.attempt("SIGTERM", 10)
    run = StruckRun(monkeypatch, tmp_path, lambda session, tick: script(session, tick, 1))
    assert run.attempt()
    assert [reason.kind for reason in found[-1].reasons] == ["loop-not-reached"]
    assert [row["step"] for row in read_history(RunPaths(tmp_path).metrics).rows] == list(range(1, 11))


def test_a_zip_with_a_range_counts_from_its_beginning(tmp_path):
    def script(session):
        for _ in zip(range(2), session.batches(FEW), strict=False):
            pass

    assert "session.enumerate" in refused(tmp_path, script)


def test_a_zip_with_a_plain_loader_begins_again(tmp_path):
    def script(session):
        for _ in zip(session.batches(FEW), torch.utils.data.DataLoader(FEW), strict=True):
            pass

    assert "session.batches(loader, other)" in refused(tmp_path, script)
