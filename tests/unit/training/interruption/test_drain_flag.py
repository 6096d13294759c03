"""The request to stop: who hears of it, and when a second signal means now."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from trainerd.contract.signals import SECOND_AFTER_S, STOP
from trainerd.training.interruption import drain_flag
from trainerd.training.interruption.deadline import DeadlineGuard
from trainerd.training.interruption.drain_flag import DrainFlag
from trainerd.training.interruption.early_signals import EarlySignals


class Clock:
    """Stands for the module `time`."""

    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(drain_flag, "time", clock)
    return clock


@pytest.fixture
def flag():
    flag = DrainFlag().install()
    yield flag
    flag.remove()


def second(guard, number, now_s):
    return guard._second(int(number), now_s)


@pytest.fixture
def guard(monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", lambda thread: None)
    flag = DrainFlag()
    flag.notices = -1
    return DeadlineGuard(flag, grace_s=30.0, margin=lambda _: 1.0, flush=lambda _: None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_means_now_if_it_comes_two_seconds_after_the_first(guard, number):
    assert second(guard, signal.SIGTERM, 10.0) is None
    assert second(guard, number, 10.0 + SECOND_AFTER_S - 0.1) is None
    assert second(guard, number, 10.0 + SECOND_AFTER_S) == f"a second signal, {number.name}, means now"


def test_a_signal_that_announces_a_limit_may_come_again_and_again(guard):
    for at_s in (10.0, 20.0, 30.0):
        assert second(guard, signal.SIGXCPU, at_s) is None


def test_what_python_notes_late_is_no_second_signal(guard):
    assert second(guard, signal.SIGTERM, 10.0) is None
    assert second(guard, signal.SIGTERM | drain_flag.LATE, 15.0) is None


def test_a_thread_that_is_kept_from_reading_takes_the_first_signal_for_no_second(guard):
    guard._flag.hear(signal.SIGTERM, 10.0)  # by the handler
    assert second(guard, signal.SIGTERM, 15.0) is None


def test_a_handler_of_the_scripts_own_is_left_alone_and_one_set_later_too():
    seen = []
    former = signal.signal(signal.SIGUSR2, lambda *_: seen.append("first"))
    try:
        flag = DrainFlag().install()
        signal.raise_signal(signal.SIGUSR2)
        signal.signal(signal.SIGTERM, lambda *_: seen.append("later"))
        flag.remove()
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGUSR2, former)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert (seen, flag.is_set) == (["first", "later"], False)


def test_a_forked_child_has_the_default_handling_and_is_not_heard(flag):
    child = os.fork()
    if child == 0:
        kept = [number for number in STOP if signal.getsignal(number) == flag._handle]
        os._exit(1 if kept or signal.set_wakeup_fd(-1) != -1 or flag.notices is not None else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    os.kill(child, signal.SIGTERM)  # maybe before it has run a single instruction
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    os.set_blocking(flag.notices, False)
    with contextlib.suppress(BlockingIOError):
        # The end of a child is heard if something handles SIGCHLD, as a loader with workers does.
        assert set(os.read(flag.notices, 64)) <= {signal.SIGCHLD}
    assert not flag.is_set
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) & STOP == set()


def test_a_signal_before_the_session_is_handed_to_it(clock):
    early = EarlySignals()
    early.hold()
    try:
        signal.raise_signal(signal.SIGUSR1)
    finally:
        number, at_s = early.release()
    assert number == signal.SIGUSR1
    assert time.monotonic() - at_s < 5
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_a_second_signal_before_the_session_acts_as_ever(capfd):
    early = EarlySignals()
    early.hold()
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)  # the same request
    early.first = (signal.SIGINT, early.first[1] - SECOND_AFTER_S)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert "a second signal, SIGINT, before the session is open" in capfd.readouterr().err


def test_the_session_counts_the_grace_period_from_the_early_signal(monkeypatch):
    monkeypatch.setattr(drain_flag.EARLY, "first", (int(signal.SIGTERM), 5.0))
    flag = DrainFlag().install()
    flag.remove()
    assert (flag.is_set, flag.reason, flag.signalled_at_s) == (True, "SIGTERM", 5.0)


def in_a_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join(30)
    return found[0]


@pytest.mark.parametrize("is_before", [True, False], ids=["before it", "after it"])
def test_a_session_in_a_thread_hears_a_signal_that_the_start_of_the_program_holds(monkeypatch, is_before):
    early = EarlySignals()
    monkeypatch.setattr(drain_flag, "EARLY", early)
    early.hold()
    try:
        if is_before:
            signal.raise_signal(signal.SIGUSR1)
        flag = in_a_thread(DrainFlag().install)
        if not is_before:
            signal.raise_signal(signal.SIGUSR1)
        assert (flag.is_set, flag.reason) == (True, "SIGUSR1")
        assert os.read(flag.notices, 1) == bytes([signal.SIGUSR1 | drain_flag.LATE])
        flag.remove()
        signal.raise_signal(signal.SIGUSR1)  # heard by no flag that was removed
    finally:
        early.release()


def test_a_session_in_a_thread_is_deaf_unless_the_start_of_the_program_holds_signals(monkeypatch):
    early = EarlySignals()
    monkeypatch.setattr(drain_flag, "EARLY", early)
    assert not DrainFlag().is_deaf
    assert in_a_thread(lambda: DrainFlag().is_deaf)
    early.hold()
    try:
        assert not in_a_thread(lambda: DrainFlag().is_deaf)
    finally:
        early.release()


def test_the_stop_button_asks_and_a_second_press_is_raised_where_the_cell_stands(clock):
    flag = DrainFlag(is_interactive=True).install()
    try:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert (flag.is_set, flag.is_stop_button) == (True, True)
        clock.now_s += SECOND_AFTER_S
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        flag.remove()


def test_a_block_that_takes_too_long_is_interrupted(flag):
    began_s = time.monotonic()
    with pytest.raises(TimeoutError), flag.interruptible(0.05, TimeoutError()):
        time.sleep(10)
    assert time.monotonic() - began_s < 5
    assert not flag.is_set


@pytest.mark.parametrize("way", ["the flag is removed", "the reader has ended"])
def test_a_child_that_is_forked_later_closes_no_descriptor_of_another(way):
    flag = DrainFlag().install()
    numbers = {flag.notices, flag._notify}
    if way == "the reader has ended":
        flag.close_notices()
    flag.remove()
    flag.close_notices()
    pipe = os.pipe()
    try:
        assert numbers & set(pipe)  # the numbers are in use again
        child = os.fork()
        if child == 0:
            try:
                os.write(pipe[1], b"x")
                os._exit(0)
            except OSError:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert os.read(pipe[0], 1) == b"x"
    finally:
        for each in pipe:
            os.close(each)


@pytest.mark.parametrize("successor", [None, "a file"])
def test_a_former_wakeup_descriptor_that_was_closed_is_neither_restored_nor_written(tmp_path, successor):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)
    try:
        flag = DrainFlag().install()
        assert flag.is_former_wakeup_open()
        os.close(writer)
        if successor is not None:
            taken = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
            os.dup2(taken, writer)
            os.close(taken)
        guard = DeadlineGuard(flag, grace_s=30.0, margin=lambda _: 1.0, flush=lambda _: None)
        guard._pass_on(bytes([signal.SIGCHLD]))
        flag.remove()
        assert signal.set_wakeup_fd(-1) == -1
        assert successor is None or (tmp_path / "file").read_bytes() == b""
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        with contextlib.suppress(OSError):
            os.close(writer)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_of_multiprocessing_can_be_ended(tmp_path, method):
    """Such as a worker of a loader, which imports the script, and with it `trainerd.early`, again."""
    script = tmp_path / "script.py"
    script.write_text(f"""
import trainerd.early, multiprocessing, signal, time
def work(ready):
    ready.set()
    time.sleep(60)
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    ready = context.Event()
    child = context.Process(target=work, args=(ready,))
    child.start()
    ready.wait()
    child.terminate()
    child.join(5)
    print(child.exitcode)
    child.kill()
""")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{-signal.SIGTERM}\n"


@pytest.mark.parametrize("has_signals", [True, False], ids=["the session has", "the caller has"])
def test_a_caller_that_has_the_signals_begins_the_grace_period_when_it_asks(has_signals):
    said = []
    flushed = threading.Event()

    def flush(reason):
        said.append(reason)
        flushed.set()

    flag = DrainFlag().install(takes_signals=has_signals)
    try:
        DeadlineGuard(flag, grace_s=0.1, margin=lambda _: 0.05, flush=flush)
        flag.ask_as_caller("the framework heard SIGTERM")
        assert (flag.is_set, flag.reason) == (True, "the framework heard SIGTERM")
        assert flushed.wait(0.3 if has_signals else 30) == (not has_signals)
        assert (flag.left_s(60) is None) == has_signals
    finally:
        flag.remove()
    assert said == ([] if has_signals else ["no step boundary came within the 0.1 s of grace"])


def test_a_handler_of_asyncio_has_the_signal_until_it_is_taken_back(flag):
    heard = []

    async def run():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.append, "loop")
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.1)
        assert (heard, flag.is_set) == (["loop"], False)
        flag.take()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.1)
        assert (heard, flag.is_set) == (["loop"] * 2, True), "the loop has the wake-up descriptor still"

    asyncio.run(run())


@pytest.mark.parametrize("takes_signals", [True, False])
def test_the_grace_period_begins_with_the_request_of_a_caller_that_has_the_signals(takes_signals):
    """Also where a thread opened the session, as under Ray: there is no signal that could begin it."""
    flag = in_a_thread(lambda: DrainFlag().install(takes_signals=takes_signals))
    try:
        flag.ask_as_caller("a notice")
        assert flag.is_set
        assert (flag.left_s(30.0) is None) == takes_signals
    finally:
        flag.remove()
        flag.close_notices()
