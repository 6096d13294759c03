"""Mutants of the restart policy: a job is restarted for ever, too soon, from the wrong checkpoint, or not at
all."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_ATTEMPTS = "supervisor/machine/attempts.py"
_RESTART = "supervisor/machine/restart.py"
_REPEATS = "supervisor/machine/repeats.py"
_STALL = "supervisor/attempt/stall.py"
_STOP = "shim/stop_policy.py"
_TEST_ANSWERS = "tests/unit/supervisor/machine/test_machine_answers.py"
_TEST_RESTART = "tests/unit/supervisor/machine/test_restart.py"
_TEST_REPEATS = "tests/unit/supervisor/machine/test_repeats.py"
_TEST_STALL = "tests/unit/supervisor/attempt/test_stall.py"
_TEST_STOP = "tests/unit/shim/test_shim_stop_policy.py"
_MONITOR = "supervisor/attempt/monitor.py"
_TEST_MONITOR_DRAIN = "tests/unit/supervisor/attempt/test_monitor_drain.py"

RESTART = (
    Mutant(
        "a job that went back to an older checkpoint goes back again after its next attempt",
        _ATTEMPTS,
        "best_step=max(job.best_step, step), goes_back_to=None)",
        "best_step=max(job.best_step, step))",
        _TEST_REPEATS,
    ),
    Mutant(
        "a removed job that finishes while it drains stays",
        _ATTEMPTS,
        "if is_complete and is_current and state.why is not DrainReason.REMOVED:",
        "if is_complete and is_current:",
        _TEST_ANSWERS,
    ),
    Mutant(
        "finishing under the old spec is finishing under the new one",
        _ATTEMPTS,
        "if is_complete and is_current and",
        "if is_complete and",
        _TEST_ANSWERS,
    ),
    Mutant(
        "reaching the same step again is progress",
        _ATTEMPTS,
        "has_progressed or step > job.best_step",
        "has_progressed or step >= job.best_step",
        _TEST_ANSWERS,
    ),
    Mutant(
        "a drain that was signalled is signalled again",
        _ATTEMPTS,
        '    if state.is_signalled:\n        return unchanged(job, "the request to stop is on its way")\n',
        "",
        _TEST_ANSWERS,
    ),
    Mutant(
        "a launch that failed for lack of space uses up the restart budget",
        _ATTEMPTS,
        "job.failures if event.is_for_want_of_space else job.failures + 1",
        "job.failures + 1",
        _TEST_ANSWERS,
    ),
    Mutant(
        "space on the disk ends a pause before its wait is over",
        "supervisor/machine/waits.py",
        "    if not state.has_waited:\n",
        "    if False:\n",
        _TEST_ANSWERS,
    ),
    Mutant(
        "a spent restart budget does not park the job",
        _RESTART,
        "return failures > 0 and failures >= policy.budget",
        "return failures > 0 and failures > policy.budget",
        _TEST_RESTART,
    ),
    Mutant(
        "progress does not refill the restart budget",
        _RESTART,
        "return 0 if has_progressed else failures + 1",
        "return failures + 1",
        _TEST_RESTART,
    ),
    Mutant(
        "the backoff has no upper limit",
        _RESTART,
        "min(policy.initial_s * 2.0**exponent, policy.max_s)",
        "policy.initial_s * 2.0**exponent",
        _TEST_RESTART,
    ),
    Mutant(
        "jobs that died together are restarted together: no jitter",
        _RESTART,
        "* (1.0 - _JITTER * random.Random(seed).random())",
        "* 1.0",
        _TEST_RESTART,
    ),
    Mutant(
        "a job goes back for the same failure from different checkpoints",
        _REPEATS,
        "        if before.is_start_of(repeat):\n",
        "        if True:\n",
        _TEST_REPEATS,
    ),
    Mutant(
        "a failure that comes again after going back does not park the job",
        _REPEATS,
        "        if before.has_gone_back:\n",
        "        if False:\n",
        _TEST_REPEATS,
    ),
    Mutant(
        "a kill from outside clears the count of repeated failures",
        _REPEATS,
        "        return before, Remedy.NONE\n",
        "        return None, Remedy.NONE\n",
        _TEST_REPEATS,
    ),
    Mutant(
        "a suspended machine makes an attempt stalled",
        _STALL,
        "min(max(now_s - looked_s, 0.0), LOOK_GAP_MAX_S)",
        "max(now_s - looked_s, 0.0)",
        _TEST_STALL,
    ),
    Mutant(
        "a heartbeat that cannot be read counts as silence",
        _STALL,
        "now is None and before is not None",
        "False",
        _TEST_STALL,
    ),
    Mutant(
        "a drain counts as a stall",
        _STALL,
        "    if Phase.DRAIN in doings:\n",
        "    if doings == {Phase.DRAIN}:\n",
        _TEST_STALL,
    ),
    Mutant(
        "a later request to stop moves the deadline away",
        _STOP,
        "if policy.kill_at_s is not None and policy.kill_at_s <= at_s:",
        "if False:",
        _TEST_STOP,
    ),
    Mutant(
        "peers that were told to stop are told again, which means at once",
        _STOP,
        "    return policy, () if was_told else _forward(policy, signal.SIGTERM)",
        "    return policy, _forward(policy, signal.SIGTERM)",
        _TEST_STOP,
    ),
    Mutant(
        "a drain that could not be signalled yet is not signalled again",
        _MONITOR,
        "            except TryAgainError:\n                await asyncio.sleep(SIGNAL_RETRY_S)",
        "            except TryAgainError:\n                return",
        _TEST_MONITOR_DRAIN,
    ),
)
