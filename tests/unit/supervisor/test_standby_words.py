"""What is said of a standby between two looks at it."""

from types import SimpleNamespace

import pytest

from trainerd.supervisor.machine.standby_policy import StandbyState
from trainerd.supervisor.machine.states import Finished, Running, Stopped
from trainerd.supervisor.standby_keeper import TAKEN, StandbyKeeper


def keeper_of(state):
    standbys = SimpleNamespace(state=lambda _name: state)
    keeper = StandbyKeeper(SimpleNamespace(standbys=standbys), None, None)
    keeper.words["ant"] = "ready: 300 MB"
    return keeper


def test_one_that_is_ready_is_called_so():
    assert keeper_of(StandbyState(2, "digest", "ready")).word("ant") == "ready: 300 MB"


def test_one_that_an_attempt_has_taken_or_that_has_ended_is_not_called_ready():
    assert keeper_of(None).word("ant") == TAKEN
    assert keeper_of(StandbyState(2, "digest", "failed")).word("ant") == TAKEN


@pytest.mark.parametrize(
    ("after", "released"),
    [(Finished("v1"), ["ant"]), (Running(), []), (Stopped(), []), (None, [])],
    ids=["finished", "running", "stopped", "removed"],
)
def test_the_standby_of_a_job_is_free_for_the_next_one_as_soon_as_it_has_finished(after, released):
    """The slot is given on at once, before the next look."""
    given_on = []
    keeper = StandbyKeeper(SimpleNamespace(standbys=SimpleNamespace(release=given_on.append)), None, None)
    keeper.follow(after and SimpleNamespace(name="ant", state=after))
    assert given_on == released


def test_a_job_that_asks_for_none_has_no_words():
    assert keeper_of(None).word("bee") is None
