"""An Ignite job that notices everything, and kills itself where it is told: run by `test_ignite_runs`."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, EarlyStopping
from ignite.metrics import Average, RunningAverage
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

import trainerd
from tests.support.strikes import strike
from trainerd.integrations.ignite import StoreSaver, attach


class Noisy(Dataset[Any]):
    def __len__(self) -> int:
        return 21

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index / 21]) + 0.1 * torch.rand(1) + 0.01 * random.random()


def main() -> None:
    out = Path(os.environ["JOB_OUT"])
    accumulate = int(os.environ["JOB_ACCUMULATE"])
    torch.set_num_threads(1)
    torch.manual_seed(1)
    with trainerd.session(
        out / "run", seed=0, every={"steps": 2, "epochs": 1, "seconds": None}, keep_last=None
    ) as session:
        model = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Dropout(0.3), torch.nn.Linear(4, 1))
        optimizer = torch.optim.Adam(model.parameters(), 0.02)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)
        curve = session.value("curve", []).value

        if is_several := "WORLD_SIZE" in os.environ:
            idist.initialize("gloo")
        trained = torch.nn.parallel.DistributedDataParallel(model) if is_several else model

        def step(engine: Any, x: torch.Tensor) -> float:
            if (engine.state.iteration - 1) % accumulate == 0:
                optimizer.zero_grad()
            loss = (trained(x) - 1).square().mean()
            (loss / accumulate).backward()
            if engine.state.iteration % accumulate == 0:
                optimizer.step()
            strike(str(engine.state.iteration))
            return loss.item()

        trainer, evaluator = Engine(step), Engine(lambda _engine, x: model(x).mean().item())
        RunningAverage(output_transform=float).attach(trainer, "running")
        Average(output_transform=float).attach(evaluator, "value")
        attach(trainer, session, evaluators=[evaluator])

        @trainer.on(Events.ITERATION_COMPLETED)
        def after_step(engine: Any) -> None:
            strike(f"{engine.state.iteration}.5")
            session.log(loss=engine.state.output)

        @evaluator.on(Events.ITERATION_COMPLETED)
        def in_validation() -> None:
            strike(f"validation{trainer.state.epoch}")

        @trainer.on(Events.EPOCH_COMPLETED)
        def end(engine: Any) -> None:
            evaluator.run(DataLoader(Noisy(), batch_size=8))
            scheduler.step()
            curve.append(
                [engine.state.epoch, engine.state.metrics["running"], evaluator.state.metrics["value"]]
            )

        @trainer.on(Events.EPOCH_STARTED)
        def begin(engine: Any) -> None:
            strike(f"epoch{engine.state.epoch}")

        evaluator.add_event_handler(
            Events.COMPLETED, EarlyStopping(50, lambda engine: engine.state.metrics["value"], trainer)
        )
        best = Checkpoint(
            {"model": model},
            StoreSaver(out / "best", require_empty=False),
            n_saved=2,
            score_function=lambda engine: engine.state.metrics["value"],
            global_step_transform=lambda *_: trainer.state.epoch,
        )
        evaluator.add_event_handler(Events.COMPLETED, best)
        session.track(model=model, optimizer=optimizer, scheduler=scheduler)
        workers = int(os.environ["JOB_WORKERS"])
        loader = DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=workers)
        if is_several:
            loader = DataLoader(Noisy(), 4, sampler=DistributedSampler(Noisy()), num_workers=workers)
        state = trainer.run(loader, max_epochs=3)
        found = {
            "model": [each.tolist() for each in model.state_dict().values()],
            "optimizer": repr(optimizer.state_dict()),
            "curve": curve,
            "best": sorted(path.name for path in (out / "best").iterdir()),
            "random": torch.get_rng_state().tolist()[:40],
            "counters": [state.iteration, state.epoch],
            "metrics": {name: float(value) for name, value in state.metrics.items()},
            "scheduler": repr(scheduler.state_dict()),
        }
    if os.environ.get("RANK", "0") == "0":
        (out / "final.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
