"""Threads beside the one that made them: order, errors, and what is left of them."""

from __future__ import annotations

import multiprocessing
import os
import threading

import pytest

from trainerd.checkpoint.side_thread import KeptThread, SideThread

LIMIT_S = 30


@pytest.fixture
def kept():
    thread = KeptThread("trainerd-kept")
    yield thread
    thread.close()


def done_by(kept: KeptThread, function):
    """Have something done and return what came of it."""
    results, is_done = [], threading.Event()

    def task() -> None:
        results.append(function())
        is_done.set()

    kept.run(task)
    assert is_done.wait(LIMIT_S)
    return results[0]


def test_a_side_thread_gives_results_and_errors_in_the_order_of_the_tasks():
    with SideThread("trainerd-side") as side:
        side.run(lambda number: 1 // number, 1)
        side.run(lambda number: 1 // number, 0)
        assert side.wait() == 1
        with pytest.raises(ZeroDivisionError):
            side.wait()


def test_all_tasks_have_the_same_thread_and_it_gives_way_to_this_one(kept):
    first, second = done_by(kept, threading.get_native_id), done_by(kept, threading.get_native_id)
    assert first == second != threading.get_native_id()
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert done_by(kept, lambda: os.getpriority(os.PRIO_PROCESS, first)) == min(own + 5, 19)


def test_a_closed_one_is_gone_and_may_be_used_again(kept):
    done_by(kept, lambda: None)
    kept.close()
    assert "trainerd-kept" not in {thread.name for thread in threading.enumerate()}
    assert done_by(kept, lambda: 3) == 3


def test_a_forked_child_gets_a_thread_of_its_own(kept):
    done_by(kept, lambda: None)

    def child() -> None:
        os._exit(done_by(kept, lambda: 7))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(LIMIT_S)
    assert process.exitcode == 7


def test_what_a_task_held_is_let_go_of_when_it_is_done(kept):
    class Large:
        pass

    def task(large: Large = Large()) -> None:  # noqa: B008 - held by the task alone
        del large

    import weakref

    held = weakref.ref(task.__defaults__[0])
    kept.run(task)
    del task
    done_by(kept, lambda: None)
    assert held() is None
