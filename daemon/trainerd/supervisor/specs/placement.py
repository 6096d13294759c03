"""Put a spec into the jobs folder.

Checked first, complete or not at all, and never over another job's spec.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract.durable import sync_directory, write_file
from trainerd.contract.failpoints import declare
from trainerd.contract.folder_owner import acting_as_owner_of
from trainerd.contract.names import check_name
from trainerd.errors import SpecError, UserError
from trainerd.supervisor.specs.jobs_dir import locked, specs_of, translated
from trainerd.supervisor.specs.load import parse_spec, read_bytes
from trainerd.supervisor.specs.resolve import absolute
from trainerd.supervisor.specs.rewrite import with_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.supervisor.specs.model import JobSpec

SPEC_PLACED = declare(
    "spec.placed",
    "the new spec, and after a replacement perhaps the old one of another ending; the next one removes it",
)

_PATH_FIELDS: Final = ("workdir", "python", "env_file")
_MODE_MAX: Final = 0o644


@dataclass(frozen=True)
class Placement:
    """What placing a spec would do.

    Attributes:
        name: Of the job.
        target: Where the spec would be.
        data: What would be written there.
        mode: Permissions of a new file, before the umask.
        changes: A sentence for each change to the text.
        is_needed: False if the spec is in the jobs folder already.
    """

    name: str
    target: Path
    data: bytes
    mode: int
    changes: tuple[str, ...] = ()
    is_needed: bool = True


def place_spec(
    source: Path, jobs_dir: Path, *, replace: bool, say: Callable[[str], None] = lambda _: None
) -> Path:
    """Copy a spec into the jobs folder, atomically and durably, as ``NAME.yaml`` (or the ending that it has).

    A relative path in it that leads somewhere from where the spec is now is made absolute, so that it means
    the same after the move; one that leads somewhere only from the jobs folder is left as it is.

    Args:
        source: The spec.
        jobs_dir: The jobs folder of a supervisor.
        replace: Whether to take the place of a spec that gives the same job.
        say: Told, in a sentence, of every change made to the text.

    Returns:
        Where the spec is now.

    Raises:
        SpecError: It would not be accepted.
        UserError: The job exists and `replace` is false, or the folder is not there or not writable.
        SpaceError: The disk is full or read-only.
    """
    placement = plan_placement(source, jobs_dir)
    target, data, name = placement.target, placement.data, placement.name
    if not placement.is_needed:
        return target
    for sentence in placement.changes:
        say(sentence)
    jobs_dir = target.parent
    # A spec of root's that only root may read would be one that the supervisor cannot.
    with acting_as_owner_of(jobs_dir), locked(jobs_dir):
        others = specs_of(name, jobs_dir)
        if others and not replace:
            raise UserError(
                f"there is already a job {name!r}: {others[0]}",
                hint="replace it with --replace, or give this one another name",
            )
        if target.is_dir() and not target.is_symlink():
            raise UserError(f"{target} is a folder", hint="move it out of the way")
        if target.is_symlink():
            raise UserError(
                f"{target} is a link", hint=f"change {target.resolve()} instead, or remove the link"
            )
        with translated(jobs_dir):
            write_file(target, data, mode=placement.mode)
            SPEC_PLACED.hit()
            for other in others:
                if other != target:
                    other.unlink(missing_ok=True)
                    sync_directory(jobs_dir)
                    say(f"removed {other}, which gave the same job")
    return target


def plan_placement(source: Path, jobs_dir: Path) -> Placement:
    """Check a spec as `place_spec` would, and say what that would write. Writes nothing.

    Raises:
        SpecError: It would not be accepted.
    """
    source = Path(os.path.abspath(source))  # noqa: PTH100 (links are kept)
    jobs_dir = Path(os.path.abspath(jobs_dir))  # noqa: PTH100 (as above)
    data, status = _read(source)
    parsed = parse_spec(source, data)
    name = parsed.spec.name or _name_of(source)
    mode = stat.S_IMODE(status.st_mode) & _MODE_MAX | stat.S_IWUSR
    if source.parent == jobs_dir:
        parsed.resolve(None)
        return Placement(name, source, data, mode, is_needed=False)
    changes = _moved_paths(parsed.spec, source, jobs_dir)
    data = _with_changes(data, changes, source)
    target = jobs_dir / f"{name}{source.suffix.lower()}"
    parse_spec(target, data).resolve(None)
    sentences = [
        f"{field} is now {value}, because the spec moves and relative paths begin at its folder"
        for field, value in changes.items()
    ]
    return Placement(name, target, data, mode, tuple(sentences))


def _read(source: Path) -> tuple[bytes, os.stat_result]:
    try:
        return read_bytes(source, None)
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", file=source) from error


def _name_of(source: Path) -> str:
    try:
        return check_name(source.stem)
    except UserError as error:
        raise SpecError(
            f"the file's name cannot name the job: {error.message}",
            file=source,
            hint="rename the file, or add a field name",
        ) from error


def _moved_paths(spec: JobSpec, source: Path, jobs_dir: Path) -> dict[str, str]:
    """Return the fields whose relative paths the move would break, and the absolute paths to use instead."""
    changes = {}
    for field in _PATH_FIELDS:
        text = getattr(spec, field)
        if text is None or (field == "python" and "/" not in text) or text[0] in "/~":
            continue
        here = absolute(text, source.parent)
        if Path(here).exists():
            changes[field] = here
        elif not Path(absolute(text, jobs_dir)).exists():
            raise SpecError(
                f"{text!r} exists neither in {source.parent} nor in {jobs_dir}",
                file=source,
                field=field,
                hint="a relative path begins at the spec's folder; or write an absolute one",
            )
    return changes


def _with_changes(data: bytes, changes: dict[str, str], source: Path) -> bytes:
    if not changes:
        return data
    text = with_fields(data.decode("utf-8-sig"), source.suffix.lower(), changes)
    if text is None:
        field, value = next(iter(changes.items()))
        raise SpecError(
            "is relative to this folder, and the spec is about to move",
            file=source,
            field=field,
            hint=f"write the absolute path: {value}",
        )
    return text.encode()
