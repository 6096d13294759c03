"""Everything that one attempt at a run consists of: wired together here, opened and closed as a whole."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Final

from trainerd.checkpoint.fsspec_storage import FsspecStorage, without_credentials
from trainerd.checkpoint.retention import unscored
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import codec, rehearsal
from trainerd.contract.durable import make_directory, read_file, write_file
from trainerd.contract.exit_codes import DRAINED
from trainerd.contract.heartbeat import Phase
from trainerd.contract.paths import AttemptPaths
from trainerd.contract.policy import RETENTION_FORMAT
from trainerd.errors import RankLostError
from trainerd.training.distributed.agreement import Agreement, Alone, Together
from trainerd.training.distributed.joint_buckets import JointBuckets
from trainerd.training.distributed.rank_store import Ranks, rendezvous
from trainerd.training.distributed.restart_rounds import stays_drained
from trainerd.training.distributed.shared_folder import check_shared
from trainerd.training.engine.arriving_rows import ArrivingRows
from trainerd.training.engine.caller_check import CallerCheck
from trainerd.training.engine.checkpoint_manager import CheckpointManager
from trainerd.training.engine.compiled_files import CompiledFiles
from trainerd.training.engine.device_values import CUDA_VALUES
from trainerd.training.engine.fresh_run import settled
from trainerd.training.engine.history import HistoryWriter
from trainerd.training.engine.measurements import Measurements
from trainerd.training.engine.memory_tier import MemoryTier
from trainerd.training.engine.resume_evidence import ResumeEvidence
from trainerd.training.engine.run_announcement import announce_run
from trainerd.training.engine.run_exit import RunExit
from trainerd.training.engine.run_folder_check import check_run_folder
from trainerd.training.engine.run_resume import RunResume
from trainerd.training.engine.run_saves import RunSaves
from trainerd.training.engine.run_state import RunState
from trainerd.training.engine.score_watch import ScoreWatch
from trainerd.training.engine.silent_history import SilentHistory
from trainerd.training.engine.supervisor_link import SupervisorLink
from trainerd.training.engine.suspicions import Suspicions
from trainerd.training.interruption import leaving
from trainerd.training.interruption.deadline import DeadlineGuard, margin_s
from trainerd.training.interruption.departure import DEPARTURE
from trainerd.training.interruption.drain_flag import DrainFlag
from trainerd.training.interruption.interactive import is_interactive
from trainerd.training.interruption.request_watch import RequestWatch
from trainerd.training.schedule.pacing import Pacing
from trainerd.training.settings import DEFAULT_SEED, Settings, take_attempt_number
from trainerd.training.state.rng import seed_everything
from trainerd.training.writing.run_mirror import RunMirror

_DEAF: Final = (
    "trainerd: warning: a thread opened this session, and Python handles signals in the main thread only: "
    "SIGTERM and Ctrl-C end the process without a checkpoint; write `import trainerd.early` at the top of "
    "the script"
)


class RunParts:
    """The parts of one attempt.

    Args:
        settings: What the script and the environment say.
        ranks: This rank and the others, None if there are none.

    Attributes:
        state: State of the run.
        history: Metric history.
        rows: Rows of the history whose numbers are on their way from a device.
        measurements: Measurements of the step in progress.
        score_watch: Watches for the scores by which checkpoints are kept.
        memory: Copies in memory.
        checkpoints: Makes and finds checkpoints.
        suspicions: Known causes of inexactness that are present.
        caller_check: What the analysis finds in the script.
        evidence: Finds out whether the resume is exact.
        buckets: Puts back the order in which gradients are reduced.
        resume: The way back to the newest checkpoint.
        pacing: When a save is due.
        saves: Saves boundaries.
        compiled: What `torch.compile` has compiled, kept for the next attempt.
        link: Heartbeat and requests.
        flag: Whether a stop was asked for.
        watch: Hears that on the request page, where the signal cannot be heard.
        agreement: At which boundary all ranks drain or save.
        exit: The ways out.
    """

    def __init__(self, settings: Settings, ranks: Ranks | None) -> None:
        environment, checkpoint = settings.environment, settings.checkpoint
        self.settings = settings
        self.suspicions = Suspicions(leaving.say)
        self.state = RunState(
            DEFAULT_SEED if settings.seed is None else settings.seed,
            rank=environment.rank,
            world_size=environment.world_size,
            suspect=self.suspicions.add,
            is_strict=settings.is_strict,
        )
        self.caller_check = CallerCheck(self.suspicions, leaving.say, self.state.keeps)
        self.ranks = ranks
        self.history = HistoryWriter(settings.run.metrics) if environment.rank == 0 else SilentHistory()
        self.rows = ArrivingRows(self.history)
        self.measurements = Measurements(
            self.state,
            self.history,
            self.rows,
            CUDA_VALUES,
            stops_on_nonfinite=environment.on_nonfinite_loss != "ignore",
        )
        store = CheckpointStore.of_run(settings.run)
        self.memory = MemoryTier(settings, store, self.rows, self.history, ranks=ranks)
        self.checkpoints = CheckpointManager(
            store,
            checkpoint.keep,
            rank=environment.rank,
            ranks=ranks,
            history=self.history,
            rows=self.rows,
            mirror=_mirror_of(settings),
            memory=self.memory,
        )
        self.score_watch = ScoreWatch(
            [rule.metric for rule in checkpoint.keep.keep_best] if self.checkpoints.is_committer else [],
            find_unscored=lambda: unscored(self.checkpoints.store.checkpoints(), checkpoint.keep),
            say=leaving.say,
        )
        self.buckets = JointBuckets(ranks, self.state.buckets, self.suspicions.add)
        self.evidence = ResumeEvidence(
            settings, self.state, self.checkpoints, self.history, self.suspicions, is_alone=ranks is None
        )
        self.resume = RunResume(
            settings,
            self.state,
            self.checkpoints,
            self.history,
            ranks=ranks,
            evidence=self.evidence,
            suspicions=self.suspicions,
        )
        self.pacing = Pacing(
            checkpoint.every,
            settings.run,
            attempt=settings.attempt,
            is_alone=ranks is None,
            ranking=frozenset(rule.metric for rule in checkpoint.keep.keep_best),
            say=lambda plan: leaving.say(f"trainerd: {plan}"),
        )
        self.saves = RunSaves(
            settings,
            self.state,
            self.checkpoints,
            self.rows,
            resume=self.resume,
            pacing=self.pacing,
            memory=self.memory,
            is_alone=ranks is None,
        )
        self.compiled = CompiledFiles(environment.compiled_dir if environment.local_rank == 0 else None)
        self.link = SupervisorLink(
            settings.attempt_paths,
            rank=environment.rank_in_attempt,
            position=self.state.position,
            checkpoints=self.checkpoints,
            measurements=self.measurements,
        )
        self.flag = DrainFlag(is_interactive=is_interactive())
        self.watch = RequestWatch(
            self.link.stop_signal, is_heard=lambda: self.flag.is_set, say=self.flag.notice
        )
        self.agreement: Agreement = (
            Together(ranks, self.flag, wants_copy=self.saves.wants_copy) if ranks else Alone(self.flag)
        )
        self.exit = RunExit(
            settings,
            self.state.position,
            self.saves,
            self.resume,
            evidence=self.evidence,
            rows=self.rows,
            link=self.link,
            flag=self.flag,
            agreement=self.agreement,
            ranks=ranks,
        )

    @classmethod
    def meet(cls, settings: Settings) -> RunParts:
        """Return the parts of this rank's attempt, once the other ranks are there.

        Raises:
            UserError: The environment does not say where to rendezvous, the run folder is not shared, or it
                cannot be moved aside for a new run.
            LockedError: A new run is to begin, and another process trains the one that is there.
            RankLostError: The others did not come.
            SystemExit: This is torchrun's answer to a drain.
        """
        if stays_drained(settings.run, settings.attempt_paths, os.environ):
            leaving.say(
                "trainerd: torchrun restarts ranks that were drained: exiting 85 at once, since the "
                "checkpoint is made; start torchrun with --max-restarts 0"
            )
            raise SystemExit(DRAINED)
        try:
            ranks = rendezvous(settings.environment)
        except RankLostError as error:
            if settings.environment.node is not None:  # the supervisor charges a loss to the node that died
                outcome = settings.attempt_paths.outcome(settings.environment.rank_in_attempt)
                leaving.record_exception(outcome, error, step=None)
            raise
        if ranks is None:
            return cls(settled(settings, None, os.environ), None)
        try:
            settings = settled(settings, ranks, os.environ)
            if settings.environment.node is None:
                # Each of several ranks would count an attempt of its own.
                root = ranks.agreed("attempt", lambda: str(settings.attempt_paths.root))
                settings = dataclasses.replace(settings, attempt_paths=AttemptPaths(Path(root)))
            check_shared(ranks, settings.run.root)
            if settings.environment.node is not None:
                # Each node counts the attempts that it has launched; the run counts those of all nodes.
                number = ranks.agreed("attempt", lambda: take_attempt_number(settings.run))
                settings = dataclasses.replace(settings, number=number)
        except BaseException as error:
            ranks.say_failed(error)  # or the others would hear only that this rank is gone
            raise
        return cls(settings, ranks)

    @property
    def is_alone(self) -> bool:
        """Whether this is the only rank."""
        return self.ranks is None

    def open(self) -> None:
        """Take the run's lock, open its files and take over the signals; all of it, or nothing is left open.

        Raises:
            UserError: Something else is in the place of a file or folder of the run.
            LockedError: Another process trains this run.
            SpaceError: The disk is full or read-only.
        """
        check_run_folder(self.settings.run)
        try:
            self._open()
        except BaseException:
            self.watch.stop()
            self.flag.remove()
            self.link.close()
            self.history.close()
            self.checkpoints.close()
            self.memory.close()
            raise

    def _open(self) -> None:
        make_directory(self.settings.attempt_paths.root)
        self.checkpoints.open()
        self.history.open()
        self.memory.open()
        if self.checkpoints.is_committer:
            announce_run(self.settings, self.checkpoints.store)
            self._publish_retention()
            self.caller_check.begin()
        self.compiled.open()
        leaving.end_workers_at_exit()
        leaving.show_stacks_when_asked()
        self.flag.install(takes_signals=self.settings.takes_signals)
        if self.flag.notices is not None:
            DeadlineGuard(
                self.flag,
                grace_s=self.settings.grace_s,
                margin=lambda grace_s: margin_s(grace_s, self.checkpoints.sequence.longest_save_s),
                flush=self.agreement.leave_without_boundary if self.ranks else self.exit.flush_alone,
            )
        self.link.open()
        if self.settings.takes_signals and self.flag.is_deaf and not self.link.hears_requests:
            leaving.say(_DEAF)
        self.watch.start()
        if self.settings.seed is not None:
            seed_everything(self.settings.seed)
        self.link.beat(Phase.START)

    def _publish_retention(self) -> None:
        """Write down what is kept, for `trainerd prune`, which has no script to ask."""
        path = self.settings.run.retention
        policy = codec.to_json(self.settings.checkpoint.keep, RETENTION_FORMAT)
        if not path.exists() or read_file(path) != policy:
            write_file(path, policy)

    def close(self) -> None:
        """Give the signals back, and wait until what is being written is durable.

        Raises:
            SpaceError: The disk was full for the write in flight.
            OSError: The write in flight failed.
        """
        self.state.loop_sources.clear()
        self.watch.stop()
        if not DEPARTURE.is_begun:  # while the script cleans up, signals are still heard
            self.flag.remove()
        self.link.close()
        self.rows.close()
        self.evidence.close()
        self.evidence.witness.end_loop()
        try:
            self.checkpoints.close()  # the write in flight makes the history durable
        finally:
            self.memory.close()
            self.history.close()
            self.compiled.close()  # last: what it does is worth less than a checkpoint


def _mirror_of(settings: Settings) -> RunMirror | None:
    """Return the mirror of a run: a drill has none, and rank 0 copies for all."""
    policy, environment = settings.checkpoint.mirror, settings.environment
    if policy is None or environment.rank != 0 or rehearsal.from_environ(os.environ) is not None:
        return None
    place = f"{policy.url.rstrip('/')}/{settings.run_name}"
    return RunMirror(
        FsspecStorage(place),
        where=without_credentials(place),
        record=settings.run.mirror,
        history=settings.run.metrics,
        bytes_per_s=policy.bytes_per_s,
        is_fresh=settings.is_fresh and environment.job is None,
    )
