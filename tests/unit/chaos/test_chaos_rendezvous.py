"""Where a rank and the harness meet."""

import threading
import time

from chaos.rendezvous import Point, Rendezvous, Visitor

LIMIT_S = 20


def test_a_rank_waits_at_its_point_until_it_is_answered_and_passes_it_the_next_time(tmp_path):
    rendezvous = Rendezvous(tmp_path)
    rendezvous.name([Point("p", step=3, phase="backward", rank=1)])
    said = []
    visitor = Visitor(tmp_path, rank=1, attempt=1)
    waiting = threading.Thread(target=lambda: said.append(visitor.come_to(3, "backward")))
    waiting.start()
    deadline_s = time.monotonic() + LIMIT_S
    while (arrival := rendezvous.arrival("p")) is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    assert (arrival.attempt, said) == (1, [])
    rendezvous.answer("p", "raise")
    waiting.join(LIMIT_S)
    assert said == ["raise"]
    assert Visitor(tmp_path, rank=1, attempt=2).come_to(3, "backward") == "go"


def test_other_ranks_steps_and_phases_pass(tmp_path):
    Rendezvous(tmp_path).name([Point("p", step=3, phase="backward", rank=1)])
    assert Visitor(tmp_path, rank=0, attempt=1).come_to(3, "backward") == "go"
    visitor = Visitor(tmp_path, rank=1, attempt=1)
    assert (visitor.come_to(2, "backward"), visitor.come_to(3, "batch")) == ("go", "go")


def test_without_a_harness_every_point_is_passed():
    assert Visitor(None, rank=0, attempt=1).come_to(1, "batch") == "go"
