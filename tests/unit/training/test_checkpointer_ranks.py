"""Two real ranks: one writes, and both resume the same checkpoint."""

from __future__ import annotations

import signal

import pytest
import torch

from tests.support.checkpoints import flip_bit
from tests.support.exact import Box
from tests.support.training_runs import FORK_SERVER, PYTHONPATH, training_environment
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
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    logs = [tmp_path / f"{rank}.log" for rank in (0, 1)]
    environment = training_environment(tmp_path / "run", PYTHONPATH=PYTHONPATH)
    ranks = [
        FORK_SERVER.launch(script, [str(folder), str(tmp_path / "rendezvous"), str(rank)], environment, log)
        for rank, log in enumerate(logs)
    ]
    try:
        codes = [rank.wait(LIMIT_S) for rank in ranks]
    finally:
        for rank in ranks:
            rank.send_signal(signal.SIGKILL)
    outputs = [log.read_text() for log in logs]
    assert codes == [0, 0], outputs
    assert "0 True step-000000001 older" in outputs[0], outputs
    assert "1 False step-000000001 older" in outputs[1], outputs
    assert [checkpoint.step for checkpoint in checkpointer.checkpoints()] == [1, 2]
    assert len(checkpointer.store.quarantined()) == 1
    with Checkpointer(folder, {"model": model, "box": box}) as checkpointer:
        assert checkpointer.resume().manifest.reason == "asked"
