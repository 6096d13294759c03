"""From what a spec says to what the supervisor needs: absolute paths that exist, policies, the name."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from trainerd.contract import environment
from trainerd.contract.folder_owner import owner_of
from trainerd.contract.names import check_name
from trainerd.contract.policy import (
    Cadence,
    CheckpointPolicy,
    Group,
    KeepBest,
    KeepEvery,
    MirrorPolicy,
    Resources,
    RestartPolicy,
    RetentionPolicy,
)
from trainerd.contract.resolved import ResolvedJob
from trainerd.contract.secret_file import why_not_secret
from trainerd.errors import UntrustedError, UserError
from trainerd.supervisor.specs.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from trainerd.contract.hooks import Hook
    from trainerd.supervisor.specs.model import CheckpointSpec, JobSpec
    from trainerd.supervisor.specs.problems import FieldPath
    from trainerd.supervisor.specs.trust import TrustPolicy


def resolve(spec: JobSpec, *, path: Path, digest: str, trust: TrustPolicy | None) -> ResolvedJob:
    """Complete a spec.

    Args:
        spec: What it says.
        path: Absolute path under which it was dropped; relative paths in it begin at the folder of this.
        digest: Of what it says.
        trust: Whose `env_file` is trusted; None trusts any owner.

    Raises:
        ProblemsError: A path does not exist or may not be used, or the file's name cannot name a job. All of
            these depend on the surroundings: the same spec may resolve later.
    """
    problems: list[Problem] = []
    if any("\udc80" <= character <= "\udcff" for character in str(path)):
        problems.append(Problem("the file's path is not UTF-8 text", hint="rename it"))
    name = spec.name or _name_from(path, problems)
    workdir = _workdir(spec, path.parent, problems)
    python = _python(spec, path.parent, problems)
    env_file = _env_file(spec, path.parent, trust, problems)
    hooks = _hooks(spec, name, path.parent, trust=trust, problems=problems)
    if problems:
        raise ProblemsError(*problems)
    return ResolvedJob(
        name=name,
        command=tuple(spec.command),
        workdir=workdir,
        spec_path=str(path),
        spec_digest=digest,
        python=python,
        env=dict(spec.env),
        env_file=env_file,
        nproc=spec.nproc or 1,
        is_group_of_one=spec.nproc == 1,
        completion=spec.completion,
        resources=Resources(spec.resources.gpus, float(spec.resources.cpus), spec.resources.memory),
        checkpoint=_checkpoint_policy(spec.checkpoint),
        restart=RestartPolicy(spec.restart.budget, spec.restart.backoff.initial, spec.restart.backoff.max),
        grace_s=spec.grace,
        stall_timeout_s=spec.stall_timeout,
        on_nonfinite_loss=spec.on_nonfinite_loss,
        priority=spec.priority,
        standby=spec.standby,
        checkpoint_variables=spoken_of(spec.checkpoint),
        notify=hooks,
        trackers=None if spec.trackers is None else tuple(dict.fromkeys(spec.trackers)),
        after=tuple(dict.fromkeys(spec.after)),
        group=Group(spec.group.name, spec.group.max_running) if spec.group is not None else None,
    )


def absolute(text: str, folder: Path) -> str:
    """Return the absolute path of what a spec in `folder` calls `text`. Links are not followed."""
    return os.path.normpath(folder / os.path.expanduser(text))  # noqa: PTH111 (an unknown ~user stays as it is)


def _name_from(path: Path, problems: list[Problem]) -> str:
    try:
        return check_name(path.stem)
    except UserError as error:
        problems.append(
            Problem(
                f"the file's name cannot name the job: {error.message}",
                hint="rename the file, or add a field name",
            )
        )
        return ""


def _workdir(spec: JobSpec, folder: Path, problems: list[Problem]) -> str:
    workdir = absolute(spec.workdir, folder)
    if not Path(workdir).is_dir():
        what = "is not a folder" if Path(workdir).exists() else "does not exist"
        problems.append(
            Problem(
                f"{workdir} {what}",
                ("workdir",),
                hint=f"a relative path begins at the spec's folder {folder}",
            )
        )
    return workdir


def _python(spec: JobSpec, folder: Path, problems: list[Problem]) -> str | None:
    if spec.python is None:
        return None
    if "/" not in spec.python and not spec.python.startswith("~"):
        found = shutil.which(spec.python)
        if found is None:
            problems.append(
                Problem(f"no program {spec.python!r} in PATH", ("python",), hint="write its whole path")
            )
        return found
    # A virtual environment's python is a link that must not be followed: its place says which environment it
    # is.
    python = absolute(spec.python, folder)
    if not (Path(python).is_file() and os.access(python, os.X_OK)):
        problems.append(
            Problem(
                f"{python} is not a program", ("python",), hint="name the interpreter, as in .venv/bin/python"
            )
        )
    return python


def _env_file(spec: JobSpec, folder: Path, trust: TrustPolicy | None, problems: list[Problem]) -> str | None:
    if spec.env_file is None:
        return None
    env_file = absolute(spec.env_file, folder)
    _judge_secret(env_file, folder, trust, ("env_file",), problems)
    return env_file


def _judge_secret(
    file: str, folder: Path, trust: TrustPolicy | None, place: FieldPath, problems: list[Problem]
) -> None:
    """Note what keeps a file of secrets from being used."""
    problem: str | None = None
    hint: str | None = None
    try:
        status = Path(file).stat()
        if not stat.S_ISREG(status.st_mode):
            problem = f"{file} is not a file"
        else:
            if trust is not None:
                trust.judge(Path(file), status, is_copied_to=folder)
            reader = trust.supervisor_uid if trust is not None else _likely_supervisor(folder)
            problem, hint = why_not_secret(Path(file), reader) or (None, None)
    except UntrustedError as error:
        problem, hint = error.message, error.hint
    except OSError as error:
        problem = f"cannot look at {file}: {error.strerror}"
    if problem:
        problems.append(Problem(problem, place, hint=hint))


def _hooks(
    spec: JobSpec, name: str, folder: Path, *, trust: TrustPolicy | None, problems: list[Problem]
) -> tuple[Hook, ...]:
    hooks = tuple(
        section.in_folder(folder).hook(f"{name}#{number}", starts_in=str(folder))
        for number, section in enumerate(spec.notify, start=1)
    )
    for index, hook in enumerate(hooks):
        if hook.url_file is not None:
            _judge_secret(hook.url_file, folder, trust, ("notify", index, "webhook_file"), problems)
    return hooks


def _likely_supervisor(folder: Path) -> int | None:
    """Return whose jobs the specs of a folder are, None for those of root: they may be another user's."""
    return owner_of(folder) or None


def spoken_of(spec: CheckpointSpec) -> tuple[str, ...]:
    """Return the variables for what the spec itself says about checkpoints.

    On the rest the script has its say.
    """
    said = spec.model_fields_set
    every = spec.every.model_fields_set if spec.every is not None else ()
    spoken = {
        environment.EVERY_STEPS: "steps" in every,
        environment.EVERY_SECONDS: "seconds" in every,
        environment.EVERY_EPOCHS: "epochs" in every,
        environment.AUTO: "every"
        in said,  # an interval in the spec also overrules an automatic one in the script
        environment.AT_START: "at_start" in said,
        environment.KEEP_LAST: "keep_last" in said,
        environment.KEEP_BEST: "keep_best" in said,
        environment.KEEP_EVERY: "keep_every" in said,
        environment.MIRROR: "mirror" in said,
        environment.MEMORY: "memory" in said,
    }
    return tuple(name for name, is_spoken_of in spoken.items() if is_spoken_of)


def _checkpoint_policy(spec: CheckpointSpec) -> CheckpointPolicy:
    if spec.every is None:
        every = Cadence(auto=True, at_start=spec.at_start)
    else:
        every = Cadence(spec.every.steps, spec.every.seconds, spec.every.epochs, at_start=spec.at_start)
    keep_every = spec.keep_every
    return CheckpointPolicy(
        every=every,
        keep=RetentionPolicy(
            keep_last=spec.keep_last,
            keep_best=tuple(KeepBest(rule.metric, rule.n, rule.mode, rule.on_tie) for rule in spec.keep_best),
            keep_every=KeepEvery(keep_every.steps, keep_every.seconds, keep_every.epochs)
            if keep_every
            else None,
        ),
        mirror=MirrorPolicy(spec.mirror, spec.mirror_bandwidth) if spec.mirror is not None else None,
        memory=spec.memory,
    )
