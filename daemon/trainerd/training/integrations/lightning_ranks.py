"""The ranks of a Lightning trainer are those of the session. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping


def check_ranks(rank: int, world_size: int, environ: Mapping[str, str]) -> None:
    """Check that a trainer and the environment of its process agree on the ranks.

    Args:
        rank: Rank of the process, as the trainer says.
        world_size: Number of ranks, as the trainer says.
        environ: The environment, from which the session has both.

    Raises:
        UserError: They do not. Each process would train alone, or take itself for rank 0.
    """
    started = environ.get("RANK", "0"), environ.get("WORLD_SIZE", "1")
    # Lightning sets WORLD_SIZE, and no RANK, for the ranks that it starts.
    is_named = world_size == 1 or "RANK" in environ
    if is_named and started == (str(rank), str(world_size)):
        return
    if world_size > 1:
        raise UserError(
            f"the Trainer has {world_size} ranks that Lightning starts itself, and the session takes this "
            f"process for rank {started[0]} of {started[1]}",
            hint=f"have the ranks started: nproc: {world_size} in the job spec, or torchrun --nproc-per-node "
            f"{world_size}",
        )
    raise UserError(
        f"{started[1]} ranks were started, and the Trainer of each trains alone",
        hint=f'Trainer(devices={started[1]}, strategy="ddp"), or start a single process',
    )
