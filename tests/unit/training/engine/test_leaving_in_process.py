"""How a session is left where the process lives on: notebooks, and scripts that catch everything."""

import signal
import sys
import types

import pytest
import torch
from torch import nn

import trainerd
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import failpoints, records
from trainerd.contract.exit_codes import DRAINED
from trainerd.contract.paths import RunPaths
from trainerd.contract.records import OutcomeRecord
from trainerd.contract.signals import STOP
from trainerd.errors import SpaceError, UserError
from trainerd.training.engine.run_saves import RunSaves
from trainerd.training.interruption import departure


@pytest.fixture(autouse=True)
def departs_no_further():
    handlers = {number: signal.getsignal(number) for number in STOP}
    yield
    departure.DEPARTURE.call_off()
    signal.set_wakeup_fd(-1)  # a session that has drained leaves both as they are: its process is to end
    for number, handler in handlers.items():
        signal.signal(number, handler)


def train(folder, stop_at=None, number=signal.SIGINT):
    """Train 6 steps, with a signal during one of them."""
    trained = []
    with trainerd.session(folder, every={"steps": 100, "seconds": None, "epochs": None}) as session:
        model = nn.Linear(1, 1)
        session.track(model=model)
        for step in session.steps(6):
            if step == stop_at:
                signal.raise_signal(number)
            with torch.no_grad():
                model.weight += 1
            trained.append(step)
    return trained


def saved(folder):
    return [each.step for each in CheckpointStore.of_run(RunPaths(folder)).checkpoints()]


def test_the_stop_button_ends_the_cell_and_the_next_cell_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=object))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_at=2)
    assert saved(tmp_path) == [3]
    assert "the kernel goes on" in capsys.readouterr().err
    assert not departure.DEPARTURE.is_begun
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert train(tmp_path) == [3, 4, 5]


def calls_after_the_drain(folder):
    """Yield each call, within a session that has left."""
    with trainerd.session(folder, every={"steps": 100, "seconds": None, "epochs": None}) as session:
        session.track(model=nn.Linear(1, 1))
        session.ask_to_stop("the budget is spent")
        yield lambda: next(iter(session.steps(3)))
        yield session.resume
        yield lambda: session.log(loss=1.0)
        yield lambda: session.report(accuracy=1.0)
        yield session.checkpoint_now
        yield lambda: next(iter(session.epochs(2)))


def test_every_call_after_the_drain_leaves_again(tmp_path):
    calls = calls_after_the_drain(tmp_path)
    for _ in range(6):
        with pytest.raises(SystemExit):
            next(calls)()
    with pytest.raises(SystemExit) as left:
        next(calls)  # the end of the block
    assert left.value.code == DRAINED
    with pytest.raises(SystemExit):
        trainerd.session(tmp_path)


def test_what_is_to_be_called_at_the_end_is_a_function(tmp_path):
    with pytest.raises(UserError, match="not a function"):
        trainerd.session(tmp_path).on_leave(3)


def raises_after(folder, *, steps, asked=False):
    """Raise in the work after a loop, whose end is held in memory."""
    with trainerd.session(folder, every={"steps": 100, "seconds": None, "epochs": None}) as session:
        session.track(model=nn.Linear(1, 1))
        for _ in session.steps(steps):
            pass
        if asked:
            session.ask_to_stop("the budget is spent")
        raise ValueError("a bug")


def test_what_a_crash_says_that_it_saved_is_on_the_disk(tmp_path, capsys):
    with pytest.raises(ValueError, match="a bug"):
        raises_after(tmp_path, steps=3)
    assert saved(tmp_path) == [3]
    assert (
        "trainerd: ValueError: saved step-000000003, the newest boundary in memory" in capsys.readouterr().err
    )


def test_a_crash_does_not_say_that_it_saved_what_was_saved_before(tmp_path, capsys):
    for _ in range(2):
        capsys.readouterr()
        with pytest.raises(ValueError, match="a bug"):
            raises_after(tmp_path, steps=3)
    assert saved(tmp_path) == [3]
    assert "saved step" not in capsys.readouterr().err


def test_a_crash_that_saves_nothing_says_nothing_of_a_save(tmp_path, capsys):
    with pytest.raises(ValueError, match="a bug"):
        raises_after(tmp_path, steps=0)
    assert saved(tmp_path) == []
    assert "saved" not in capsys.readouterr().err


def test_a_crash_that_cannot_save_says_so_and_raises_what_ended_it(tmp_path, capsys, monkeypatch):
    def full(_saves):
        raise OSError("no room")

    monkeypatch.setattr(RunSaves, "flush_held", full)
    with pytest.raises(ValueError, match="a bug"):
        raises_after(tmp_path, steps=3)
    assert saved(tmp_path) == []
    assert "trainerd: ValueError, and what is in memory cannot be saved: no room" in capsys.readouterr().err


@pytest.mark.parametrize(("steps", "said"), [(3, "saved step-000000003"), (0, "nothing to save yet")])
def test_a_crash_while_a_drain_is_pending_says_what_it_leaves(tmp_path, capsys, steps, said):
    with pytest.raises(SystemExit) as left:
        raises_after(tmp_path, steps=steps, asked=True)
    assert left.value.code == DRAINED
    assert saved(tmp_path) == ([steps] if steps else [])
    reason = "the budget is spent, ValueError: a bug"
    assert f"trainerd: {reason}: {said}, exiting 85" in capsys.readouterr().err


def save_once_and_finish(folder):
    with trainerd.session(folder, every={"steps": None, "seconds": None, "epochs": None}) as session:
        session.track(model=nn.Linear(1, 1))
        for _ in session.steps(2):
            pass
        session.checkpoint_now()


@pytest.mark.parametrize("is_in_final_save", [True, False], ids=["in the final save", "in the save before"])
def test_a_disk_that_is_full_at_the_end_of_a_run_is_on_record_as_that(tmp_path, is_in_final_save):
    """So that the supervisor waits for room. It was taken for a crash."""
    failpoints.arm(f"checkpoint.data.written=ENOSPC@{2 if is_in_final_save else 1}")
    try:
        with pytest.raises(SpaceError):
            save_once_and_finish(tmp_path)
    finally:
        failpoints.arm("")
    said = records.read(RunPaths(tmp_path).attempt(1).outcome(0), OutcomeRecord)
    assert said is not None
    assert said.kind == "no-space"
