"""Commands that take themselves for one on a host of their own: with its boot id, machine id and name."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

_AS_A_HOST = (
    "mount --bind boot-$1 /proc/sys/kernel/random/boot_id && mount --bind id-$1 /etc/machine-id"
    ' && shift && exec "$@"'
)


def has_host_namespaces() -> bool:
    """Tell whether this user may make namespaces of mounts and names, and there is an id to replace."""
    command = ["unshare", "-mu", "mount", "--bind", "/dev/null", "/etc/machine-id"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def as_host(folder: Path, host: str, command: Sequence[str], *, has_own_name: bool = True) -> list[str]:
    """Return a command that runs another one as on a host; to be started in `folder`.

    Args:
        folder: Where the ids of the host are kept.
        host: Its name.
        command: The command.
        has_own_name: Whether the host name is its own too, and not this machine's.
    """
    for name in ("boot", "id"):
        text = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name} {host}"))
        (folder / f"{name}-{host}").write_text(text if name == "boot" else text.replace("-", ""))
    script = f"hostname $1 && {_AS_A_HOST}" if has_own_name else _AS_A_HOST
    return ["unshare", "-mu" if has_own_name else "-m", "sh", "-c", script, "sh", host, *command]
