"""How endings are judged, evidence by evidence."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from tests.support.supervisor_objects import NOW, exit_record
from trainerd.contract.records import OutcomeRecord, RankExit, StallRecord
from trainerd.supervisor.machine.interpreter import Interpreter
from trainerd.supervisor.machine.outcome import USAGE_ERROR_WITHIN_S, Evidence, OutcomeKind, Retry, judge


def judged(*ranks: RankExit, stop_requested_s=None, duration_s=60.0, **fields):
    record = exit_record(*ranks, stop_requested_s=stop_requested_s, duration_s=duration_s)
    return judge(Evidence(attempt=3, exit=record, **fields), now_wall_s=NOW)


def code(number: int, rank: int = 0) -> RankExit:
    return RankExit(rank, exit_code=number)


def by(signum: int, rank: int = 0, shim=None) -> RankExit:
    return RankExit(rank, signal=signum, killed_by_shim=shim)


SESSION = {"has_session": True, "has_stepped": True, "step": 120}
NEW = {"checkpoint": "step-000000120", "checkpoint_step": 120, "is_checkpoint_new": True}
OLD = {"checkpoint": "step-000000100", "checkpoint_step": 100}


@pytest.mark.parametrize(
    ("ranks", "fields", "kind", "retry"),
    [
        ([code(0)], {}, OutcomeKind.FINISHED, Retry.NOTHING_LEFT),
        ([code(0)], SESSION | {"is_finish_recorded": True}, OutcomeKind.FINISHED, Retry.NOTHING_LEFT),
        ([code(0, 0), code(0, 1)], {}, OutcomeKind.FINISHED, Retry.NOTHING_LEFT),
        ([code(85)], SESSION | NEW, OutcomeKind.DRAINED, Retry.AT_ONCE_IF_MOVED),
        ([code(85, 0), code(85, 1)], SESSION | NEW, OutcomeKind.DRAINED, Retry.AT_ONCE_IF_MOVED),
        ([code(85)], SESSION | OLD, OutcomeKind.CRASHED, Retry.AFTER_BACKOFF),
        ([code(85)], SESSION, OutcomeKind.CRASHED, Retry.AFTER_BACKOFF),
        ([code(85)], SESSION | OLD | {"step": 100}, OutcomeKind.DRAINED, Retry.AT_ONCE_IF_MOVED),
        ([code(85)], {"has_session": True}, OutcomeKind.DRAINED, Retry.AT_ONCE_IF_MOVED),
        ([code(85)], {}, OutcomeKind.CRASHED, Retry.AFTER_BACKOFF),
        ([code(1)], SESSION, OutcomeKind.CRASHED, Retry.AFTER_BACKOFF),
        ([code(93)], SESSION, OutcomeKind.REJECTED, Retry.NEVER),
        ([code(127)], {}, OutcomeKind.REJECTED, Retry.NEVER),
        ([code(126)], {}, OutcomeKind.REJECTED, Retry.NEVER),
        ([code(127)], SESSION, OutcomeKind.CRASHED, Retry.AFTER_BACKOFF),
        ([by(signal.SIGKILL)], SESSION, OutcomeKind.KILLED, Retry.AFTER_BACKOFF),
        ([by(signal.SIGTERM)], SESSION, OutcomeKind.KILLED, Retry.AFTER_BACKOFF),
        ([by(signal.SIGSEGV)], SESSION, OutcomeKind.CRASHED, Retry.AFTER_BACKOFF),
        ([by(signal.SIGKILL, shim="grace")], SESSION, OutcomeKind.KILLED, Retry.AFTER_BACKOFF),
        ([RankExit(0, spawn_error="command: 'x' was not found")], {}, OutcomeKind.REJECTED, Retry.NEVER),
        (
            [RankExit(0, spawn_error="cannot start 'x': Resource temporarily unavailable")],
            {},
            OutcomeKind.CRASHED,
            Retry.AFTER_BACKOFF,
        ),
    ],
)
def test_an_ending_is_judged_by_how_the_ranks_left(ranks, fields, kind, retry):
    outcome = judged(*ranks, **fields)
    assert (outcome.kind, outcome.retry) == (kind, retry), outcome.reason


@pytest.mark.parametrize(
    ("ranks", "fields", "kind"),
    [
        ([code(0)], SESSION | {"is_finish_recorded": True}, OutcomeKind.FINISHED),
        ([code(0)], SESSION | OLD, OutcomeKind.CRASHED),
        ([code(0)], SESSION | NEW, OutcomeKind.DRAINED),
        ([code(0)], SESSION | NEW | {"step": 121}, OutcomeKind.CRASHED),
        ([code(0)], {}, OutcomeKind.STOPPED),
        ([by(signal.SIGTERM)], {}, OutcomeKind.STOPPED),
        ([by(signal.SIGKILL)], {}, OutcomeKind.KILLED),
        ([code(85)], SESSION | NEW, OutcomeKind.DRAINED),
        ([code(85)], SESSION | OLD, OutcomeKind.CRASHED),
    ],
)
def test_an_ending_that_was_asked_for_needs_proof(ranks, fields, kind):
    """An exit with 0 after a request to stop is not completion; only the finished record says that it is."""
    assert judged(*ranks, stop_requested_s=30.0, **fields).kind is kind


RAISED_AS_ASKED = OutcomeRecord(
    "exception", error_type="RuntimeError", error_message="Connection closed by peer"
)
DRAINED = OutcomeRecord("drained")


@pytest.mark.parametrize("first", [DRAINED, RAISED_AS_ASKED], ids=["drained", "raised"])
def test_a_rank_that_raises_while_all_are_asked_to_stop_is_no_failure(first):
    ranks = [code(85 if first is DRAINED else 1, 0), code(1, 1)]
    said = SESSION | OLD | {"outcomes": (first, RAISED_AS_ASKED)}
    outcome = judged(*ranks, stop_requested_s=30.0, **said)
    assert (outcome.kind, outcome.retry, outcome.failure) == (OutcomeKind.STOPPED, Retry.AT_ONCE, "")
    assert "RuntimeError: Connection closed by peer while the ranks were asked to stop" in outcome.reason
    assert outcome.reason.endswith("it goes on from step-000000100")
    assert judged(*ranks, **said).kind is OutcomeKind.CRASHED  # not asked
    silent = said | {"outcomes": (first, None)}
    assert judged(*ranks, stop_requested_s=30.0, **silent).kind is OutcomeKind.CRASHED
    alone = (
        SESSION | OLD | {"outcomes": (RAISED_AS_ASKED,)}
    )  # one rank alone drains by itself where that is possible
    assert judged(code(1), stop_requested_s=30.0, **alone).kind is OutcomeKind.CRASHED


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "as asked; it opened no session, so trainerd has saved nothing of it"),
        (SESSION | OLD, "as asked, without a checkpoint of that moment"),
    ],
    ids=["plain", "session"],
)
def test_what_a_rank_that_left_as_asked_has_saved_is_said(fields, said):
    assert judged(by(signal.SIGTERM), stop_requested_s=30.0, **fields).reason.endswith(said)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_plain_command_that_ends_as_a_shell_says_a_signal_has_left_as_asked(name):
    ended = code(128 + signal.Signals[name])
    outcome = judged(ended, stop_requested_s=30.0)
    assert outcome.kind is OutcomeKind.STOPPED
    assert name in outcome.reason
    assert "it opened no session, so trainerd has saved nothing of it" in outcome.reason
    assert judged(ended).kind is OutcomeKind.CRASHED
    assert judged(code(128 + signal.SIGSEGV), stop_requested_s=30.0).kind is OutcomeKind.CRASHED


@pytest.mark.parametrize(
    "line",
    [
        "SyntaxError: invalid syntax",
        "IndentationError: unexpected indent",
        "ModuleNotFoundError: No module named 'torchvision'",
        "ImportError: cannot import name 'x' from 'y'",
    ],
)
def test_a_program_that_cannot_even_begin_is_rejected(line):
    tail = ("Traceback (most recent call last):", '  File "train.py", line 1', line)
    outcome = judged(code(1), log_tail=tail)
    assert outcome.kind is OutcomeKind.REJECTED
    assert line in outcome.reason


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ("supervisor", "the supervisor's own: name one that has torch.nn in the field python:"),
        ("field", "as the field python: says: name one that has torch.nn there"),
        ("command", "as its command says: name one that has torch.nn, or begin the command with the word"),
    ],
)
def test_a_module_that_is_missing_leads_to_the_interpreter_and_where_it_is_named(origin, said):
    tail = ("ModuleNotFoundError: No module named 'torch.nn'",)
    outcome = judged(code(1), log_tail=tail, interpreter=Interpreter("/opt/python3", origin))
    assert outcome.kind is OutcomeKind.REJECTED
    assert outcome.reason.startswith(f"rank 0 cannot run: {tail[0]}; it ran with /opt/python3")
    assert said in outcome.reason


@pytest.mark.parametrize(
    "line",
    [
        "/opt/python3: No module named trainpkg",
        "python3.11: No module named torch.distributed",
        "/opt/python3: Error while finding module specification for 'a.b' (ModuleNotFoundError: no 'a')",
    ],
)
def test_a_module_that_python_m_cannot_find_is_rejected_with_the_interpreter(line):
    outcome = judged(code(1), log_tail=(line,), interpreter=Interpreter("/opt/python3", "supervisor"))
    assert outcome.kind is OutcomeKind.REJECTED
    assert "the field python:" in outcome.reason
    assert judged(code(1), log_tail=("note: No module named x",)).kind is OutcomeKind.CRASHED


def test_a_syntax_error_names_the_interpreter_but_no_other():
    used = Interpreter("/usr/bin/python3", "supervisor")
    reason = judged(code(1), log_tail=("SyntaxError: invalid syntax",), interpreter=used).reason
    assert reason.endswith("it ran with /usr/bin/python3")


def test_an_import_error_in_the_middle_of_training_is_a_crash():
    """A lazy import that fails on one machine may work on the next try: steps were made."""
    outcome = judged(code(1), log_tail=("ImportError: no",), **SESSION)
    assert outcome.kind is OutcomeKind.CRASHED


def test_an_import_error_inside_a_session_before_the_first_step_is_rejected():
    said = OutcomeRecord(
        "exception", error_type="ModuleNotFoundError", error_message="No module named 'apex'"
    )
    assert judged(code(1), outcomes=(said,), has_session=True).kind is OutcomeKind.REJECTED


def test_exit_code_2_is_a_usage_error_only_at_once():
    assert judged(code(2), duration_s=1.0).kind is OutcomeKind.REJECTED
    assert judged(code(2), duration_s=USAGE_ERROR_WITHIN_S + 1).kind is OutcomeKind.CRASHED


def test_a_state_that_does_not_fit_is_rejected_with_its_differences():
    said = OutcomeRecord(
        "mismatch",
        error_type="trainerd.errors.MismatchError",
        error_message="does not fit",
        detail=("fc.weight: 10x4 there, 10x8 here",),
    )
    outcome = judged(code(1), outcomes=(said,), has_session=True)
    assert outcome.kind is OutcomeKind.REJECTED
    assert any("fc.weight" in line for line in outcome.evidence)


@pytest.mark.parametrize(
    ("said", "tail"),
    [
        (OutcomeRecord("out-of-memory", error_type="torch.OutOfMemoryError"), ()),
        (None, ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",)),
        (None, ("MemoryError",)),
    ],
)
def test_running_out_of_memory_has_a_name_of_its_own(said, tail):
    outcome = judged(code(1), outcomes=(said,), log_tail=tail, **SESSION)
    assert outcome.kind is OutcomeKind.OUT_OF_MEMORY


def test_no_room_on_the_disk_waits_for_room():
    said = OutcomeRecord("no-space", step=120, error_type="SpaceError", error_message="full")
    assert judged(code(1), outcomes=(said,), **SESSION).retry is Retry.WHEN_THERE_IS_ROOM


def test_the_rank_that_died_first_is_blamed_not_those_that_were_taken_along():
    outcome = judged(by(signal.SIGKILL, 0, "peer"), code(3, 1), by(signal.SIGTERM, 2), **SESSION)
    assert "rank 1 exited with 3" in outcome.reason


def test_a_rank_that_sigterm_ended_is_not_blamed_for_the_failure_of_another():
    """Whichever of them has the lower number: the shim, or torchrun, sends it to the peers of a rank that
    failed."""
    outcome = judged(by(signal.SIGTERM, 0), code(3, 1), **SESSION)
    assert outcome.kind is OutcomeKind.CRASHED
    assert "rank 1 exited with 3" in outcome.reason


def test_a_lost_attempt_is_lost_whatever_else_is_known():
    evidence = Evidence(attempt=3, exit=None, lost_because="its shim is gone", **SESSION, **NEW)
    outcome = judge(evidence, now_wall_s=NOW)
    assert (outcome.kind, outcome.retry) == (OutcomeKind.LOST, Retry.AFTER_BACKOFF)
    assert outcome.ended_wall_s == NOW


def test_after_a_restart_of_the_machine_a_job_goes_on_at_once():
    evidence = Evidence(attempt=3, exit=None, lost_because="restarted", is_after_reboot=True)
    assert judge(evidence, now_wall_s=NOW).retry is Retry.AT_ONCE


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (SESSION | NEW, "it left after saving checkpoint step-000000120"),
        (
            SESSION | OLD | {"step": 100},
            "it stopped and lost nothing: step 100 was checkpointed before",
        ),
        ({"has_session": True}, "it stopped and lost nothing: no step had been made"),
        (
            SESSION | OLD,
            "it left as if drained, which promises a checkpoint, and there is no new one that verifies",
        ),
    ],
)
def test_a_drain_is_said_to_have_lost_nothing_only_if_its_steps_are_in_a_checkpoint(fields, reason):
    assert judged(code(85), **fields).reason == reason


def test_a_drain_that_a_script_turned_into_an_exit_with_0_is_still_a_drain():
    """Frameworks that swallow SystemExit: the outcome record says what the exit code does not."""
    said = OutcomeRecord("drained", step=120, checkpoint="step-000000120")
    assert judged(code(0), outcomes=(said,), **SESSION, **NEW).kind is OutcomeKind.DRAINED


def test_a_launcher_that_makes_1_of_85_has_drained_if_all_its_ranks_say_so():
    said = OutcomeRecord("drained", step=7, checkpoint="step-000000007")
    proof = {"has_session": True, "step": 7, "checkpoint": "step-000000007", "checkpoint_step": 7}
    assert judged(code(1), outcomes=(said, said), is_checkpoint_new=True, **proof).kind is OutcomeKind.DRAINED
    assert judged(code(1), outcomes=(said, None), is_checkpoint_new=True, **proof).kind is OutcomeKind.CRASHED
    other = OutcomeRecord("exception", step=7, error_type="KeyError")
    assert (
        judged(code(1), outcomes=(said, other), is_checkpoint_new=True, **proof).kind is OutcomeKind.CRASHED
    )
    unproved = proof | {"checkpoint_step": 3, "checkpoint": "step-000000003"}
    assert judged(code(1), outcomes=(said, said), **unproved).kind is OutcomeKind.CRASHED


def test_the_evidence_reads_as_lines():
    outcome = judged(code(1), log_tail=("boom",), trouble=("could not be read: x",), **SESSION, **OLD)
    assert outcome.evidence == (
        "rank 0: exit code 1",
        "ran for 60.0 s",
        "last finished step: 120",
        "newest valid checkpoint: step-000000100, made before",
        "log: boom",
        "could not be read: x",
    )


@pytest.mark.parametrize("dead", [0, 1])
def test_a_rank_that_lost_its_peer_is_not_to_blame(dead):
    said = OutcomeRecord("exception", error_type="trainerd.errors.RankLostError", error_message="rank gone")
    outcomes = tuple(None if rank == dead else said for rank in (0, 1))
    ends = [by(signal.SIGKILL, rank) if rank == dead else code(1, rank) for rank in (0, 1)]
    outcome = judged(*ends, outcomes=outcomes, **SESSION)
    assert outcome.kind is OutcomeKind.KILLED
    assert f"rank {dead}" in str(outcome)


def test_what_a_rank_raised_is_what_it_died_of_also_if_a_signal_met_it_as_it_left():
    said = OutcomeRecord("exception", error_type="RuntimeError", error_message="a loader worker is gone")
    outcome = judged(by(signal.SIGTERM), outcomes=(said,), **SESSION)
    assert (outcome.kind, outcome.retry) == (OutcomeKind.CRASHED, Retry.AFTER_BACKOFF)
    assert "RuntimeError: a loader worker is gone" in outcome.reason
    interrupted = OutcomeRecord("exception", error_type="KeyboardInterrupt", error_message="")
    assert judged(by(signal.SIGINT), outcomes=(interrupted,), **SESSION).kind is OutcomeKind.KILLED


def killed(**fields):
    return RankExit(0, signal=signal.SIGKILL, **fields)


def test_a_kill_is_the_kernels_if_its_log_or_its_counter_says_so():
    """And somebody else's if neither does, or if the shim sent it."""
    cases = [
        (killed(), 0, OutcomeKind.KILLED),
        (killed(is_oom_victim=True), 0, OutcomeKind.OUT_OF_MEMORY),
        (killed(), 1, OutcomeKind.OUT_OF_MEMORY),
        (killed(killed_by_shim="grace"), 1, OutcomeKind.KILLED),
    ]
    for rank, oom_kills, kind in cases:
        record = replace(exit_record(rank), oom_kills=oom_kills)
        assert judge(Evidence(1, record), now_wall_s=NOW).kind is kind


@pytest.mark.parametrize(
    "line",
    [
        "MemoryError",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        (
            "RuntimeError: [enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't "
            "allocate memory: you"
        ),
        "RuntimeError: CUDA error: out of memory",
        "OSError: [Errno 12] Cannot allocate memory",
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.28 TiB for an array",
    ],
)
def test_the_words_for_want_of_memory_are_known(line):
    evidence = Evidence(1, exit_record(RankExit(0, exit_code=1)), log_tail=(line,))
    assert judge(evidence, now_wall_s=NOW).kind is OutcomeKind.OUT_OF_MEMORY


def test_the_most_memory_that_an_attempt_held_is_told_if_it_is_known():
    counted = replace(exit_record(), memory_bytes_max=3 << 28)
    limited = replace(counted, memory_limit_bytes=1 << 30)
    lines = [judge(Evidence(1, record), now_wall_s=NOW).evidence for record in (counted, limited)]
    assert "memory at its highest: 0.75 GiB" in lines[0]
    assert "memory at its highest: 0.75 GiB of 1.00 GiB" in lines[1]
    assert "memory" not in " ".join(judge(Evidence(1, exit_record()), now_wall_s=NOW).evidence)


def test_a_worker_that_was_killed_is_out_of_memory_only_if_the_kernel_did_it():
    line = "RuntimeError: DataLoader worker (pid(s) 77) is killed by signal: Killed. "
    record = exit_record(RankExit(0, exit_code=1))
    for oom_kills, kind in [(0, OutcomeKind.CRASHED), (1, OutcomeKind.OUT_OF_MEMORY)]:
        evidence = Evidence(1, replace(record, oom_kills=oom_kills), log_tail=(line,))
        assert judge(evidence, now_wall_s=NOW).kind is kind


def stalled(rank, **fields):
    stall = StallRecord(612.0, 600.0, "step", NOW, ("rank 0: process 7: S (sleeping)",))
    return judge(Evidence(1, exit_record(rank), stall=stall, **fields), now_wall_s=NOW)


def test_an_attempt_that_was_ended_for_standing_still_is_stalled():
    ending = stalled(killed(killed_by_shim="asked"))
    assert ending.kind is OutcomeKind.STALLED
    assert "rank 0: process 7: S (sleeping)" in ending.evidence


def test_one_that_ended_by_itself_before_it_could_be_ended_is_not():
    assert stalled(RankExit(0, exit_code=1)).kind is OutcomeKind.CRASHED


def test_one_that_had_finished_and_hung_on_its_way_out_is_finished():
    ending = stalled(killed(killed_by_shim="asked"), is_finish_recorded=True)
    assert ending.kind is OutcomeKind.FINISHED


@pytest.mark.parametrize(
    ("policy", "retry"),
    [("stop", Retry.ON_REQUEST), ("rollback", Retry.FROM_THE_CHECKPOINT_BEFORE)],
)
def test_a_non_finite_loss_is_answered_as_the_spec_says(policy, retry):
    said = OutcomeRecord("nonfinite-loss", step=7, error_type="NonFiniteLossError", error_message="it is nan")
    evidence = Evidence(
        1, exit_record(RankExit(0, exit_code=1)), outcomes=(said,), step=7, on_nonfinite_loss=policy
    )
    ending = judge(evidence, now_wall_s=NOW)
    assert (ending.kind, ending.retry) == (OutcomeKind.NON_FINITE_LOSS, retry)


def test_an_attempt_that_another_one_has_taken_over_from_is_not_started_again():
    """Two machines that start it by turns would fence each other for ever."""
    said = OutcomeRecord("fenced", step=7, error_type="FencedError", error_message="another attempt")
    ending = judge(
        Evidence(1, exit_record(RankExit(0, exit_code=1)), outcomes=(said,), step=7), now_wall_s=NOW
    )
    assert (ending.kind, ending.retry) == (OutcomeKind.REJECTED, Retry.ON_REQUEST)
    assert "another attempt trains this run" in ending.reason


@pytest.mark.parametrize(
    ("rank", "line", "failure"),
    [
        (RankExit(0, exit_code=1), "ValueError: tensor at 0x7f00", "crashed: ValueError"),
        (RankExit(0, signal=signal.SIGSEGV), "", "crashed: SIGSEGV"),
        (RankExit(0, exit_code=7), "", "crashed: 7"),
        (killed(), "", ""),
    ],
)
def test_failures_are_told_apart_by_what_does_not_change_each_time(rank, line, failure):
    evidence = Evidence(1, exit_record(rank), log_tail=(line,))
    assert judge(evidence, now_wall_s=NOW).failure == failure


FINISHED_SAID = OutcomeRecord("finished", step=120)
DRAINED_SAID = OutcomeRecord("drained", step=120, checkpoint="step-000000120")
RAISED = OutcomeRecord("exception", step=120, error_type="KeyError", error_message="'x'")


@pytest.mark.parametrize(
    "ending",
    [code(0), code(1), code(127), by(signal.SIGTERM), by(signal.SIGKILL, shim="grace")],
    ids=["0", "1", "127", "SIGTERM", "grace"],
)
def test_the_record_of_the_session_decides_whatever_its_command_makes_of_it(ending):
    """Below a shell, a pipe or a launcher: the exit code is that of another program."""
    below = SESSION | NEW | {"is_wrapped": True, "stop_requested_s": 30.0}
    drained = judged(ending, outcomes=(DRAINED_SAID,), **below)
    assert (drained.kind, drained.retry) == (OutcomeKind.DRAINED, Retry.AT_ONCE_IF_MOVED), drained.reason
    finished = judged(ending, outcomes=(FINISHED_SAID,), is_finish_recorded=True, **below)
    assert finished.kind is OutcomeKind.FINISHED, finished.reason
    raised = judged(ending, outcomes=(RAISED,), **below | {"stop_requested_s": None})
    assert raised.kind in {OutcomeKind.CRASHED, OutcomeKind.KILLED}, raised.reason


def test_a_drain_that_left_no_checkpoint_is_none_whatever_it_says():
    outcome = judged(code(0), outcomes=(DRAINED_SAID,), is_wrapped=True, **SESSION, **OLD)
    assert outcome.kind is OutcomeKind.CRASHED


def test_a_program_that_fails_after_its_own_session_has_finished_has_not_finished():
    """Here the exit code is that of the program that trained."""
    outcome = judged(code(1), outcomes=(FINISHED_SAID,), is_finish_recorded=True, **SESSION, **NEW)
    assert outcome.kind is OutcomeKind.CRASHED


def test_an_exception_that_a_command_turned_into_0_is_a_crash_of_that_name():
    """`python train.py | tee log` exits with what tee does."""
    outcome = judged(code(0), outcomes=(RAISED,), **SESSION, **OLD)
    assert (outcome.kind, outcome.retry) == (OutcomeKind.CRASHED, Retry.AFTER_BACKOFF)
    assert "rank 0 raised KeyError: 'x', and its command exited with 0" in outcome.reason
    assert outcome.failure == "crashed: KeyError"


@pytest.mark.parametrize(
    "said", [(), (None,), (OutcomeRecord("exception", error_type="SystemExit", error_message="0"),)]
)
@pytest.mark.parametrize("completion", ["exit-zero", "record"])
def test_an_exit_with_0_in_the_middle_of_a_session_is_a_crash(said, completion):
    outcome = judged(code(0), outcomes=said, completion=completion, **SESSION | {"step": 6})
    assert (outcome.kind, outcome.retry) == (OutcomeKind.CRASHED, Retry.AFTER_BACKOFF)
    assert "exited with 0 at step 6 without finishing" in outcome.reason
    before = judged(code(0), outcomes=said, has_session=True)
    assert "exited with 0 before its first step without finishing" in before.reason


def test_what_completes_a_program_without_a_session_is_for_the_spec_to_say():
    assert judged(code(0)).kind is OutcomeKind.FINISHED
    outcome = judged(code(0), completion="record")
    assert (outcome.kind, outcome.retry) == (OutcomeKind.CRASHED, Retry.AFTER_BACKOFF)
    assert "completion: record" in outcome.reason
    assert judged(code(0), completion="record", is_finish_recorded=True).kind is OutcomeKind.FINISHED


def test_a_session_below_a_shell_that_the_kernel_killed_is_out_of_memory():
    record = replace(exit_record(code(137)), oom_kills=1)
    for is_wrapped, kind in [(True, OutcomeKind.OUT_OF_MEMORY), (False, OutcomeKind.CRASHED)]:
        assert judge(Evidence(1, record, is_wrapped=is_wrapped), now_wall_s=NOW).kind is kind


def test_the_evidence_shows_how_the_session_was_started_if_it_was_not_directly():
    chains = ("rank 0 trained in bash run.sh (pid 12) > python train.py (pid 14)",)
    assert chains[0] in judged(code(0), chains=chains, is_wrapped=True).evidence
    assert chains[0] not in judged(code(0), chains=chains).evidence


@pytest.mark.parametrize("sign", [{"has_trained_before": True}, OLD], ids=["session before", "checkpoint"])
def test_a_run_that_has_trained_does_not_finish_by_an_attempt_that_opens_no_session(sign):
    """Such as one that died while it imported torch, behind a pipe that exits with 0."""
    assert judged(code(0), **sign).kind is OutcomeKind.CRASHED
    assert judged(code(0), **sign, is_finish_recorded=True).kind is OutcomeKind.FINISHED


def test_a_command_that_left_a_trainer_in_the_background_has_not_finished():
    record = replace(exit_record(code(0), stop_requested_s=None), survivors_killed=1, background_killed=1)
    outcome = judge(Evidence(attempt=3, exit=record), now_wall_s=NOW)
    assert (outcome.kind, outcome.retry) == (OutcomeKind.CRASHED, Retry.AFTER_BACKOFF)
    assert "in the background" in outcome.reason
    harmless = replace(record, background_killed=0)  # such as a `sleep`
    assert judge(Evidence(attempt=3, exit=harmless), now_wall_s=NOW).kind is OutcomeKind.FINISHED


def test_a_rank_that_a_real_time_signal_ended_is_named():
    assert judged(by(signal.SIGRTMIN + 1)).reason == "rank 0 died of signal 35"


@pytest.mark.parametrize(
    ("ending", "fields", "reason"),
    [
        (
            code(1),
            SESSION | NEW | {"is_wrapped": True, "outcomes": (FINISHED_SAID,)},
            "its session reported the end; its command exited with 1 after that",
        ),
        (
            by(signal.SIGTERM),
            SESSION | NEW | {"is_wrapped": True, "outcomes": (FINISHED_SAID,)},
            "its session reported the end; its command was ended by SIGTERM after that",
        ),
        (code(0), SESSION | {"outcomes": (FINISHED_SAID,)}, "its session reported the end"),
        (code(0), {}, "it exited with 0"),
        (code(85), SESSION | NEW, "it left after saving checkpoint step-000000120"),
        (
            code(85),
            SESSION | OLD,
            "it left as if drained, which promises a checkpoint, and there is no new one that verifies",
        ),
        (
            code(0),
            {"has_trained_before": True},
            "it exited with 0 without opening a session, and this run has trained and has not finished",
        ),
    ],
)
def test_the_reason_of_an_ending_claims_what_the_evidence_shows(ending, fields, reason):
    assert judged(ending, **fields).reason == reason


def test_an_exception_that_was_raised_by_one_rank_alone_is_not_said_of_all():
    outcome = judged(code(0), code(0, 1), outcomes=(FINISHED_SAID, RAISED), **SESSION)
    assert outcome.kind is OutcomeKind.CRASHED
    assert outcome.reason.startswith("rank 1 raised KeyError")


LOST = OutcomeRecord("exception", error_type="trainerd.errors.RankLostError", error_message="rank 2 is gone")


@pytest.mark.parametrize(
    ("ranks", "said", "kind"),
    [
        ([code(1)], [LOST], OutcomeKind.LOST),
        ([code(1, 0), code(1, 1)], [LOST, LOST], OutcomeKind.LOST),
        ([by(signal.SIGKILL, 0, "peer"), code(1, 1)], [None, LOST], OutcomeKind.LOST),
        ([by(signal.SIGKILL, 0), code(1, 1)], [None, LOST], OutcomeKind.KILLED),
        ([code(3, 0), code(1, 1)], [None, LOST], OutcomeKind.CRASHED),
        ([code(1)], [None], OutcomeKind.CRASHED),
    ],
)
def test_a_node_whose_ranks_lost_one_of_another_node_is_not_charged_for_it(ranks, said, kind):
    outcome = judged(*ranks, **SESSION, outcomes=tuple(said), is_of_several_nodes=True)
    assert outcome.kind is kind, outcome.reason
    assert (outcome.retry is Retry.AT_ONCE) == (kind is OutcomeKind.LOST)
    if kind is OutcomeKind.LOST:
        assert "RankLostError: rank 2 is gone" in outcome.reason
    alone = judged(*ranks, **SESSION, outcomes=tuple(said))
    assert alone.kind is not OutcomeKind.LOST, "on one node one of these ranks began it"
