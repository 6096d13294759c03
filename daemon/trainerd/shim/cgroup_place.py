"""Where the cgroup of an attempt may be made: told from what /proc says, pure, and looked at in one place.

A cgroup is made beside the supervisor and nowhere else: below the cgroup that this process is in, so that it
stays within what was delegated to it, and within its limits. It has to be mounted, to be seen, and to be ours
to write. Version 2 is taken where there is one, as on a hybrid machine; systemd's own hierarchy of version 1
otherwise.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

SUPERVISOR_LEAF: Final = "supervisor"
"""Name of the cgroup in which a supervisor sits while the attempts have theirs beside it, not below it."""

_TREE_OF_SYSTEMD: Final = "name=systemd"
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Places:
    """Below which folders cgroups may be made.

    Attributes:
        tree: For the processes of an attempt; None if nowhere.
        memory: For their memory alone, where that is counted in a hierarchy of its own (version 1); None if
            it is not.
        why_not: Why `tree` is None.
        why_no_memory: Why `memory` is None, though memory is counted in a hierarchy of its own.
    """

    tree: Path | None = None
    memory: Path | None = None
    why_not: str = ""
    why_no_memory: str = ""


def places(membership: str, mountinfo: str) -> Places:
    """Return where cgroups may be made, as far as /proc tells.

    Args:
        membership: Text of ``/proc/PID/cgroup``.
        mountinfo: Text of ``/proc/PID/mountinfo``.
    """
    paths = _paths_by_hierarchy(membership)
    mounts = list(_mounts(mountinfo))
    tree, why_not = _folder(paths, mounts, "")
    if tree is None and _TREE_OF_SYSTEMD in paths:
        tree, why_not = _folder(paths, mounts, _TREE_OF_SYSTEMD)
    if tree is not None and tree.name == SUPERVISOR_LEAF:
        tree = tree.parent
    memory, why_no_memory = _folder(paths, mounts, "memory") if "memory" in paths else (None, "")
    return Places(tree, memory, "" if tree is not None else why_not, why_no_memory)


def find_places(process: str = "self") -> Places:
    """Return where a process may make cgroups now, as seen by the caller, whose rights count."""
    try:
        membership = Path(f"/proc/{process}/cgroup").read_text("utf-8", "surrogateescape")
        mountinfo = Path(f"/proc/{process}/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError as error:
        return Places(why_not=f"/proc does not tell about cgroups: {error.strerror}")
    found = places(membership, mountinfo)
    if found.tree is not None and not _is_ours(found.tree):
        found = replace(
            found, tree=None, why_not=f"{found.tree} may not be written: it is not delegated to us"
        )
    if found.memory is not None and not _is_ours(found.memory):
        found = replace(found, memory=None, why_no_memory=f"{found.memory} may not be written")
    return found


def _is_ours(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK) and os.access(folder / "cgroup.procs", os.W_OK)


def _paths_by_hierarchy(membership: str) -> dict[str, str]:
    """Return the path of the cgroup by controller, version 2 under the empty name."""
    paths = {}
    for line in membership.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number.isdigit() and path.startswith("/"):
            paths.update(dict.fromkeys(controllers.split(","), path))
    return paths


@dataclass(frozen=True)
class _Mount:
    """A cgroup filesystem: `names` are its controllers, the empty one alone for version 2."""

    point: Path
    root: str
    names: frozenset[str]
    is_writable: bool


def _mounts(mountinfo: str) -> Iterator[_Mount]:
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        fields, about = left.split(" "), right.split(" ")
        if not separator or len(fields) < 6 or len(about) < 3 or about[0] not in {"cgroup", "cgroup2"}:
            continue
        options = set(fields[5].split(",")) | set(about[2].split(","))
        names = frozenset({""}) if about[0] == "cgroup2" else frozenset(about[2].split(","))
        yield _Mount(Path(_unescaped(fields[4])), _unescaped(fields[3]), names, "ro" not in options)


def _folder(paths: dict[str, str], mounts: list[_Mount], name: str) -> tuple[Path | None, str]:
    """Return the folder of a hierarchy's cgroup in the filesystem, or why there is none."""
    kind = f"of {name.removeprefix('name=')} (version 1)" if name else "of version 2"
    mounted = [mount for mount in mounts if name in mount.names]
    if name not in paths or not mounted:
        return None, f"no cgroup hierarchy {kind} is mounted"
    seen = [mount for mount in mounted if _is_below(paths[name], mount.root)]
    if not seen:
        return None, f"the cgroup {paths[name]} {kind} cannot be seen from here, as in some containers"
    writable = [mount for mount in seen if mount.is_writable]
    if not writable:
        return None, f"{seen[0].point} is mounted read-only, as in most containers"
    relative = paths[name].removeprefix(writable[0].root.rstrip("/")).lstrip("/")
    return writable[0].point / relative, ""


def _is_below(path: str, root: str) -> bool:
    """Return whether a mount with this root shows the path.

    One that leads out of the namespace is shown by none.
    """
    if ".." in path.split("/") or ".." in root.split("/"):
        return False
    return root in {"/", path} or path.startswith(f"{root}/")


def _unescaped(field: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), field)
