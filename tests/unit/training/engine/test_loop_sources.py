"""What a checkpoint holds of the sources of an epoch's loops, and which source gets it back."""

import pytest

from trainerd.training.data.former_owners import without_notes
from trainerd.training.engine.loop_sources import SOURCES_FORM, LoopSources
from trainerd.training.engine.position import Position


class Recorded:
    """A source that says what it was asked for."""

    def __init__(self, state=None):
        self.state = state if state is not None else {}
        self.begun = []

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
