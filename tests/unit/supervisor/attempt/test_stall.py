"""When an attempt counts as stalled, told on a clock of the test's own."""

from __future__ import annotations

import pytest

from trainerd.contract.heartbeat import Heartbeat, Phase
from trainerd.supervisor.attempt import stall
from trainerd.supervisor.attempt.stall import FLOORS_S, LEARNED_FACTOR, Sight, Watch, after_look, learned

BEGIN_S = 5000.0


def beat(beats, *, phase=Phase.STEP, at_s=BEGIN_S, step=7, longest=0.0):
    return Heartbeat(
        phase,
        beats=beats,
        step=step,
        resumed_step=0,
        beat_monotonic_ns=int(at_s * 1e9),
        longest_silences_s=(longest,) * len(Phase),
    )


class Watcher:
    """Looks once a second, as the loop does."""

    def __init__(self, timeout="auto", **fields):
        self.watch = Watch(timeout, **fields)
        self.now_s = BEGIN_S
        self.found = None

    def look(self, *beats, seconds=1.0, log_bytes=()):
        """Show the same for so many seconds; return whether that is a stall."""
        until_s = self.now_s + seconds
        while self.now_s < until_s and self.found is None:
            self.now_s += 1.0
            self.watch, self.found = after_look(self.watch, Sight(beats, log_bytes), self.now_s)
        return self.found


def test_a_job_that_moves_is_never_stalled_however_slowly():
    """A beat a minute before the limit, for hours."""
    watcher = Watcher()
    for beats in range(1, 30):
        assert watcher.look(beat(beats, at_s=watcher.now_s), seconds=FLOORS_S[Phase.STEP] - 60) is None


@pytest.mark.parametrize("phase", [Phase.STEP, Phase.EVALUATION, Phase.CHECKPOINT, Phase.END])
def test_a_job_that_does_not_move_is_stalled_after_the_floor_of_its_phase(phase):
    watcher = Watcher()
    assert watcher.look(beat(3, phase=phase), seconds=FLOORS_S[phase] - 5) is None
    found = watcher.look(beat(3, phase=phase), seconds=10)
    assert (found.doing, found.limit_s) == (phase, FLOORS_S[phase])


def test_the_first_step_has_as_long_as_the_start():
    """Compilers and caches warm up in it."""
    watcher = Watcher()
    assert watcher.look(beat(3, step=0), seconds=FLOORS_S[Phase.START] - 5) is None
    assert watcher.look(beat(3, step=0), seconds=10).doing is Phase.START


@pytest.mark.parametrize("phase", [Phase.STEP, Phase.START])
def test_a_drain_is_left_to_its_grace_period(phase):
    """Even where another rank is not draining yet."""
    watcher = Watcher(5.0)
    assert watcher.look(beat(3, phase=Phase.DRAIN), beat(3, phase=phase), seconds=10_000) is None


def test_limits_are_learned_from_the_longest_silence_that_ended():
    """From this attempt and from earlier ones."""
    for watcher, longest in [
        (Watcher(longest_s=learned([beat(9, longest=200.0)])), 0.0),
        (Watcher(), 200.0),
    ]:
        assert watcher.look(beat(3, longest=longest), seconds=200 * LEARNED_FACTOR - 5) is None
        assert watcher.look(beat(3, longest=longest), seconds=10).limit_s == 200 * LEARNED_FACTOR


def test_each_stall_without_progress_doubles_what_was_learned_for_it_may_have_been_wrong():
    watcher = Watcher(stalls=2)
    assert watcher.look(beat(3), seconds=10_000).limit_s == 4 * FLOORS_S[Phase.STEP]


def test_a_time_in_the_spec_holds_in_every_phase_and_is_not_doubled():
    for phase in set(Phase) - {Phase.DRAIN}:
        assert Watcher(5.0, stalls=3).look(beat(3, phase=phase), seconds=100).limit_s == 5.0


def test_never_is_never():
    assert Watcher(None).look(beat(3), seconds=100_000) is None


def test_one_rank_that_moves_is_enough():
    """The others may wait for it; one that has reached its end certainly does."""
    watcher = Watcher(30.0)
    for beats in range(100):
        assert watcher.look(beat(3), beat(beats), seconds=20) is None


def test_ranks_that_all_wait_for_a_lost_one_are_stalled():
    assert Watcher().look(beat(3), beat(4), seconds=700) is not None


def test_a_rank_at_its_end_does_not_shorten_the_evaluation_of_another():
    watcher = Watcher()
    found = watcher.look(beat(3, phase=Phase.END), beat(3, phase=Phase.EVALUATION), seconds=5000)
    assert found.doing is Phase.EVALUATION


def test_a_plain_command_is_never_judged_unless_its_spec_gives_a_time():
    assert Watcher().look(None, seconds=100_000, log_bytes=(10,)) is None
    assert Watcher(60.0).look(None, seconds=100, log_bytes=(10,)) is not None


def test_the_output_of_a_plain_command_counts_as_moving():
    watcher = Watcher(60.0)
    for size in range(100):
        assert watcher.look(None, seconds=50, log_bytes=(size,)) is None


def test_a_job_known_to_use_a_session_has_a_limit_before_its_first_beat():
    """It hangs in an import."""
    watcher = Watcher(has_session=True)
    assert watcher.look(None, seconds=FLOORS_S[Phase.START] + 5).doing is Phase.START


def test_a_page_that_cannot_be_read_is_no_evidence():
    watcher = Watcher(60.0)
    assert watcher.look(beat(3), seconds=50) is None
    assert watcher.look(None, seconds=100_000) is None
    assert watcher.look(beat(4), seconds=50) is None


def test_a_supervisor_that_was_suspended_finds_nobody_guilty():
    """What passed between two looks counts for a few seconds only."""
    watcher = Watcher()
    watcher.look(beat(3), seconds=10)
    for _ in range(50):
        watcher.now_s += 3600.0
        assert watcher.look(beat(3)) is None
    assert watcher.watch.silence_s <= 10 + 51 * stall.LOOK_GAP_MAX_S


def test_a_clock_that_goes_back_does_no_harm():
    watcher = Watcher()
    watcher.look(beat(3), seconds=10)
    watcher.now_s -= 100_000.0
    assert watcher.look(beat(3)) is None
    assert watcher.watch.silence_s >= 0


def test_a_silence_goes_on_across_a_restart_of_the_supervisor():
    """The beat says when it was; the new supervisor looks for a while itself before it believes that."""
    watcher = Watcher()
    watcher.now_s = BEGIN_S + 2000.0
    assert watcher.look(beat(3, at_s=BEGIN_S), seconds=stall.CONFIRMED_AFTER_S) is None
    assert watcher.look(beat(3, at_s=BEGIN_S), seconds=5) is not None


def test_what_moves_again_after_a_restart_of_the_supervisor_is_let_live():
    watcher = Watcher()
    watcher.now_s = BEGIN_S + 2000.0
    assert watcher.look(beat(3, at_s=BEGIN_S), seconds=5) is None
    assert watcher.look(beat(4, at_s=watcher.now_s), seconds=300) is None


def test_a_slow_job_after_a_restart_of_the_supervisor_has_time_for_its_next_beat():
    """Its silence may be that of a machine that was frozen; such steps have taken 40 s before."""
    watcher = Watcher(longest_s=learned([beat(9, longest=40.0)]))
    watcher.now_s = BEGIN_S + 3600.0
    assert watcher.look(beat(3, at_s=BEGIN_S), seconds=41) is None
    assert watcher.look(beat(4, at_s=watcher.now_s), seconds=41) is None
