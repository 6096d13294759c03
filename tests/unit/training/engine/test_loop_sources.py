"""What a checkpoint holds of the sources of an epoch's loops, and which source gets it back."""

import pytest

from trainerd.training.data.former_owners import without_notes
from trainerd.training.engine.loop_sources import SOURCES_FORM, LoopSources
from trainerd.training.engine.position import Position


class Recorded:
    """A source that says what it was asked for."""

    def __init__(self, state=None, name="", *, ends_with_loader=True):
        self.state = state if state is not None else {}
        self.begun = []
        self.name = name
        self.ends_with_loader = ends_with_loader
        self.was_there = False

    def identity(self):
        return f"{__name__}.{type(self).__qualname__}|{self.name}"

    def extent(self):
        return {"samples": 1}

    def begin(self, saved, done):
        self.begun.append((saved, done))

    def saved(self, done):
        return self.state and {**self.state, "done": done}


def test_each_loop_gets_its_own_state_back_once():
    one, other = Recorded({"x": 1}), Recorded({"x": 2})
    sources = LoopSources()
    sources.use(0, one, done=0)
    sources.use(1, other, done=0)
    saved = sources.saved(Position(loop=1, batch=3))
    assert saved == {"0": {"x": 1, "done": None}, "1": {"x": 2, "done": 3}}
    again, first, second = LoopSources(), Recorded(), Recorded()
    again.restore(saved, form=SOURCES_FORM)
    again.use(1, second, done=3)
    again.use(0, first, done=0)
    again.use(1, second, done=0)
    assert second.begun == [(saved["1"], 3), (None, 0)]
    assert first.begun == [(saved["0"], 0)]


def test_a_source_of_two_loops_is_saved_once_and_gets_it_back_once():
    shared = Recorded({"x": 1})
    sources = LoopSources()
    sources.use(0, shared, done=0)
    sources.use(1, shared, done=0)
    saved = sources.saved(Position(loop=1, batch=2))
    assert saved == {"0": {"x": 1, "done": 2}, "1": {"same_as": "0"}}
    again, found = LoopSources(), Recorded({"x": 1})
    again.restore(saved, form=SOURCES_FORM)
    again.use(1, found, done=2)
    assert again.saved(Position(loop=1, batch=2)) == saved
    again.use(0, found, done=0)
    assert found.begun == [(saved["0"], 2), (None, 0)]


def test_a_loop_that_was_not_come_to_keeps_its_state():
    sources = LoopSources()
    sources.restore({"0": {"x": 1}, "1": {"x": 2}}, form=SOURCES_FORM)
    sources.use(0, Recorded(), done=1)
    assert sources.saved(Position(loop=0, batch=2)) == {"1": {"x": 2}}


def test_checkpoints_of_form_1_hold_the_states_of_stateful_loaders():
    sources, found = LoopSources(), Recorded()
    sources.restore({"0": {"at": 7}}, form=1)
    sources.use(0, found, done=7)
    assert found.begun == [({"loader": {"at": 7}}, 7)]


@pytest.mark.parametrize("batch", [0, 4])
def test_between_two_loops_no_pass_is_in_progress(batch):
    sources = LoopSources()
    sources.use(0, Recorded({"x": 1}), done=0)
    assert sources.saved(Position(loop=0, batch=batch))["0"]["done"] == (batch or None)


def test_what_is_noted_of_a_state_that_is_back_is_in_no_checkpoint():
    now = {"first": {}, "is_back": ["dataset"]}
    one = {"data": {"now": now}, "memory": {"first": {"is_back": 1}, "is_back": ["sampler"]}}
    clean = {"data": {"now": {"first": {}}}, "memory": {"first": {"is_back": 1}}}
    assert without_notes(one | {"0": one}) == clean | {"0": clean}


def taking_turns(epochs, *, ends_with_loader=True, suspect=lambda reason: None):
    """Return the sources of two loaders that take turns, after so many epochs, and the loop sources."""
    one = Recorded({"x": 1}, "one", ends_with_loader=ends_with_loader)
    other = Recorded({"x": 2}, "other", ends_with_loader=ends_with_loader)
    sources = LoopSources(suspect)
    for epoch in range(epochs):
        sources.use(0, (one, other)[epoch % 2], done=0)
    return one, other, sources


def resumed(sources, position, found):
    again = LoopSources(found.append)
    again.restore(
        sources.saved(position),
        form=SOURCES_FORM,
        former=sources.saved_of_former(),
        owners=sources.owners(),
    )
    return again, Recorded({"x": 1}, "one"), Recorded({"x": 2}, "other")


def test_a_loader_that_takes_turns_with_another_gets_its_state_back_in_its_epoch():
    _one, _other, sources = taking_turns(3)
    again, one, other = resumed(sources, Position(batch=2), [])
    again.use(0, one, done=2)
    again.use(0, other, done=0)
    again.use(0, one, done=0)
    assert one.begun == [({"x": 1, "done": 2}, 2), (None, 0)]
    assert other.begun == [({"x": 2, "done": None}, 0)]


def test_between_two_epochs_each_gets_its_own():
    _one, _other, sources = taking_turns(3)
    again, one, other = resumed(sources, Position(), [])
    again.use(0, other, done=0)
    assert again.saved_of_former()["states"][0]["of"] == one.identity()
    again.use(0, one, done=0)
    assert (one.begun[0][0]["x"], other.begun[0][0]["x"]) == (1, 2)


def test_what_is_kept_of_them_is_the_same_in_every_attempt():
    whole, part = taking_turns(4), taking_turns(3)
    again, _one, other = resumed(part[2], Position(), [])
    again.use(0, other, done=0)
    assert again.saved_of_former() == whole[2].saved_of_former() != {}


def test_a_loader_that_may_be_another_one_is_a_suspicion():
    found = []
    _one, _other, sources = taking_turns(2, ends_with_loader=False)
    again, one, _ = resumed(sources, Position(batch=1), found)
    again.use(0, Recorded({"x": 2}, "other"), done=1)
    again.use(0, one, done=0)
    assert one.begun == [(None, 0)]
    assert [each.kind for each in found] == ["loader-of-former-epoch"]
    _one, _other, sources = taking_turns(4, ends_with_loader=False)
    again, one, _ = resumed(sources, Position(batch=1), found)
    again.use(0, Recorded({"x": 2}, "other"), done=1)
    again.use(0, one, done=0)
    assert (one.begun[0][0]["x"], len(found)) == (1, 1)


def test_one_that_is_like_the_one_in_use_is_not_kept():
    one, other = Recorded({"x": 1}, "same"), Recorded({"x": 2}, "same")
    sources = LoopSources()
    for each in (one, other):
        sources.use(0, each, done=0)
    assert sources.saved_of_former() == {}


def test_one_of_several_that_are_alike_is_a_suspicion():
    found = []
    several = [Recorded({"x": number}, "last" if number == 3 else "same") for number in range(4)]
    sources = LoopSources()
    for each in several:
        sources.use(0, each, done=0)
    again = LoopSources(found.append)
    again.restore(
        sources.saved(Position(batch=1)),
        form=SOURCES_FORM,
        former=sources.saved_of_former(),
        owners=sources.owners(),
    )
    again.use(0, Recorded(name="last"), done=1)
    later = Recorded(name="same")
    again.use(0, later, done=0)
    assert later.begun == [(None, 0)]
    assert [each.kind for each in found] == ["loader-of-former-epoch"]


def test_a_loader_that_is_gone_is_in_no_checkpoint():
    one, _other, sources = taking_turns(2)
    assert sources.saved_of_former()
    del one
    assert sources.saved_of_former() == {}
