"""A loop that is broken off by an exception is told apart from one that is left on purpose."""

import contextlib
import itertools

import pytest

from tests.support.in_process import Crash, attempt
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.metric_history import read_history
from trainerd.contract.paths import RunPaths
from trainerd.training.data.loop_end import loops_that_ask, was_left_on_purpose


def watched(said):
    asking = loops_that_ask()
    try:
        yield from range(9)
    except GeneratorExit:
        said.append(was_left_on_purpose(asking))


def passed_on(iterable):
    for item in iterable:  # noqa: UP028 - what a progress bar does
        yield item


class Bar:
    def __init__(self, iterable):
        self.iterable = iterable

    def __iter__(self):
        for item in self.iterable:  # noqa: UP028
            yield item


def breaks(make):
    for _ in make():
        break


def breaks_out_of_blocks(make):
    for _ in make():
        with contextlib.suppress(ValueError):
            try:
                break
            finally:
                int("1")


def returns(make):
    for item in make():
        return item
    return None


def returns_nothing(make):
    for item in make():
        if item in {2, (2, 2)}:  # the latter of enumerate
            return


def looks_at_three(make):
    for _ in itertools.islice(make(), 3):
        pass


def looks_at_pairs(make):
    for _ in zip(make(), range(2), strict=False):
        pass


def raises(make):
    for _ in make():
        raise ValueError


def calls_what_raises(make):
    for _ in make():
        int("x")


def raises_in_blocks(make):
    with contextlib.suppress(ValueError):
        for _ in make():
            try:
                _ = {}["x"] if False else int("x")
            finally:
                int("1")


def calculates_what_raises(make):
    for item in make():
        item / 0


def raising():
    raise ValueError
    yield


def loops_over_what_raises(make):
    for _ in make():
        for _ in raising():
            pass


def loops_over_what_raises_later(make):
    for _ in make():
        for _ in itertools.chain([1], raising()):
            pass


def stops_oddly(make):
    for _ in make():
        next(iter(()))


WRAPS = [iter, enumerate, passed_on, Bar, lambda iterable: passed_on(Bar(iterable))]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize(
    "loop", [breaks, breaks_out_of_blocks, returns, returns_nothing, looks_at_three, looks_at_pairs]
)
def test_a_break_is_on_purpose(loop, wrap):
    said = []
    loop(lambda: wrap(watched(said)))
    assert said == [True]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize(
    "loop",
    [
        raises,
        calls_what_raises,
        raises_in_blocks,
        calculates_what_raises,
        loops_over_what_raises,
        loops_over_what_raises_later,
        stops_oddly,
    ],
)
def test_an_exception_is_not(loop, wrap):
    said = []
    with contextlib.suppress(ValueError, ArithmeticError, TypeError, StopIteration):
        loop(lambda: wrap(watched(said)))
    assert said == [False]


def steps_of(run_dir):
    run = RunPaths(run_dir)
    return [row["step"] for row in read_history(run.metrics).rows], [
        checkpoint.step for checkpoint in CheckpointStore.of_run(run).checkpoints()
    ]


@pytest.mark.torch
def test_a_step_that_raises_is_neither_counted_nor_saved(tmp_path):
    def loop(session, tick):
        for _ in session.epochs(1):
            for number in session.batches([1, 2, 3, 4]):
                session.log(loss=number)
                session._run.saves.wait()
                tick()

    assert not attempt(tmp_path, loop, crash_at=3, steps=1)
    assert steps_of(tmp_path) == ([1, 2], [1, 2])


@pytest.mark.torch
def test_an_exception_that_the_script_catches_ends_the_loop_like_a_break(tmp_path):
    def loop(session, tick):
        for _ in session.epochs(2):
            with contextlib.suppress(Crash):
                for number in session.batches([1, 2, 3, 4]):
                    session.log(loss=number)
                    if number == 2:
                        raise Crash

    assert attempt(tmp_path, loop)
    assert steps_of(tmp_path)[0] == [1, 2, 3, 4]


@pytest.mark.torch
def test_a_loader_that_raises_ends_neither_the_loop_nor_the_epoch(tmp_path):
    """The exception leaves the inner loop where it asks for a batch; the loop around it looks broken off."""

    def loop(session, tick):
        for _ in session.epochs(2):
            for number in session.batches(Raising(session)):
                session.log(loss=number)

    assert not attempt(tmp_path, loop)
    assert steps_of(tmp_path) == ([1], [])
    assert attempt(tmp_path, loop)
    assert steps_of(tmp_path)[0] == [1, 2, 3, 4]


class Raising:
    """Raises at its second batch, in the first attempt."""

    def __init__(self, session):
        self.session = session

    def __iter__(self):
        yield 1
        if self.session.attempt == 1:
            raise Crash
        yield 2


@pytest.mark.torch
def test_a_break_ends_step_and_loop_there_and_then(tmp_path):
    def loop(session, tick):
        for _ in session.epochs(2):
            for number in session.batches([1, 2, 3, 4]):
                session.log(loss=number)
                if number == 2:
                    break
            assert session.step % 2 == 0

    assert attempt(tmp_path, loop)
    assert steps_of(tmp_path)[0] == [1, 2, 3, 4]


@pytest.mark.torch
def test_an_iterator_that_outlives_its_loop_ends_it_once(tmp_path):
    def loop(session, tick):
        for epoch in session.epochs(2):
            batches = session.batches([1, 2, 3, 4])  # kept until the next epoch's takes its place
            for number in batches:
                session.log(loss=number)
                if number == 2:
                    break
            assert (session.epoch, session.batch) == (epoch, 1)

    assert attempt(tmp_path, loop)
    assert steps_of(tmp_path)[0] == [1, 2, 3, 4]


@pytest.mark.torch
def test_an_evaluation_within_the_loop_does_not_end_it(tmp_path):
    def loop(session, tick):
        for _ in session.epochs(1):
            for number in session.batches([1, 2, 3, 4]):
                assert list(session.batches([5, 6], train=False)) == [5, 6]
                session.report(accuracy=number)
                session.log(loss=number)

    assert attempt(tmp_path, loop)
    assert steps_of(tmp_path)[0] == [1, 2, 3, 4]
