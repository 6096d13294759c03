"""What is said of a standby between two looks at it."""

from types import SimpleNamespace

from trainerd.supervisor.machine.standby_policy import StandbyState
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


def test_a_job_that_asks_for_none_has_no_words():
    assert keeper_of(None).word("bee") is None
