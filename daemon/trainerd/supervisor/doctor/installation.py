"""The installation: the systemd unit, and what the jobs' interpreters can import."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Final

from trainerd.supervisor.doctor.asked_programs import output_of
from trainerd.supervisor.doctor.finding import broken, ok, skipped, warning
from trainerd.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from trainerd.contract.resolved import ResolvedJob
    from trainerd.supervisor.doctor.finding import Finding

UNIT: Final = "trainerd.service"

_PROPERTIES: Final = ("LoadState", "ActiveState", "Type", "KillMode", "Delegate", "NeedDaemonReload")

_ASK: Final = """
import importlib.metadata, importlib.util, json
found = {}
for name in ("trainerd", "torch"):
    if importlib.util.find_spec(name) is None:
        found[name] = None
        continue
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found[name] = "of unknown version"
print(json.dumps(found))
"""


def check_unit() -> Iterator[Finding]:
    """Look at the systemd unit, where systemd runs."""
    program = shutil.which("systemctl")
    if program is None:
        yield skipped("systemd unit", "there is no systemctl here")
        return
    shown = output_of([program, "show", UNIT, f"--property={','.join(_PROPERTIES)}"])
    if shown is None:
        yield skipped("systemd unit", "systemd does not answer here")
        return
    yield from judge_unit(dict(line.split("=", 1) for line in shown.splitlines() if "=" in line))


def judge_unit(properties: Mapping[str, str]) -> Iterator[Finding]:
    """Judge what ``systemctl show`` says of the unit."""
    if properties.get("LoadState") != "loaded":
        yield skipped("systemd unit", f"{UNIT} is not installed (systemd/README.md says how)")
        return
    yield ok("systemd unit", f"{UNIT} is {properties.get('ActiveState', 'unknown')}")
    edit = f"sudo systemctl edit {UNIT}"
    if properties.get("KillMode") != "process":
        yield broken(
            "systemd unit",
            f"KillMode={properties.get('KillMode')}: systemd kills the jobs with the supervisor",
            f"{edit}, and there under [Service]: KillMode=process",
        )
    if properties.get("Delegate") == "no":
        yield broken(
            "systemd unit",
            "Delegate=no: processes that a job leaves behind cannot be told apart by their cgroup",
            f"{edit}, and there under [Service]: Delegate=yes",
        )
    if not properties.get("Type", "notify").startswith("notify"):
        yield warning(
            "systemd unit",
            f"Type={properties['Type']}: systemd does not know when the supervisor is ready or drains",
            f"{edit}, and there under [Service]: Type=notify",
        )
    if properties.get("NeedDaemonReload") == "yes":
        yield warning(
            "systemd unit", "its file has changed since it was read", "sudo systemctl daemon-reload"
        )


def check_interpreters(jobs: Iterable[ResolvedJob], uid: int | None = None) -> Iterator[Finding]:
    """Ask each interpreter that a job uses what it could import, without importing it.

    Args:
        jobs: The jobs.
        uid: As whom the interpreters are started by root: they are the user's choice; None is this user.
    """
    users: dict[str, list[str]] = {}
    for job in jobs:
        if job.command and job.command[0] == "python":
            users.setdefault(job.python or sys.executable, []).append(job.name)
    if not users:
        yield skipped("torch", "no spec runs `python`")
    for python, names in sorted(users.items()):
        whose = f"{python} (of {', '.join(names[:3])}{' …' if len(names) > 3 else ''})"
        shown = output_of([python, "-c", _ASK], uid)
        if shown is None:
            yield broken(
                "torch", f"{whose} does not run", "repair the environment, or correct the field python"
            )
            continue
        yield judge_interpreter(whose, python, json.loads(shown))


def judge_interpreter(whose: str, python: str, found: Mapping[str, str | None]) -> Finding:
    """Judge which packages an interpreter has."""
    missing = [name for name, version in found.items() if version is None]
    if missing:
        wanted = " ".join("'trainerd[torch]'" if name == "trainerd" else name for name in missing)
        return warning(
            "torch", f"{whose} has no {' and no '.join(missing)}", f"{python} -m pip install {wanted}"
        )
    if found.get("trainerd") not in {VERSION, "of unknown version"}:
        return ok(
            "torch", f"{whose} has torch {found['torch']}, and trainerd {found['trainerd']} (here: {VERSION})"
        )
    return ok("torch", f"{whose} has torch {found['torch']}")
