"""Runs of a small job with Ray Train on a cluster of this machine: a head, and two nodes of two CPUs.

    python ray_job.py FOLDER CASE...

A case is ``undisturbed`` or ``struck``: rank 1 kills itself in attempt 1, and in attempt 2 tells Ray that the
node of the workers is about to be taken. Prints one line of JSON for each: what Ray says of the run.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.cluster_utils import Cluster
from ray.train.torch import TorchTrainer
from torch.utils.data import DataLoader, Dataset

from trainerd.integrations.ray import session as ray_session

EPOCHS, SAMPLES, BATCH, WORKERS = 3, 48, 4, 2
KILLED_AT, DRAINED_AT = 8, 9
"""Of 18 steps: both in the middle of the second epoch."""
NOTICE_LIMIT_S = 60.0
LOOPBACK = "127.0.0.1"


class Noisy(Dataset[Any]):
    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((4,), index / SAMPLES) + 0.1 * torch.rand(4) + 0.01 * random.random()


def train(config: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    every = {"steps": 5, "epochs": 1, "seconds": None}
    with ray_session(seed=0, every=every, grace_s=20) as session:
        torch.manual_seed(100 + session.rank)
        inner = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
        model = torch.nn.parallel.DistributedDataParallel(inner)
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        session.track(model=model, optimizer=optimizer)
        last = session.variables(loss=0.0)
        loader = DataLoader(Noisy(), batch_size=BATCH, shuffle=True)
        for _ in session.epochs(EPOCHS):
            session.hand_over()
            for x in session.batches(loader):
                loss = (model(x) - 1).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                last.loss = loss.item()
                session.log(loss=last.loss)
                note(config["out"], session)
                if config["case"] == "struck" and session.rank == 1:
                    strike(session)
            session.report(accuracy=-last.loss)
        session.hand_over()


def note(out: str, session: Any) -> None:
    """Note that a step was computed, where no resume takes it back."""
    (Path(out) / f"node-{session.attempt}").write_text(ray.get_runtime_context().get_node_id())
    with (Path(out) / f"steps-{session.rank}").open("a") as file:
        file.write(f"{session.attempt} {session.step}\n")
    resume = session.run_dir / "resume.json"  # the next attempt replaces it
    if session.rank == 0 and resume.exists():
        shutil.copyfile(resume, Path(out) / f"resume-{session.attempt}.json")


def strike(session: Any) -> None:
    if (session.attempt, session.step) == (1, KILLED_AT):
        os.kill(os.getpid(), signal.SIGKILL)
    if (session.attempt, session.step) == (2, DRAINED_AT):
        announce_preemption()
        wait_until_asked(session)


def announce_preemption() -> None:
    from ray.core.generated import autoscaler_pb2

    context = ray.get_runtime_context()
    is_accepted, why_not = ray._raylet.GcsClient(address=context.gcs_address).drain_node(
        context.get_node_id(),
        autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
        "a test",
        int((time.time() + NOTICE_LIMIT_S) * 1000),
    )
    assert is_accepted, why_not


def wait_until_asked(session: Any) -> None:
    """Stay in this step until the session has heard what Ray told this worker: the run may not end before."""
    deadline_s = time.monotonic() + NOTICE_LIMIT_S
    while not session._run.flag.is_set:
        assert time.monotonic() < deadline_s, "Ray told nothing"
        time.sleep(0.01)


def run(case: str, folder: Path) -> dict[str, Any]:
    out = folder / f"{case}-steps"
    out.mkdir()
    trainer = TorchTrainer(
        train,
        train_loop_config={"case": case, "out": str(out)},
        scaling_config=ray.train.ScalingConfig(num_workers=WORKERS, placement_strategy="STRICT_PACK"),
        run_config=ray.train.RunConfig(
            name=case,
            storage_path=str(folder),
            # The kill uses it up: the drain must be no failure.
            failure_config=ray.train.FailureConfig(max_failures=1 if case == "struck" else 0),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    result = trainer.fit()
    return {
        "case": case,
        "metrics": result.metrics,
        "checkpoint": str(result.checkpoint.path),
        "kept": [[each.path, metrics] for each, metrics in result.best_checkpoints],
    }


def main(folder: Path, cases: list[str]) -> None:
    # Ray would put the address of a network in the place of 127.0.0.1, where its servers are to stay.
    ray._private.services.get_node_ip_address = lambda address=None: LOOPBACK
    head = {"num_cpus": 0, "node_ip_address": LOOPBACK, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=WORKERS, node_ip_address=LOOPBACK)
        ray.init(address=cluster.address, _node_ip_address=LOOPBACK, log_to_driver=True)
        for case in cases:
            print("RESULT", json.dumps(run(case, folder)), flush=True)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
