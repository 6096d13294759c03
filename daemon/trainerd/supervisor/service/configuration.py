"""The configuration of a supervisor: `trainerd run --config FILE`, a page of TOML. Every field has a default.

As strict as a spec: what is unknown, of another kind or out of range is an error that names file, line, field
and the way to fix it, and nothing starts.
"""

from __future__ import annotations

import grp
import json
import logging
import os
import re
import stat
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from trainerd.contract.hooks import Hook
from trainerd.contract.records import RANK_LOG_BYTES_MAX, RANK_LOG_COPIES
from trainerd.contract.secret_file import why_not_secret
from trainerd.errors import UserError
from trainerd.supervisor.notices.delivery import MailServer
from trainerd.supervisor.service.notify_sections import DiskSection, SmtpSection
from trainerd.supervisor.service.preemption_section import PreemptionSection, sources_alone
from trainerd.supervisor.specs.document import BYTES_MAX, kind_name
from trainerd.supervisor.specs.explanation import models_in, problems_of
from trainerd.supervisor.specs.fields import Count, Duration, Name, Size, SomeDuration, Text
from trainerd.supervisor.specs.hook_fields import HookSection
from trainerd.supervisor.specs.problems import Problem, ProblemsError, spec_error
from trainerd.supervisor.specs.section import Section
from trainerd.supervisor.specs.toml_document import parse_toml

GPU_INDEX_MAX: Final = 1023

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}


def _gpus(value: Any) -> Any:
    """Take a number of GPUs for the first so many indices."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= GPU_INDEX_MAX + 1:
            raise ValueError(f"must be between 0 and {GPU_INDEX_MAX + 1}, not {value}")
        return list(range(value))
    if not isinstance(value, list):
        raise ValueError(f"expected a number of GPUs or a list of their indices, not {kind_name(value)}")  # noqa: TRY004
    return value


def _distinct(value: list[int]) -> list[int]:
    if len(set(value)) < len(value):
        raise ValueError("an index is named twice")
    return value


def _existing_group(value: str) -> str:
    try:
        grp.getgrnam(value)
    except KeyError:
        raise ValueError(f"there is no group {value!r}; `groupadd --system {value}` makes it") from None
    return value


GpuIndex = Annotated[int, Field(ge=0, le=GPU_INDEX_MAX)]


class LimitsSection(Section):
    """What all jobs together may occupy."""

    max_jobs: Count | None = Field(
        None, description="Number of jobs that run at once; if absent, as many as fit."
    )
    cpus: Annotated[float, Field(gt=0, le=65536)] | None = Field(
        None, description="CPU cores for jobs; if absent, those that the supervisor may use."
    )
    memory: Size | None = Field(
        None, description="Memory for jobs, with its unit; if absent, that of the machine."
    )
    gpus: Annotated[list[GpuIndex], BeforeValidator(_gpus), AfterValidator(_distinct)] | None = Field(
        None,
        description="Number of GPUs for jobs, or a list of their indices; if absent, those that are found.",
    )


class StopSection(Section):
    """How the supervisor leaves when it is asked to."""

    limit: SomeDuration | None = Field(
        None,
        description="Total time for a stop, such as the notice that a provider gives, or "
        "TimeoutStopSec of a unit that cannot be extended. If absent, the grace "
        "periods of the jobs count.",
    )
    margin: Duration = Field(
        30.0,
        description="Time after the last grace period for which the supervisor waits for shims "
        "before it exits without them.",
    )
    hurry: SomeDuration = Field(
        10.0, description="Time from a second request to stop until the ranks are killed."
    )


class LogSection(Section):
    """The supervisor's own log, `logs/trainerd.jsonl` in the state folder, and the logs of the ranks."""

    level: Literal["debug", "info", "warning"] = Field("info", description="Lowest level that is written.")
    file_size: Size = Field(32 * 1024**2, description="Size at which the log file is rotated.")
    files: Annotated[int, Field(ge=1, le=1000)] = Field(
        5, description="Number of log files, including the current file."
    )
    rank_size: Size = Field(
        RANK_LOG_BYTES_MAX,
        description="Size at which the log of a rank is rotated, from its next attempt on.",
    )
    rank_copies: Annotated[int, Field(ge=0, le=1000)] = Field(
        RANK_LOG_COPIES,
        description="Number of rotated logs that are kept for each rank; with 0 a full log is emptied.",
    )

    @property
    def level_number(self) -> int:
        """The level, as `logging` has it."""
        return _LEVELS[self.level]


class SocketSection(Section):
    """Who may talk to the supervisor. Its own user and root always may."""

    mode: Literal["0600", "0660"] = Field("0600", description="Mode of the socket.")
    group: Annotated[Text, AfterValidator(_existing_group)] | None = Field(
        None, description="Group whose members may use the socket too; needs the mode 0660."
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.group is not None) != (self.mode == "0660"):
            raise ValueError('mode = "0660" and group = "NAME" go together: write both, or neither')
        return self

    @property
    def group_id(self) -> int | None:
        """The group's number, None if there is none."""
        return None if self.group is None else grp.getgrnam(self.group).gr_gid


class CgroupsSection(Section):
    """What an attempt gets of cgroups, where some are to be had (`trainerd doctor` says whether)."""

    use: bool = Field(True, description="Whether each attempt has a cgroup of its own.")
    limit_memory: bool = Field(
        True,
        description="Whether the kernel ends an attempt that exceeds its `resources.memory`.",
    )


class Configuration(Section):
    """All of it."""

    limits: LimitsSection = LimitsSection()  # type: ignore[call-arg] # every field has a default
    cgroups: CgroupsSection = CgroupsSection()  # type: ignore[call-arg] # every field has a default
    stop: StopSection = StopSection()  # type: ignore[call-arg] # every field has a default
    log: LogSection = LogSection()  # type: ignore[call-arg] # every field has a default
    socket: SocketSection = SocketSection()  # type: ignore[call-arg] # every field has a default
    notify: dict[Name, HookSection] = Field({}, description="Hooks, each with a name.")
    smtp: SmtpSection | None = None
    disk: DiskSection = DiskSection()  # type: ignore[call-arg] # every field has a default
    preemption: Annotated[PreemptionSection, BeforeValidator(sources_alone)] = PreemptionSection()  # type: ignore[call-arg] # every field has a default

    @model_validator(mode="after")
    def _has_a_mail_server(self) -> Self:
        by_mail = [name for name, hook in self.notify.items() if hook.kind == "email"]
        if by_mail and self.smtp is None:
            raise ValueError(f"the hook {by_mail[0]!r} sends email: add the section [smtp]")
        return self

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """The hooks, by the order in which they are written."""
        return tuple(section.hook(name) for name, section in self.notify.items())

    @property
    def mail(self) -> MailServer | None:
        """The mail server, None if there is none."""
        return self.smtp.server if self.smtp is not None else None

    @property
    def holds_secrets(self) -> bool:
        """Whether the file holds a secret itself instead of naming a file with it."""
        has_url = any(hook.webhook is not None for hook in self.notify.values())
        return has_url or (self.smtp is not None and self.smtp.password is not None)


def load_configuration(path: Path | None) -> Configuration:
    """Read a configuration.

    Args:
        path: The file; None is all defaults.

    Raises:
        SpecError: It is not valid; the message names file, line and field of everything that is wrong.
        UserError: It cannot be read, or others could have written it.
    """
    if path is None:
        return Configuration()  # type: ignore[call-arg] # every field has a default
    document = None
    try:
        document = parse_toml(_text(path))
        found = Configuration.model_validate(document.root)
    except ValidationError as error:
        assert document is not None
        raise spec_error(path, problems_of(error, document, Configuration)) from None
    except ProblemsError as error:
        raise spec_error(path, error.problems) from None
    found = _with_absolute_paths(found, path.absolute().parent)
    _judge_secrets(found, path)
    return found


def _with_absolute_paths(found: Configuration, folder: Path) -> Configuration:
    """Return a configuration whose paths do not depend on where the supervisor was started."""
    hooks = {name: hook.in_folder(folder) for name, hook in found.notify.items()}
    smtp = found.smtp.in_folder(folder) if found.smtp is not None else None
    update = {"notify": hooks, "smtp": smtp, "preemption": found.preemption.in_folder(folder)}
    return found.model_copy(update=update)


def _judge_secrets(configuration: Configuration, path: Path) -> None:
    """Refuse secrets in files that others may read.

    Raises:
        UserError: The message says how to close the file.
    """
    files = [path] if configuration.holds_secrets else []
    files += [Path(hook.url_file) for hook in configuration.hooks if hook.url_file is not None]
    mail = configuration.mail
    files += [Path(mail.password_file)] if mail is not None and mail.password_file is not None else []
    for file in files:
        try:
            problem = why_not_secret(file, os.geteuid())
        except OSError as error:
            raise UserError(
                f"cannot look at {file}, which {path} names: {error.strerror}",
                hint="put the secret there, and chmod 600",
            ) from error
        if problem is not None:
            raise UserError(problem[0], hint=problem[1])


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{path} is not a file", hint="name a TOML file with --config")
            data = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}", hint="name a TOML file that this user can read"
        ) from error
    if status.st_mode & stat.S_IWOTH:
        raise UserError(f"{path} can be written by all users", hint=f"chmod o-w {path}")
    if len(data) > BYTES_MAX:
        raise ProblemsError(
            Problem(f"the file is larger than {BYTES_MAX} bytes", hint="it is a page of text")
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProblemsError(Problem("the file is not UTF-8 text", hint="save it as UTF-8")) from error


BEGIN: Final = "<!-- fields: generated from the model; do not edit by hand -->"
END: Final = "<!-- end of fields -->"


def field_table() -> str:
    """Return the table of all fields for `docs/configuration.md`."""
    rows = ["| field | default | meaning |", "|---|---|---|"]
    for section, info in Configuration.model_fields.items():
        (model,) = models_in(info.annotation)
        place = f"{section}.NAME" if model is HookSection else section
        for name, field in model.model_fields.items():
            if field.is_required():
                default = "required"
            else:
                default = "" if field.default in (None, []) else f"`{_written(name, field.default)}`"
            rows.append(f"| `{place}.{name}` | {default} | {field.description} |")
    return "\n".join(rows)


def _written(name: str, default: object) -> str:
    if name in {"file_size", "rank_size", "low"}:
        return f'"{int(str(default)) // 1024**2}MiB"'
    if isinstance(default, list):
        return json.dumps(default)
    if isinstance(default, bool):
        return str(default).lower()
    return f'"{default}"' if isinstance(default, str) else re.sub(r"\.0$", "", str(default))
