"""A Slurm cluster on this machine: a controller and nodes that are hosts of their own, with links to it.

It lives in namespaces and in one folder, and leaves neither processes nor files elsewhere. All hosts see the
filesystem of this machine, which is what a cluster shares.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Self

from tests.support.lab_hosts import Cable, LabHost, missing, search_path, why_no_hosts, write_hosts
from tests.support.waiting import wait_for

UP_LIMIT_S: Final = 60.0
"""How long the nodes may take to be idle."""

SILENT_NODE_S: Final = 10
"""After how many seconds without a sign the controller takes a node for dead."""

_PROGRAMS: Final = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "srun", "ip")
_LOOK_S: Final = 0.2
_CONTROLLER: Final = "10.200.0.1"
_CONFIGURATION: Final = """\
ClusterName=lab
SlurmctldHost=ctl({controller})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
MpiDefault=none
ReturnToService=2
SlurmdTimeout={silent_s}
KillWait=10
MinJobAge=3600
SchedulerParameters=sched_interval=5,bf_interval=5
NodeName=DEFAULT CPUs=2 RealMemory=4000
PartitionName=DEFAULT MaxTime=INFINITE State=UP
"""


def why_no_slurm() -> str:
    """Return why there can be no cluster here, empty if there can."""
    if os.geteuid() != 0:
        return "needs root"
    absent = missing(_PROGRAMS)
    return f"needs {', '.join(absent)} (slurm-wlm, munge, iproute2)" if absent else why_no_hosts()


class RealSlurm:
    """A running cluster, as a context manager.

    Args:
        folder: Where all of it lies; empty.
        partitions: The options of each; its nodes are those that `Nodes=` names.
        nodes: Their names.
    """

    def __init__(self, folder: Path, nodes: tuple[str, ...], partitions: Mapping[str, str]) -> None:
        self.folder = folder
        self._names = nodes
        self.nodes: dict[str, LabHost] = {}
        self.cables: dict[str, Cable] = {}
        self._address = {name: f"10.200.{number}.2" for number, name in enumerate(nodes, start=1)}
        text = _CONFIGURATION.format(controller=_CONTROLLER, folder=folder, silent_s=SILENT_NODE_S)
        text += "".join(f"NodeName={name} NodeAddr={self._address[name]}\n" for name in nodes)
        text += "".join(f"PartitionName={name} {options}\n" for name, options in partitions.items())
        (folder / "slurm.conf").write_text(text)
        (folder / "state").mkdir()
        (folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (folder / "munge.key").chmod(0o600)
        write_hosts(folder, {"ctl": _CONTROLLER} | self._address)
        self._controller = LabHost(folder, "ctl")

    def environment(self) -> dict[str, str]:
        """What the clients of the cluster need."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        return kept | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": search_path()}

    def ask(self, *words: str, cwd: Path | None = None) -> str:
        """Run a command beside the controller; return what it printed."""
        return self._controller.run(*words, cwd=cwd, env=self.environment(), limit_s=UP_LIMIT_S)

    def job(self, number: int) -> dict[str, str]:
        """Return what the controller says of a job, by the names that it gives."""
        said = self.ask("scontrol", "show", "job", "-o", str(number))
        return dict(re.findall(r"(\w+)=(\S*)", said))

    def wait_for(self, what: str, fact: Callable[[], object], limit_s: float) -> None:
        """Wait until a fact holds."""
        wait_for(fact, what, limit_s=limit_s, look_s=_LOOK_S, story=self.story)

    def node_states(self) -> dict[str, str]:
        """Return the state of each node."""
        return dict(line.split() for line in self.ask("sinfo", "-hN", "-o", "%N %T").splitlines())

    def boot(self, name: str) -> None:
        """Switch a node on: its host, its link and its slurmd."""
        host = self.nodes[name] = LabHost(self.folder, name)
        number = self._names.index(name) + 1
        ends = (f"10.200.{number}.1/24", f"10.200.{number}.2/24")
        self.cables[name] = Cable(self._controller, host, f"to-{name}", ends)
        host.run("ip", "route", "add", "default", "via", f"10.200.{number}.1")
        host.run("slurmd", "-N", name, env=self.environment())

    def story(self) -> str:
        """The end of the controller's log."""
        path = self.folder / "slurmctld.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-40:]) if path.exists() else ""

    def _start(self) -> None:
        control = self._controller
        control.run("ip", "address", "add", f"{_CONTROLLER}/32", "dev", "lo")
        control.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        files = {name: self.folder / f"munge{name}" for name in (".socket", ".pid", ".log", ".seed")}
        control.run(
            "munged",
            "--force",
            f"--key-file={self.folder / 'munge.key'}",
            f"--socket={files['.socket']}",
            f"--pid-file={files['.pid']}",
            f"--log-file={files['.log']}",
            f"--seed-file={files['.seed']}",
            env=self.environment(),
        )
        control.run("slurmctld", env=self.environment())
        for name in self._names:
            self.boot(name)
        self.wait_for(
            "all nodes are idle",
            lambda: set(self.node_states().values()) == {"idle"},
            UP_LIMIT_S,
        )

    def __enter__(self) -> Self:
        try:
            self._start()
        except (AssertionError, OSError, subprocess.SubprocessError):
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in (*self.nodes.values(), self._controller):
            host.power_off()
