"""Before a GPU is given to the next job: no process of the attempt before holds it.

The shim has ended every descendant by then, so there is normally none. What is left is the odd process that
left its namespace, and the driver, which may still be freeing the memory of a process that is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.contract.environment import ATTEMPT_ID
from trainerd.contract.process import ProcessIdentity, identify
from trainerd.shim.process_table import carries

if TYPE_CHECKING:
    from collections.abc import Collection

    from trainerd.supervisor.attempt.gpus import Gpus

TEARDOWN_LIMIT_S: Final = 30.0
"""How long the driver may go on naming processes that are gone. Their numbers may be those of another
namespace."""


@dataclass(frozen=True)
class Holding:
    """Who of an attempt still holds a GPU.

    Attributes:
        living: Processes that can be ended.
        gone: Numbers of ranks that have ended and are still named by the driver.
    """

    living: tuple[ProcessIdentity, ...] = ()
    gone: tuple[int, ...] = ()


def who_holds(
    gpus: Gpus, indices: Collection[int], *, mark: str, ranks: Collection[ProcessIdentity]
) -> Holding:
    """Return who of an attempt holds one of its GPUs. Strangers are left out: their GPU is not ours to judge.

    Args:
        gpus: Of this machine.
        indices: Which were given to the attempt.
        mark: By which the attempt's processes are known.
        ranks: Who its ranks were.
    """
    entry = f"{ATTEMPT_ID}={mark}".encode()
    rank_pids = {rank.pid for rank in ranks}
    living, gone = [], []
    for pid in sorted({pid for index in indices for pid in gpus.holders(index)}):
        identity = identify(pid)
        if identity is None:
            gone += [pid] if pid in rank_pids else []
        elif identity in ranks or carries(pid, entry):
            living.append(identity)
    return Holding(tuple(living), tuple(gone))
