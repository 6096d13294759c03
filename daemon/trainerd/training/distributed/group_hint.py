"""A hint where a job has several ranks and its script makes no process group of all of them."""

from __future__ import annotations

import torch.distributed

from trainerd.training.interruption.leaving import say


def say_group_hint(*, rank: int, world_size: int) -> None:
    """Say it once a first step is done: until then a script may make its process group."""
    if world_size < 2 or rank != 0:
        return
    group_size = None
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        group_size = torch.distributed.get_world_size()
    hint = group_hint(world_size, group_size)
    if hint is not None:
        say(f"trainerd: {hint}")


def group_hint(world_size: int, group_size: int | None) -> str | None:
    """Return what is probably wrong, None if nothing is.

    Args:
        world_size: How many ranks were launched.
        group_size: How many are in the process group of this one; None if it has none.
    """
    if group_size is None:
        return (
            f"{world_size} ranks were started, and the first step is done without a process group: unless "
            "the script averages gradients itself, each rank trains a model of its own on its part of the "
            "batches. Call torch.distributed.init_process_group() and wrap the model in "
            "DistributedDataParallel, or remove `nproc` from the spec"
        )
    if group_size != world_size:
        return (
            f"{world_size} ranks were started, and the process group has {group_size}: batches and "
            f"checkpoints are those of {world_size}. Call torch.distributed.init_process_group() without "
            "rank and world_size: both are in the environment"
        )
    return None
