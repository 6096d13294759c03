"""Ranks agree on one boundary: none is past it, and none passes its proposal before it knows."""

from __future__ import annotations

import random
import threading
import time

import pytest

torch = pytest.importorskip("torch")
from torch.distributed import HashStore  # noqa: E402 - only where torch is

from trainerd.errors import RankLostError  # noqa: E402
from trainerd.training.distributed import agreement  # noqa: E402
from trainerd.training.distributed.agreement import Alone, JointDecision, Together, WaysOut  # noqa: E402
from trainerd.training.distributed.rank_store import Ranks  # noqa: E402
from trainerd.training.interruption.drain_flag import DrainFlag  # noqa: E402

pytestmark = pytest.mark.torch

STEPS_MAX = 1_000_000
LIMIT_S = 60.0


@pytest.fixture(autouse=True)
def ended(monkeypatch):
    """Stop every agreement, also of a test that fails: threads that run on abort the interpreter's end."""
    begun = []
    start = Together.start

    def noted_start(together, ways):
        begun.append(together)
        start(together, ways)

    monkeypatch.setattr(Together, "start", noted_start)
    monkeypatch.setattr(Rank, "over", threading.Event())
    yield
    Rank.over.set()
    for together in begun:
        together.stop()


def never(why):
    raise AssertionError(f"this rank leaves by another way: {why}")


WAYS = WaysOut(never, never, never)


class Rank(threading.Thread):
    """Crosses boundaries at its own pace until it drains; notes where it saved and where it stopped."""

    over = threading.Event()

    def __init__(self, store, rank, world_size, seed):
        super().__init__(daemon=True)
        self.flag = DrainFlag()
        self.agreement = Together(Ranks(store, rank=rank, world_size=world_size), self.flag)
        self.pace = random.Random(seed)
        self.boundary = 0
        self.saved = []
        self.stopped_at = None
        self.problem = None

    def run(self):
        try:
            self.agreement.start(WAYS)
            while self.stopped_at is None and self.boundary < STEPS_MAX and not self.over.is_set():
                self.take_step()
        except RankLostError as error:
            self.problem = error

    def take_step(self):
        while not self.agreement.enter():
            self.settle()
            if self.stopped_at is not None or self.over.is_set():
                return
        if self.pace.random() < 0.3:
            time.sleep(self.pace.random() * 0.004)
        assert self.agreement.cross()
        self.boundary += 1
        self.settle()

    def settle(self):
        for decision in self.agreement.settle():
            if decision.action == "save":
                self.saved.append(self.boundary)
            else:
                self.stopped_at = self.boundary
                return


@pytest.mark.parametrize("seed", range(20))
def test_ranks_at_any_distance_stop_at_the_same_boundary_and_save_at_the_same_ones(seed):
    chance = random.Random(seed)
    world_size = chance.choice([2, 3, 4])
    store = HashStore()
    ranks = [Rank(store, rank, world_size, seed * 10 + rank) for rank in range(world_size)]
    for rank in ranks:
        rank.start()
    for _ in range(chance.randint(0, 3)):
        time.sleep(chance.random() * 0.05)
        chance.choice(ranks).agreement.request("save", "by the clock")
    time.sleep(chance.random() * 0.1)
    for rank in chance.sample(ranks, chance.randint(1, world_size)):
        rank.flag.ask("SIGTERM")
    for rank in ranks:
        rank.join(LIMIT_S)
        assert not rank.is_alive(), "it hangs"
        rank.agreement.stop()
    assert [rank.problem for rank in ranks] == [None] * world_size
    assert len({rank.stopped_at for rank in ranks}) == 1
    assert ranks[0].stopped_at is not None
    assert len({tuple(rank.saved) for rank in ranks}) == 1


def test_what_is_asked_after_a_rank_has_finished_comes_never_true():
    store = HashStore()
    flags = [DrainFlag(), DrainFlag()]
    first, second = (Together(Ranks(store, rank=rank, world_size=2), flag) for rank, flag in enumerate(flags))
    for each in (first, second):
        each.start(WAYS)
    assert first.cross(is_last=True)
    flags[1].ask("SIGTERM")
    assert second.enter()
    deadline_s = time.monotonic() + LIMIT_S
    while not second._drain_reason:
        assert time.monotonic() < deadline_s
        time.sleep(0.001)
    for _ in range(100):
        assert second.cross()
        assert second.settle() == []
        assert second.enter()
    first.stop()
    second.stop()


def said(store, key):
    """Wait until a rank says something in the store, and return it."""
    return Ranks(store, rank=0, world_size=1).get(key, limit_s=LIMIT_S)


def test_a_request_to_stage_does_not_replace_one_to_save():
    """A save that is due would be put off by each look of another clock."""
    store = HashStore()
    together = Together(Ranks(store, rank=0, world_size=2), DrainFlag())
    together.request("save", "by the clock")
    together.request("stage", "a copy")
    together.start(WAYS)
    asked = said(store, "round/0/asked")
    together.stop()
    assert asked == {"action": "save", "reason": "by the clock"}


def test_a_request_to_save_replaces_one_to_stage():
    store = HashStore()
    together = Together(Ranks(store, rank=0, world_size=2), DrainFlag())
    together.request("stage", "a copy")
    together.request("save", "by the clock")
    together.start(WAYS)
    asked = said(store, "round/0/asked")
    together.stop()
    assert asked["action"] == "save"


def test_a_copy_that_a_rank_wants_is_agreed_upon_within_the_step_and_asked_for_once():
    store = HashStore()
    wanted = []

    def wants_copy(is_in_step):
        wanted.append(is_in_step)
        return is_in_step

    first = Together(Ranks(store, rank=0, world_size=2), DrainFlag(), wants_copy=wants_copy)
    second = Together(Ranks(store, rank=1, world_size=2), DrainFlag())
    for each in (first, second):
        each.start(WAYS)
        assert each.enter()
    while not (first._decisions and second._decisions):
        time.sleep(0.001)
    asked = len(wanted)
    time.sleep(10 * agreement.LISTEN_S)
    assert len(wanted) == asked, "what is decided is not asked for again"
    found = []
    for each in (first, second):
        assert each.cross()
        found += [(decision.action, decision.boundary, decision.number) for decision in each.settle()]
        each.stop()
    assert found == [("copy", 1, 0)] * 2


def test_no_copy_is_wanted_once_a_drain_is_decided():
    store = HashStore()
    flag = DrainFlag()
    first = Together(Ranks(store, rank=0, world_size=2), flag, wants_copy=lambda _is_in_step: True)
    flag.ask("SIGTERM")
    first.start(WAYS)
    Ranks(store, rank=1, world_size=2).put("round/0/proposal/1", 0)
    assert said(store, "round/0/asked")["action"] == "drain"
    while not first._decisions:
        time.sleep(0.001)
    time.sleep(10 * agreement.LISTEN_S)
    assert not Ranks(store, rank=0, world_size=1).has("round/1/asked")
    first.stop()


@pytest.mark.parametrize(
    ("decided", "asked", "is_asked"),
    [(decided, asked, asked < decided) for decided in range(3) for asked in range(3)],
)
def test_what_serves_a_request_is_not_asked_for_again(decided, asked, is_asked):
    """In the order of what they do: saved on disk, copied into memory, staged."""
    actions = ("save", "copy", "stage")
    together = Together(Ranks(HashStore(), rank=0, world_size=2), DrainFlag())
    together._decisions.append(JointDecision(5, actions[decided], "before"))
    together.request(actions[asked], "now")
    assert (together._request is not None) == is_asked


def test_a_rank_stays_where_it_proposed_until_it_knows_the_decision():
    """Else the others could decide for a boundary that it has passed."""
    store = HashStore()
    flag = DrainFlag()
    first = Together(Ranks(store, rank=0, world_size=2), flag)
    first.start(WAYS)
    flag.ask("SIGTERM")
    assert said(store, "round/0/proposal/0") == 0
    assert not first.enter()
    assert not first.cross()
    Ranks(store, rank=1, world_size=2).put("round/0/proposal/1", 0)
    assert [decision.action for decision in first.settle()] == ["drain"]
    first.stop()


def test_a_rank_that_dies_before_it_proposes_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(agreement, "PROPOSAL_LIMIT_S", 10.0)
    store = HashStore()
    flag = DrainFlag()
    first = Together(Ranks(store, rank=0, world_size=2), flag)
    first.start(WAYS)
    flag.ask("SIGTERM")
    said(store, "round/0/proposal/0")  # from now on it waits for the other one's
    Ranks(store, rank=1, world_size=2).say_failed(ValueError("no"))
    with pytest.raises(RankLostError, match="rank 1 has failed: ValueError: no"):
        first.settle()
    first.stop()


def test_a_request_is_made_once():
    """What was decided is not asked for again, and what is asked again before it was done is not decided
    twice."""
    store = HashStore()
    first, second = (Together(Ranks(store, rank=rank, world_size=2), DrainFlag()) for rank in range(2))
    for each in (first, second):
        each.start(WAYS)
    first.request("save", "by the clock")
    while not first._decisions:
        time.sleep(0.001)
    first.request("save", "by the clock")
    time.sleep(10 * agreement.LISTEN_S)
    assert not Ranks(store, rank=0, world_size=1).has("round/1/asked")
    assert [decision.action for decision in first.settle()] == ["save"]
    for each in (first, second):
        each.stop()


def test_a_single_rank_agrees_with_itself_at_once():
    flag = DrainFlag()
    alone = Alone(flag)
    assert alone.settle() == []
    flag.ask("SIGINT")
    assert [decision.reason for decision in alone.settle()] == ["SIGINT"]
    assert alone.is_drain_due()
