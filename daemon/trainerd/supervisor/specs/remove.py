"""Remove the specs of jobs from the jobs folder: all of them are found before the first is removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.contract.durable import sync_directory
from trainerd.contract.failpoints import declare
from trainerd.errors import UserError
from trainerd.supervisor.specs.jobs_dir import locked, specs_of, translated

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SPEC_REMOVED = declare(
    "spec.removed", "some specs removed, and the others unchanged; removing them again completes it"
)


def remove_specs(names: Sequence[str], jobs_dir: Path) -> tuple[Path, ...]:
    """Remove every file that gives one of the jobs; durable when this returns. Return which.

    If two files claim one name both go: the second would take the name over. A link is removed, not its
    target.

    Raises:
        UserError: One of the jobs has no spec here, or the folder is not writable; then nothing was removed.
        LockedError: Another process is changing the folder.
    """
    with locked(jobs_dir), translated(jobs_dir):
        found = {name: specs_of(name, jobs_dir) for name in names}
        for name, paths in found.items():
            if not paths:
                raise UserError(
                    f"there is no spec of {name!r} in {jobs_dir}",
                    hint="if its spec is a folder or in the middle of being removed, look there",
                )
        removed = [path for paths in found.values() for path in paths]
        for path in removed:
            path.unlink(missing_ok=True)
            SPEC_REMOVED.hit()
        sync_directory(jobs_dir)
    return tuple(removed)
