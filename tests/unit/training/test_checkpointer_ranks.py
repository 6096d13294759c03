"""Two real ranks: one writes, and both resume the same checkpoint."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from tests.support.checkpoints import flip_bit
from tests.support.exact import Box
from trainerd import Checkpointer

pytestmark = pytest.mark.torch

LIMIT_S = 60
RANK = """
import sys
import torch
import torch.distributed as dist
from tests.support.exact import Box
from trainerd import Checkpointer

folder, rendezvous, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
dist.init_process_group("gloo", store=dist.FileStore(rendezvous, 2), rank=rank, world_size=2)

model = torch.nn.Linear(2, 1)
with Checkpointer(folder, {"model": model, "box": Box()}) as checkpointer:
    checkpoint = checkpointer.resume()
    checkpointer.save(step=checkpoint.step + 1)
    checkpointer.wait()
    dist.barrier()
    print(rank, checkpointer.is_committer, checkpoint.name, checkpointer.objects["box"].tree)
dist.destroy_process_group()
"""


def test_one_rank_writes_and_all_resume_what_it_found(tmp_path):
    """Rank 0 quarantines the damaged newest one; the other takes the one before it too, whatever it saw."""
    model = torch.nn.Linear(2, 1)
    box = Box("older")
    folder = tmp_path / "checkpoints"
    with Checkpointer(folder, {"model": model, "box": box}) as checkpointer:
        checkpointer.save(step=1)
        box.tree = "newer"
        checkpointer.save(step=2)
    flip_bit(folder / "step-000000002" / "rank-00000.json", offset=-3)
    arguments = [sys.executable, "-c", RANK, str(folder), str(tmp_path / "rendezvous")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [*arguments, str(rank)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        outputs = [rank.communicate(timeout=LIMIT_S)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert "0 True step-000000001 older" in outputs[0], outputs
    assert "1 False step-000000001 older" in outputs[1], outputs
    assert [checkpoint.step for checkpoint in checkpointer.checkpoints()] == [1, 2]
    assert len(checkpointer.store.quarantined()) == 1
    with Checkpointer(folder, {"model": model, "box": box}) as checkpointer:
        assert checkpointer.resume().manifest.reason == "asked"
