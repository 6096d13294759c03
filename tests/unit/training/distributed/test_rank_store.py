"""What ranks tell one another through their store, and how one notices that another is gone."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import asdict

import pytest

torch = pytest.importorskip("torch")
from torch.distributed import HashStore  # noqa: E402 - only where torch is

from trainerd.contract.process import identify  # noqa: E402
from trainerd.errors import RankLostError  # noqa: E402
from trainerd.training.distributed import life_signs, rank_store  # noqa: E402
from trainerd.training.distributed.rank_store import Ranks  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def looks_at_once(monkeypatch):
    monkeypatch.setattr(rank_store, "_LOOK_S", 0.0)


@pytest.fixture
def store():
    return HashStore()


@pytest.fixture
def other(store):
    """A process that introduced itself as rank 1."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    card = {"place": rank_store._place(), "process": asdict(identify(process.pid))}
    Ranks(store, rank=1, world_size=2).put("process/1", card)
    yield process
    process.kill()
    process.wait()


def test_the_first_to_say_something_is_believed(store):
    first, second = (Ranks(store, rank=rank, world_size=2) for rank in range(2))
    first.put_first("asked", "drain")
    second.put_first("asked", "save")
    assert [first.get("asked"), second.get("asked")] == ["drain", "drain"]


def test_a_rank_whose_process_has_ended_is_lost(store, other):
    ranks = Ranks(store, rank=0, world_size=2)
    ranks.introduce()
    ranks.look_for_the_lost()
    other.kill()
    other.wait()
    with pytest.raises(RankLostError, match=f"rank 1 .process {other.pid}. has ended"):
        ranks.look_for_the_lost()
    with pytest.raises(RankLostError):
        ranks.get("what it promised to say")


def test_a_rank_that_said_farewell_is_not_lost(store, other):
    ranks = Ranks(store, rank=0, world_size=2)
    ranks.introduce()
    Ranks(store, rank=1, world_size=2).leave()
    other.kill()
    other.wait()
    ranks.look_for_the_lost()


def test_a_rank_that_has_failed_says_why(store):
    Ranks(store, rank=1, world_size=2).say_failed(ValueError("no"))
    with pytest.raises(RankLostError, match="rank 1 has failed: ValueError: no"):
        Ranks(store, rank=0, world_size=2).look_for_the_lost()


def test_a_rank_elsewhere_is_lost_when_its_life_signs_stop(store, monkeypatch):
    monkeypatch.setattr(rank_store, "SILENCE_LIMIT_S", 5.0)
    monkeypatch.setattr(rank_store, "_SIGNS_S", 0.0)
    now = [100.0]
    monkeypatch.setattr(rank_store.time, "monotonic", lambda: now[0])
    ranks, elsewhere = (Ranks(store, rank=rank, world_size=2) for rank in range(2))
    for count in range(4):
        elsewhere.put("alive/1", count)
        now[0] += 4.0
        ranks.look_for_the_lost()
    now[0] += 5.0
    with pytest.raises(RankLostError, match="rank 1 has given no life sign for"):
        ranks.look_for_the_lost()
    elsewhere.put("left/1", True)
    ranks.look_for_the_lost()


def test_a_rank_gives_life_signs_until_it_leaves(store, monkeypatch):
    monkeypatch.setattr(life_signs, "BEAT_S", 0.01)
    ranks = Ranks(store, rank=1, world_size=2)
    ranks.put("process/0", {"place": [], "process": {}})
    ranks.introduce()
    while Ranks(store, rank=0, world_size=2).get("alive/1") < 3:
        pass
    ranks.leave()
    assert Ranks(store, rank=0, world_size=2).get("left/1")


def test_a_rank_that_is_failing_waits_only_a_little_for_others(store, monkeypatch):
    monkeypatch.setattr(rank_store, "FAILING_LIMIT_S", 0.0)
    ranks = Ranks(store, rank=1, world_size=2)
    ranks.say_failed(ValueError("no"))
    with pytest.raises(RankLostError):
        ranks.get("save/1/done")


def test_rank_0_stays_until_the_others_have_heard_why_it_fails(store, monkeypatch):
    monkeypatch.setattr(rank_store, "TELL_LIMIT_S", 60.0)
    first, second = (Ranks(store, rank=rank, world_size=2) for rank in range(2))
    failing = threading.Thread(target=first.say_failed, args=(ValueError("the disk is full"),))
    failing.start()
    with pytest.raises(RankLostError, match="rank 0 has failed: ValueError: the disk is full"):
        second.get("save/1/done", limit_s=30)
    failing.join(30)
    assert not failing.is_alive()


class StoppedStore:
    """A store whose process is stopped: it keeps the connection, and answers nothing."""

    def __init__(self):
        self.goes_on = threading.Event()

    def check(self, *_):
        self.goes_on.wait(30)
        return True

    set = get = compare_set = check


@pytest.fixture
def stopped():
    store = StoppedStore()
    yield store
    store.goes_on.set()


def test_no_wait_outlasts_a_store_that_is_stopped(stopped, monkeypatch):
    monkeypatch.setattr(rank_store, "STORE_LIMIT_S", 0.05)
    ranks = Ranks(stopped, rank=1, world_size=2)
    for ask in (
        ranks.look_for_the_lost,
        lambda: ranks.get("what rank 0 is to say"),
        lambda: ranks.put("word", 1),
        lambda: ranks.put_first("word", 1),
        lambda: ranks.gather("word", 1),
    ):
        with pytest.raises(RankLostError, match=r"has given no answer for 0.05 s: its process is stopped"):
            ask()


def test_a_rank_that_fails_does_not_wait_for_a_stopped_store(stopped, monkeypatch):
    monkeypatch.setattr(rank_store, "FAILING_LIMIT_S", 0.05)
    began_s = time.monotonic()
    Ranks(stopped, rank=1, world_size=2).say_failed(ValueError("wrong"))
    assert time.monotonic() - began_s < 10


def test_the_thread_that_asks_ends_with_the_farewell(store):
    before = set(threading.enumerate())
    ranks = Ranks(store, rank=1, world_size=2)
    ranks.put("word", 1)
    (thread,) = [each for each in set(threading.enumerate()) - before if each.name == "trainerd-store"]
    ranks.leave()
    thread.join(5)
    assert not thread.is_alive()
