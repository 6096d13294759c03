"""The configuration of a supervisor: `trainerd run --config FILE`, a page of TOML. Every field has a default.

As strict as a spec: what is unknown, of another kind or out of range is an error that names file, line, field
and the way to mend it, and nothing starts.
"""

from __future__ import annotations

import grp
import logging
import os
import re
import stat
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from trainerd.contract.records import RANK_LOG_BYTES_MAX, RANK_LOG_COPIES
from trainerd.errors import UserError
from trainerd.supervisor.specs.document import BYTES_MAX, kind_name
from trainerd.supervisor.specs.explanation import problems_of
from trainerd.supervisor.specs.fields import Count, Duration, Size, SomeDuration, Text
from trainerd.supervisor.specs.model import Section
from trainerd.supervisor.specs.problems import Problem, ProblemsError, spec_error
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

    max_jobs: Count | None = Field(None, description="Jobs that run at once; without it, as many as fit.")
    cpus: Annotated[float, Field(gt=0, le=65536)] | None = Field(
        None, description="CPU cores; without it, those that the supervisor may use."
    )
    memory: Size | None = Field(None, description="Memory, with its unit; without it, the machine's.")
    gpus: Annotated[list[GpuIndex], BeforeValidator(_gpus), AfterValidator(_distinct)] | None = Field(
        None, description="How many GPUs, or a list of their indices; without it, those that are found."
    )


class StopSection(Section):
    """How the supervisor leaves when it is asked to."""

    limit: SomeDuration | None = Field(
        None,
        description="All the time there is, such as TimeoutStopSec of a unit that cannot be extended, "
        "or the notice "
        "that a provider gives. Without it, the jobs' own grace periods count.",
    )
    margin: Duration = Field(
        30.0,
        description="How long after the last grace period shims are waited for before leaving without them.",
    )
    hurry: SomeDuration = Field(
        10.0, description="How long after a second request the ranks may take before they are killed."
    )


class LogSection(Section):
    """The supervisor's own log, `logs/trainerd.jsonl` in the state folder, and the logs of the ranks."""

    level: Literal["debug", "info", "warning"] = Field("info", description="The least that is written.")
    file_size: Size = Field(32 * 1024**2, description="Size at which the file is moved aside.")
    files: Annotated[int, Field(ge=1, le=1000)] = Field(5, description="How many files are kept in all.")
    rank_size: Size = Field(
        RANK_LOG_BYTES_MAX,
        description="Size at which the log of a rank is moved aside, from its next attempt on.",
    )
    rank_copies: Annotated[int, Field(ge=0, le=1000)] = Field(
        RANK_LOG_COPIES, description="How many of those are kept for each rank; with 0 a full log is emptied."
    )

    @property
    def level_number(self) -> int:
        """The level, as `logging` has it."""
        return _LEVELS[self.level]


class SocketSection(Section):
    """Who may talk to the supervisor. Its own user and root always may."""

    mode: Literal["0600", "0660"] = Field("0600", description="Mode of the socket.")
    group: Annotated[Text, AfterValidator(_existing_group)] | None = Field(
        None, description="Group whose members may talk to it too; needs the mode 0660."
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
        description="Whether an attempt that goes beyond its `resources.memory` is ended there by the "
        "kernel.",
    )


class Configuration(Section):
    """All of it."""

    limits: LimitsSection = LimitsSection()  # type: ignore[call-arg] # every field has a default
    cgroups: CgroupsSection = CgroupsSection()  # type: ignore[call-arg] # every field has a default
    stop: StopSection = StopSection()  # type: ignore[call-arg] # every field has a default
    log: LogSection = LogSection()  # type: ignore[call-arg] # every field has a default
    socket: SocketSection = SocketSection()  # type: ignore[call-arg] # every field has a default


def load_configuration(path: Path | None) -> Configuration:
    """Read a configuration.

    Args:
        path: The file; None is all defaults.

    Raises:
        SpecError: It is not valid; the message names file, line and field of everything that is wrong.
        UserError: It cannot be read, or others could have written it.
    """
    if path is None:
        return Configuration()
    document = None
    try:
        document = parse_toml(_text(path))
        return Configuration.model_validate(document.root)
    except ValidationError as error:
        assert document is not None
        raise spec_error(path, problems_of(error, document, Configuration)) from None
    except ProblemsError as error:
        raise spec_error(path, error.problems) from None


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
        raise UserError(f"{path} can be written by everybody", hint=f"chmod o-w {path}")
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
        model = info.annotation
        assert isinstance(model, type)
        assert issubclass(model, Section)
        for name, field in model.model_fields.items():
            default = "" if field.default is None else f"`{_written(name, field.default)}`"
            rows.append(f"| `{section}.{name}` | {default} | {field.description} |")
    return "\n".join(rows)


def _written(name: str, default: object) -> str:
    if name in {"file_size", "rank_size"}:
        return f'"{int(str(default)) // 1024**2}MiB"'
    if isinstance(default, bool):
        return str(default).lower()
    return f'"{default}"' if isinstance(default, str) else re.sub(r"\.0$", "", str(default))
