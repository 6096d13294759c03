"""Bars and the time that is left."""

from __future__ import annotations

import pytest

from tests.support.fake_control import job
from trainerd.cli.progress import BAR_WIDTH, Pace, bar


def at(share: float, **fields):
    return job(
        "ant",
        **(
            {"epoch": int(share * 10), "epochs": 10, "batch": round(share * 1000) % 100, "batches": 100}
            | fields
        ),
    )


@pytest.mark.parametrize(
    ("view", "share"),
    [
        (at(0.0), 0.0),
        (at(0.25), 0.25),
        (job("ant", epoch=2, epochs=4), 0.5),
        (job("ant", epoch=4, epochs=4, batch=1, batches=10), 1.0),
        (job("ant"), None),
        (job("ant", epoch=3), None),
        (job("ant", "finished"), 1.0),
    ],
)
def test_the_share_is_that_of_the_planned_epochs(view, share):
    assert view.share_done == share


def test_what_is_left_follows_from_the_pace_that_was_seen():
    pace = Pace()
    assert pace.left_s() is None
    pace.see(at(0.20), 100.0)
    assert pace.left_s() is None
    pace.see(at(0.30), 110.0)
    assert pace.left_s() == pytest.approx(70.0)


def test_a_pace_is_measured_anew_after_a_pause_and_after_going_back():
    for interruption in (at(0.30, state="draining"), at(0.10), at(0.30, attempt=9)):
        pace = Pace()
        pace.see(at(0.20), 100.0)
        pace.see(at(0.30), 110.0)
        pace.see(interruption, 120.0)
        assert pace.left_s() is None


def test_what_stands_still_has_no_end():
    pace = Pace()
    pace.see(at(0.20), 100.0)
    pace.see(at(0.20), 200.0)
    assert pace.left_s() is None


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_a_bar_has_one_width_and_grows(share):
    assert len(bar(share)) == len(bar(share, is_plain=True)) == BAR_WIDTH
    assert (bar(share).strip() == "") == (share * BAR_WIDTH * 8 < 1)
    assert bar(1.0) == "█" * BAR_WIDTH
    assert bar(0.5, is_plain=True) == "########        "
