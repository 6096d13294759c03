"""What is done about notices, by a clock that is told what it shows."""

from __future__ import annotations

import pytest

from trainerd.supervisor.preemption_notices.taking import Taking, parse_moment
from trainerd.supervisor.preemption_notices.taking_plan import (
    HURRY_S,
    PASSED_S,
    LiveJob,
    TakingState,
    decide_taking,
)

NOW = 1_800_000_000.0
NOTICE = Taking("AWS", "terminate", deadline_wall_s=NOW + 120)
HIGH, MIDDLE, LOW = LiveJob("high", 9, 20.0), LiveJob("middle", 5, 20.0), LiveJob("low", 0, 40.0)


class Told:
    """Decides again and again; the clock is moved by hand."""

    def __init__(self, margin_s=5.0):
        self.state = TakingState()
        self.margin_s = margin_s

    def at(self, after_s, seen=None, jobs=()):
        self.state, acts = decide_taking(
            self.state,
            {} if seen is None else {"aws": tuple(seen)},
            jobs,
            now_wall_s=NOW + after_s,
            margin_s=self.margin_s,
        )
        return acts


def test_jobs_leave_by_priority_the_next_when_the_one_before_has_gone():
    told = Told()
    acts = told.at(0, [NOTICE], [LOW, HIGH, MIDDLE])
    assert (acts.new, acts.drain, acts.deadline_wall_s) == ((NOTICE,), ("high",), NOW + 120)
    assert acts.why == "AWS takes this machine at 08:02:00 UTC"
    assert acts.is_draining
    assert told.at(10, jobs=[LOW, HIGH, MIDDLE]).drain == ()
    assert told.at(20, jobs=[LOW, MIDDLE]).drain == ("middle",)
    assert told.at(30, jobs=[LOW]).drain == ("low",)
    acts = told.at(40)
    assert (acts.drain, acts.new, bool(acts.why)) == ((), (), True)


def test_who_could_wait_no_longer_leaves_beside_the_others():
    told = Told()
    told.at(0, [NOTICE], [HIGH, LOW])
    assert told.at(74.9, jobs=[HIGH, LOW]).drain == ()
    assert told.at(75.0, jobs=[HIGH, LOW]).drain == ("low",)


def test_a_notice_that_is_short_or_has_no_deadline_makes_all_leave_at_once():
    late = Taking("AWS", "terminate", deadline_wall_s=NOW + 30)
    assert Told().at(0, [late], [HIGH, LOW]).drain == ("high", "low")
    unknown = Taking("AWS", "rebalance")
    assert Told().at(0, [unknown], [LOW, HIGH]).drain == ("high", "low")


def test_near_the_end_those_who_are_left_are_hurried_once():
    told = Told()
    told.at(0, [NOTICE], [HIGH, MIDDLE])
    assert told.at(115 - HURRY_S - 0.1, jobs=[HIGH, MIDDLE]).hurry == ()
    acts = told.at(115 - HURRY_S, jobs=[HIGH, MIDDLE])
    assert acts.hurry == ("high", "middle")
    assert told.at(116, jobs=[HIGH, MIDDLE]).hurry == ()
    at_once = Told().at(0, [Taking("AWS", "now", deadline_wall_s=NOW)], [HIGH])
    assert (at_once.drain, at_once.hurry) == (("high",), ())


def test_a_source_that_cannot_be_asked_changes_nothing_and_one_that_answers_cancels():
    told = Told()
    told.at(0, [NOTICE], [HIGH])
    assert told.at(5, None, [HIGH]).why
    acts = told.at(6, [], [])
    assert (acts.cancelled, acts.passed, acts.why, acts.deadline_wall_s) == ((NOTICE,), (), "", None)
    assert told.at(7, [NOTICE], [HIGH]).drain == ("high",)


def test_a_machine_that_is_still_there_after_the_deadline_goes_on():
    told = Told()
    told.at(0, [NOTICE], [])
    assert told.at(120 + PASSED_S - 1).why
    acts = told.at(120 + PASSED_S, [NOTICE])
    assert (acts.passed, acts.cancelled, acts.why) == ((NOTICE,), (), "")
    assert told.at(121 + PASSED_S, [NOTICE], [HIGH]) == type(acts)()


def test_an_old_notice_is_none():
    old = Taking("AWS", "terminate", deadline_wall_s=NOW - 3600)
    acts = Told().at(0, [old], [HIGH])
    assert (acts.new, acts.drain, acts.why) == ((), (), "")


def test_a_recommendation_only_keeps_jobs_from_being_started():
    advice = Taking("AWS", "rebalance", "recommends to leave this machine", drains=False)
    told = Told()
    acts = told.at(0, [advice], [HIGH])
    assert (acts.drain, acts.is_draining) == ((), False)
    assert acts.why == "AWS recommends to leave this machine"
    acts = told.at(5, [advice, NOTICE], [HIGH])
    assert (acts.new, acts.drain, acts.why) == (
        (NOTICE,),
        ("high",),
        "AWS takes this machine at 08:02:00 UTC",
    )


@pytest.mark.parametrize(
    "text",
    ["2027-01-15T08:00:00Z", "2027-01-15T09:00:00+01:00", "Fri, 15 Jan 2027 08:00:00 GMT", "1800000000", NOW],
)
def test_times_are_read(text):
    assert parse_moment(text) == NOW


@pytest.mark.parametrize("value", ["", "soon", True, None, 5, float("nan"), "nan", "1e300", [], "99"])
def test_what_is_no_time_is_refused(value):
    with pytest.raises(ValueError, match="not a time"):
        parse_moment(value)
