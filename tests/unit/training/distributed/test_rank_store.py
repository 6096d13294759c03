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

from trainerd.contract.environment import TrainingEnvironment  # noqa: E402
from trainerd.contract.process import identify  # noqa: E402
from trainerd.errors import RankLostError, UserError  # noqa: E402
from trainerd.training.distributed import life_signs, rank_store  # noqa: E402
from trainerd.training.distributed.rank_store import Ranks, of_incarnation, rendezvous  # noqa: E402

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


def met(*ranks, **introduced):
    """Let ranks introduce themselves, each in a thread, and return what each one raised, or None."""
    ends: dict[int, BaseException | None] = {}

    def introduce(number, each):
        ends[number] = None
        try:
            each.introduce(**introduced.get(f"rank_{number}", {}))
        except (RankLostError, UserError) as error:
            ends[number] = error
            each.say_failed(error)

    threads = [threading.Thread(target=introduce, args=each) for each in enumerate(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [ends[number] for number in range(len(ranks))]


def test_a_second_process_that_claims_a_rank_leaves_and_the_others_do_not_notice(store):
    first, second, straggler = (Ranks(store, rank=rank, world_size=2) for rank in (0, 1, 1))
    assert met(first, second) == [None, None]
    with pytest.raises(RankLostError, match=r"another process .* is rank 1 of this attempt"):
        straggler.introduce()
    first.look_for_the_lost()
    assert not first.has("failed/1")
    first.put("still/0", "here")
    assert second.get("still/0") == "here"


def test_what_a_rank_of_an_earlier_incarnation_says_is_not_heard_in_the_next(store):
    """A store may outlive rank 0: that of torchrun's agent does."""
    of_incarnation(store, 0, 2)
    straggler = of_incarnation(store, 1, 2)
    first, second = of_incarnation(store, 0, 2), of_incarnation(store, 1, 2)
    straggler.put("process/1", "an earlier attempt")
    straggler.say_failed(ValueError("long ago"))
    assert met(first, second) == [None, None]
    first.look_for_the_lost()


@pytest.mark.parametrize("what", ["the digest of the spec", "WORLD_SIZE"])
def test_ranks_that_were_started_for_different_jobs_refuse_one_another(store, what):
    sizes = (2, 2) if what != "WORLD_SIZE" else (2, 3)
    first, second = (Ranks(store, rank=rank, world_size=size) for rank, size in enumerate(sizes))
    specs = {"rank_0": {"spec_digest": "a"}, "rank_1": {"spec_digest": "b"}} if what != "WORLD_SIZE" else {}
    ends = met(first, second, **specs)
    assert any(isinstance(end, UserError) and what in str(end) for end in ends)
    assert None not in ends


def test_a_collective_that_broke_with_a_rank_elsewhere_silent_is_laid_to_its_loss(store, monkeypatch):
    monkeypatch.setattr(rank_store, "CAUSE_LIMIT_S", 0.0)
    monkeypatch.setattr(rank_store, "CAUSE_SILENCE_S", 0.05)
    ranks = Ranks(store, rank=0, world_size=2)
    Ranks(store, rank=1, world_size=2).put("alive/1", 7)
    broken = RuntimeError("connection closed by peer")
    lost = ranks.cause_of(broken)
    assert isinstance(lost, RankLostError)
    assert "no life sign of rank 1 came for" in str(lost)
    assert lost.__cause__ is broken
    assert isinstance(ranks.cause_of(ValueError("its own")), ValueError)


def test_an_error_of_this_rank_is_its_own_while_the_ranks_elsewhere_give_life_signs(store, monkeypatch):
    monkeypatch.setattr(rank_store, "CAUSE_LIMIT_S", 0.0)
    monkeypatch.setattr(rank_store, "CAUSE_SILENCE_S", 60.0)
    monkeypatch.setattr(life_signs, "BEAT_S", 0.01)
    other = Ranks(store, rank=1, world_size=2)
    other._pulse.start()
    error = RuntimeError("shapes do not match")
    assert Ranks(store, rank=0, world_size=2).cause_of(error) is error
    other.leave()


def test_one_of_two_tasks_of_srun_that_has_no_rank_is_refused_unless_a_shim_has_started_it(tmp_path):
    with pytest.raises(UserError, match="SLURM_STEP_NUM_TASKS=2"):
        rendezvous(TrainingEnvironment(), {"SLURM_STEP_NUM_TASKS": "2"})
    assert rendezvous(TrainingEnvironment(attempt_dir=tmp_path), {"SLURM_STEP_NUM_TASKS": "2"}) is None


def test_a_rank_of_another_boot_is_elsewhere_though_its_host_has_the_same_name(store, monkeypatch):
    """Its process number is that of a stranger here, or of no process."""
    monkeypatch.setattr(rank_store, "FAREWELL_LIMIT_S", 0.0)
    other = Ranks(store, rank=1, world_size=2)
    with monkeypatch.context() as patch:
        patch.setattr(rank_store, "boot_id", lambda: "another boot")
        card = rank_store._visiting_card()
    other.put("process/1", card | {"claim": "its own"})
    ranks = Ranks(store, rank=0, world_size=2)
    ranks.introduce()
    assert ranks._peers == {}
    ranks.leave()
