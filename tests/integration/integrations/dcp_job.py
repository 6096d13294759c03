"""Two ranks that load the newest checkpoint of torch.distributed.checkpoint and save the next one.

One of them, ``JOB_RANK``, kills itself at its act number ``JOB_ACT`` on the files of the checkpoints: before
it makes, opens for writing, renames or removes one.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from trainerd.integrations.dcp import StoreReader, StoreWriter

_MOVES = {"os.mkdir", "os.rename", "os.remove"}


def kill_at(act: int, folder: str) -> None:
    """End this process before an act on the files in a folder."""
    left = act

    def watch(event: str, details: tuple[Any, ...]) -> None:
        nonlocal left
        is_write = event == "open" and bool(details[2] & (os.O_WRONLY | os.O_RDWR))
        if (is_write or event in _MOVES) and str(details[0]).startswith(folder):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def main() -> None:
    out, rank = Path(os.environ["JOB_OUT"]), int(os.environ["RANK"])
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    saved = sorted(out.glob("step-*"))
    state: dict[str, Any] = {"weight": distribute_tensor(torch.zeros(6, 4), mesh, [Shard(0)]), "step": 0}
    state["bias"] = torch.zeros(3)
    if saved:
        dcp.load(state, storage_reader=StoreReader(saved[-1]))
        assert saved[-1].name == f"step-{state['step']:04d}"
    step = state["step"]
    weight = state["weight"]
    assert isinstance(weight, DTensor)
    assert (weight.to_local() == step).all(), "all of it is of one step"
    assert (state["bias"] == step).all()
    state = {"weight": weight + 1, "bias": state["bias"] + 1, "step": step + 1}
    dist.barrier()  # no rank saves before all of them have loaded
    if rank == int(os.environ["JOB_RANK"]):
        kill_at(int(os.environ["JOB_ACT"]), str(out))
    dcp.save(state, storage_writer=StoreWriter(out / f"step-{step + 1:04d}"))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
