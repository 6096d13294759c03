"""Which node of a job this is and where the ranks of all nodes meet: from flags and from the engine.

Pure, and total: a contradiction between the flags and the engine is refused, and so is an engine that has
started one job several times where each start would train alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

PORT_FIRST: Final = 10_000
PORTS: Final = 20_000
"""Under Slurm the port follows from the job's number: below the ports that the kernel gives to clients."""

_TASKS: Final = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
"""Where srun and the launchers of MPI say how many processes they have started with one command."""

_INTERACTIVE: Final = frozenset({"bash", "interactive"})
"""Names that Slurm gives to a job in which a person types: what is started there is started once."""

_HOW: Final = "start it once on each node, as `srun --ntasks-per-node=1` does, and set `nproc` in the spec"


@dataclass(frozen=True)
class Place:
    """One node of several.

    Attributes:
        nodes: How many nodes the job has, at least 2.
        node: Number of this node, from 0.
        address: Host of node 0, at which the ranks meet.
        port: Port there.
    """

    nodes: int
    node: int
    address: str
    port: int


def place_of(
    environ: Mapping[str, str],
    *,
    nodes: int | None = None,
    node: int | None = None,
    rendezvous: str | None = None,
) -> Place | None:
    """Return which node this is; None if the job has one node.

    Args:
        environ: What an engine has said: Slurm, or an Indexed Job of Kubernetes.
        nodes: How many nodes there are, if the user says it.
        node: Which one this is, likewise.
        rendezvous: HOST:PORT of node 0, likewise.

    Raises:
        UserError: Something is missing, out of range, or contradicts what the engine says.
    """
    step = _number(environ, "SLURM_STEP_NUM_NODES")
    tasks = _number(environ, "SLURM_STEP_NUM_TASKS")
    if nodes is None and step is not None and tasks is not None and tasks > step:
        raise UserError(f"srun has started {tasks} tasks on {step} node(s), each with this job", hint=_HOW)
    if nodes is None and step is None and (_number(environ, "SLURM_JOB_NUM_NODES") or 1) > 1:
        raise UserError(
            f"Slurm has given this job {environ['SLURM_JOB_NUM_NODES']} nodes, and this is started on one",
            hint=f"{_HOW}; or use one node alone: --nnodes 1",
        )
    if nodes is not None and nodes > 1 and step is not None and (step, tasks) != (nodes, nodes):
        raise UserError(f"--nnodes {nodes}, and srun has started {tasks} tasks on {step} node(s)", hint=_HOW)
    count = nodes if nodes is not None else step or 1
    if count == 1:
        if node or rendezvous is not None:
            raise UserError("--node-rank and --rendezvous are of several nodes: --nnodes is missing, or 1")
        return None
    address, port = _rendezvous(environ, rendezvous)
    return Place(count, _node(environ, node, count), address, port)


def refuse_as_one_of_many(environ: Mapping[str, str]) -> None:
    """Refuse a program that a launcher has started several times without telling each which rank it is.

    Args:
        environ: Environment of a program that takes itself for the only rank.

    Raises:
        UserError: Each of the processes would train alone, all of them on one run.
    """
    if environ.get("WORLD_SIZE") or environ.get("SLURM_JOB_NAME") in _INTERACTIVE:
        return
    for name in _TASKS:
        count = environ.get(name, "")
        if count.isascii() and count.isdigit() and int(count) > 1:
            raise UserError(
                f"{name}={count}: {count} processes were started, and each would train alone, as WORLD_SIZE "
                "is not set",
                hint="start `trainerd exec` once on each node, or set RANK, WORLD_SIZE and their like "
                "(docs/engines.md); WORLD_SIZE=1 if each is a run of its own",
            )


def first_host(node_list: str) -> str:
    """Return the first host of a list as Slurm writes it: ``gpu[07-09,12],login1`` begins with ``gpu07``."""
    host, rest = "", node_list
    while rest and rest[0] != ",":
        if rest[0] == "[":
            inside, _, rest = rest[1:].partition("]")
            host += inside.partition(",")[0].partition("-")[0]
        else:
            host, rest = host + rest[0], rest[1:]
    return host


def _node(environ: Mapping[str, str], given: int | None, nodes: int) -> int:
    name = "SLURM_NODEID" if "SLURM_STEP_NUM_NODES" in environ else "JOB_COMPLETION_INDEX"
    said = _number(environ, name)
    if given is None and said is None:
        raise UserError(
            f"--nnodes {nodes}, and which node this is is not known",
            hint="give each node its number from 0: --node-rank",
        )
    if None not in {given, said} and given != said:
        raise UserError(f"--node-rank {given}, and {name}={said}", hint="leave --node-rank out")
    node = said if given is None else given
    assert node is not None, "one of the two is there"
    if not 0 <= node < nodes:
        where = "--node-rank" if given is not None else name
        raise UserError(f"{where} {node} is out of range: {nodes} nodes have the numbers 0 to {nodes - 1}")
    return node


def _rendezvous(environ: Mapping[str, str], given: str | None) -> tuple[str, int]:
    if given is not None:
        host, _, port = given.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
            raise UserError(f"--rendezvous {given!r:.200} is not HOST:PORT, such as node1:29400")
        return host, int(port)
    node_list = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "")
    job = _number(environ, "SLURM_JOB_ID")
    if not node_list or job is None:
        raise UserError(
            "it is not known where the ranks of all nodes meet",
            hint="give every node the host of node 0 and a free port there: --rendezvous HOST:PORT",
        )
    return first_host(node_list), PORT_FIRST + job % PORTS


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"{name}={text!r:.80} is not a number")
    return int(text)
