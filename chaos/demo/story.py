"""The story that the demo tells, step by step.

Two jobs that differ in nothing but their names are dropped into the jobs folder. One is left alone. The other
is killed with SIGKILL in mid-epoch, and in a later attempt drained with SIGTERM. In the end both must have
the same weights and the same metric history.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chaos.demo.ground import SOURCES, choose_source, only_demo_in
from chaos.demo.plans import PLANS, Plan
from chaos.demo.verdict import Verdict, read_result
from chaos.supervised import Departure, Supervised
from chaos.waiting import HarnessError, Interruption, StopRequestedError, wait_for
from trainerd.contract import records
from trainerd.contract.counted import counted
from trainerd.contract.heartbeat import Heartbeat, Phase, read_heartbeat
from trainerd.contract.metric_history import Resume, read_history
from trainerd.contract.records import ExitRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chaos.demo.screen import Screen

DISTURBED: Final = "mnist"
UNDISTURBED: Final = "undisturbed"

STRIKE_LIMIT_S: Final = 180.0
OUTCOME_LIMIT_S: Final = 60.0
RESUME_LIMIT_S: Final = 90.0
FINISH_LIMIT_S: Final = 600.0
"""Long enough for a machine with one core, on which the twin waits until the other job has finished."""

STEPS_AT_RISK_MIN: Final = 2
"""Steps since the newest checkpoint when the demo strikes: some must be lost to show that they are run
again."""

_HOPELESS: Final = frozenset({"parked", "rejected", "stopped", "paused", "faulted"})


@dataclass(frozen=True)
class DemoOptions:
    """Where the demo keeps its things, and what it trains."""

    root: Path
    job: str = "resnet18"


@dataclass
class Stage:
    """What every step of the story needs."""

    plan: Plan
    supervised: Supervised
    screen: Screen
    interruption: Interruption

    def wait(self, what: str, look: Callable[[], Any], limit_s: float) -> Any:
        """Wait while showing progress; give up at once if a job cannot go on."""

        def look_and_show() -> Any:
            jobs = [job for name in (DISTURBED, UNDISTURBED) if (job := self.supervised.job(name))]
            self.screen.show(jobs)
            for job in jobs:
                if job["state"] in _HOPELESS:
                    raise HarnessError(f"{job['name']} is {job['state']}: {job['reason']}")
            return look()

        return wait_for(what, look_and_show, limit_s=limit_s, interruption=self.interruption)


def tell(options: DemoOptions, screen: Screen, interruption: Interruption) -> bool:
    """Tell the story; return whether the two runs are equal. Nothing of it is left running.

    Raises:
        HarnessError: Something went otherwise; the message shows the ends of the logs.
        StopRequestedError: This program was asked to stop.
    """
    stage = Stage(PLANS[options.job], Supervised(options.root, interruption), screen, interruption)
    with only_demo_in(options.root, interruption):
        try:
            source = choose_source(stage.plan, interruption)
            if source is not None:
                screen.say(f"data: {SOURCES[source]}")
            start(stage)
            submit(stage, source)
            strike_with_sigkill(stage)
            drain_with_sigterm(stage)
            return let_finish(stage)
        except StopRequestedError:
            screen.clear()
            screen.say("interrupted: draining every job ...", "yellow")
            raise
        except HarnessError as error:
            screen.clear()
            screen.say("failed: draining every job ...", "bold red")
            logs = stage.supervised.tails(DISTURBED, UNDISTURBED)
            raise HarnessError(f"{error}\n{logs}") from error
        finally:
            departure = stage.supervised.drain()
            if departure is not None and not departure.is_clean:
                screen.say(_describe(departure), "bold red")


def start(stage: Stage) -> None:
    """Start the supervisor."""
    pid = stage.supervised.start()
    stage.screen.say(f"the supervisor runs: pid {pid}, log in {_short(stage.supervised.state.log)}")


def submit(stage: Stage, source: str | None) -> None:
    """Drop both specs. Whole files only: what is renamed into place was never half-written."""
    for name, remark in ((DISTURBED, "the one to be hit"), (UNDISTURBED, "its twin, to be left alone")):
        path = stage.supervised.jobs / f"{name}.yaml"
        draft = path.with_name(f".{path.name}.draft")
        draft.touch(mode=0o644)  # whatever the umask: a spec that others can write is refused
        draft.write_text(stage.plan.spec(name, source=source), encoding="utf-8")
        draft.rename(path)
        stage.screen.say(f"dropped {_short(path)}: {remark}", "bold")


def strike_with_sigkill(stage: Stage) -> None:
    """Kill the rank in mid-epoch, between two checkpoints, and see it go on from the newest one."""
    pid, beat = _wait_for_mid_epoch(stage, attempt=1, step=stage.plan.kill_from_step)
    _send(pid, signal.SIGKILL)
    stage.screen.say(
        f"kill -9 {pid}    {_where(beat)}; its newest checkpoint is of step {beat.checkpoint_step}",
        "bold red",
    )
    _show_outcome(stage, attempt=1)
    _show_resume(stage, attempt=2, after_step=beat.step)
    stage.screen.freeze()


def drain_with_sigterm(stage: Stage) -> None:
    """Ask the rank to leave; see it finish the step, save, exit with 85, and be run again."""
    pid, beat = _wait_for_mid_epoch(stage, attempt=2, step=stage.plan.drain_from_step)
    _send(pid, signal.SIGTERM)
    stage.screen.say(f"kill -TERM {pid}    {_where(beat)}", "bold yellow")
    _show_outcome(stage, attempt=2)
    ended = records.read(stage.supervised.state.run(DISTURBED).attempt(2).exit, ExitRecord)
    code = ended.ranks[0].exit_code if ended else None
    stage.screen.say(f"exit code {code}: checkpointed, run me again")
    _show_resume(stage, attempt=3, after_step=beat.step)


def let_finish(stage: Stage) -> bool:
    """Wait for both jobs, stop the supervisor and compare what they left."""
    for name in (DISTURBED, UNDISTURBED):
        job = _wait_for_finish(stage, name)
        stage.screen.say(f"{name} has finished after {counted(job['attempt'], 'attempt')}", "green")
        if name == UNDISTURBED and job["attempt"] != 1:
            raise HarnessError("the run that was to be left alone needed more than one attempt")
    stage.screen.clear()
    departure = stage.supervised.drain()
    if departure is None or not departure.is_clean:
        raise HarnessError("the supervisor did not leave as it should")
    stage.screen.say("the supervisor was asked to stop and left with exit code 0; nothing is left running")
    state = stage.supervised.state
    verdict = Verdict(read_result(state.run(DISTURBED)), read_result(state.run(UNDISTURBED)))
    _conclude(stage.screen, verdict)
    return verdict.all_is_equal


def _conclude(screen: Screen, verdict: Verdict) -> None:
    one, other = verdict.disturbed, verdict.undisturbed
    histories = "equal" if verdict.histories_are_equal else "DIFFERENT"
    rows = [
        ("final weights", DISTURBED, one.weights_digest),
        ("", UNDISTURBED, other.weights_digest),
        ("rest of the state", DISTURBED, one.tree_digest),
        ("", UNDISTURBED, other.tree_digest),
        (
            "metric history",
            "both",
            f"{len(one.history.rows)} steps and {len(one.history.reports)} scores: {histories}",
        ),
        ("", DISTURBED, f"{one.steps_run_twice} steps were run twice"),
    ]
    screen.conclude(
        "EQUAL to the last bit: the run that was killed and drained, and the one that was left alone"
        if verdict.all_is_equal
        else "NOT EQUAL",
        rows,
        is_good=verdict.all_is_equal,
    )


def _wait_for_mid_epoch(stage: Stage, *, attempt: int, step: int) -> tuple[int, Heartbeat]:
    """Return pid and heartbeat of the rank once at or past `step`, and some steps from any checkpoint."""
    page = stage.supervised.state.run(DISTURBED).attempt(attempt).heartbeat(0)

    def look() -> tuple[int, Heartbeat] | None:
        job = stage.supervised.job(DISTURBED)
        if job is None or job["state"] != "running" or job["attempt"] != attempt or not job["pids"]:
            return None
        # The supervisor looks once a second; the page itself says where the rank is now.
        beat = read_heartbeat(page)
        if beat is None or beat.phase != Phase.STEP or beat.step < step or beat.checkpoint_step < 0:
            return None
        steps_at_risk = beat.step - beat.checkpoint_step
        is_between = STEPS_AT_RISK_MIN <= steps_at_risk < stage.plan.every_steps - 1
        return (job["pids"][0], beat) if is_between and beat.batch < beat.batches - 1 else None

    found: tuple[int, Heartbeat] = stage.wait(f"{DISTURBED} to be in mid-epoch", look, STRIKE_LIMIT_S)
    return found


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        raise HarnessError(f"rank 0 of {DISTURBED} ended before it was hit") from None


def _show_outcome(stage: Stage, *, attempt: int) -> None:
    def look() -> dict[str, Any] | None:
        ended = [one for one in stage.supervised.outcomes(DISTURBED) if one["attempt"] == attempt]
        return ended[0] if ended else None

    outcome = stage.wait(f"the outcome of attempt {attempt}", look, OUTCOME_LIMIT_S)
    stage.screen.say(f"attempt {attempt} is judged {outcome['kind']}: {outcome['reason']}")
    job = stage.supervised.job(DISTURBED)
    if job is not None and job["state"] == "backing-off" and job["retry_at_wall_s"] is not None:
        stage.screen.say(
            f"attempt {attempt + 1} follows in {max(0.0, job['retry_at_wall_s'] - time.time()):.1f} s"
        )


def _show_resume(stage: Stage, *, attempt: int, after_step: int) -> None:
    """Show where the attempt goes on, once it has been seen to take a step."""
    run = stage.supervised.state.run(DISTURBED)

    def look() -> Resume | None:
        resumes = [resume for resume in read_history(run.metrics).resumes if resume.attempt == attempt]
        job = stage.supervised.job(DISTURBED)
        is_moving = job is not None and job["attempt"] == attempt and (job["step"] or 0) > after_step
        return resumes[0] if resumes and is_moving else None

    resume = stage.wait(f"attempt {attempt} to go on", look, RESUME_LIMIT_S)
    stage.screen.say(f"attempt {attempt} went on from {resume.checkpoint}", "green")


def _wait_for_finish(stage: Stage, name: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        job = stage.supervised.job(name)
        return job if job is not None and job["state"] == "finished" else None

    found: dict[str, Any] = stage.wait(f"{name} to finish", look, FINISH_LIMIT_S)
    return found


def _describe(departure: Departure) -> str:
    left = (
        f", leaving {len(departure.leftovers)} processes that were ended for it"
        if departure.leftovers
        else ""
    )
    return f"the supervisor left with exit code {departure.exit_code}{left}"


def _where(beat: Heartbeat) -> str:
    return f"in epoch {beat.epoch + 1} at batch {beat.batch} of {beat.batches}, step {beat.step}"


def _short(path: Path) -> str:
    return os.path.relpath(path)
