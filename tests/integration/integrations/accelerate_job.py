"""A job with Accelerate that notices everything, and kills itself where `test_accelerate_runs` says."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from tests.support.strikes import strike
from trainerd.integrations.accelerate import session as accelerated_session

EPOCHS = 3


class Noisy(Dataset[Any]):
    def __len__(self) -> int:
        return 41

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = 0.1 * torch.rand(4) + 0.01 * random.random() + 0.01 * float(np.random.rand())
        return torch.full((4,), index / 41) + noise


def main() -> None:
    out = Path(os.environ["JOB_OUT"])
    accumulate, workers = int(os.environ["JOB_ACCUMULATE"]), int(os.environ["JOB_WORKERS"])
    torch.set_num_threads(1)
    torch.manual_seed(1)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.5)
    loader = DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=workers)
    checked = DataLoader(Noisy(), batch_size=16)
    model, optimizer, loader, checked, scheduler = accelerator.prepare(
        model, optimizer, loader, checked, scheduler
    )
    with accelerated_session(
        accelerator, out / "run", seed=0, every={"steps": 2, "epochs": 1, "seconds": None}, keep_last=None
    ) as session:
        session.track(model=model, optimizer=optimizer, scheduler=scheduler)
        curve = session.value("curve", []).value
        for epoch in session.epochs(EPOCHS):
            strike(f"epoch{epoch}")
            model.train()
            for x in session.batches(loader):
                with accelerator.accumulate(model):
                    loss = (model(x) - 1).square().mean()
                    accelerator.backward(loss)
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
                strike(f"{epoch}.{session.batch}")
                session.log(loss=loss)
            model.eval()
            found = []
            for x in session.batches(checked, train=False):
                strike(f"validation{epoch}")
                with torch.no_grad():
                    found.append(accelerator.gather_for_metrics(model(x)))
            samples = torch.cat(found)
            curve.append([epoch, len(samples), float(samples.mean()), accelerator.step])
            session.report(mean=float(samples.mean()))
        inside = accelerator.unwrap_model(model)
        result = {
            "model": [each.tolist() for each in inside.state_dict().values()],
            "optimizer": repr(optimizer.state_dict()),
            "scheduler": repr(scheduler.state_dict()),
            "curve": curve,
            "accelerator": accelerator.step,
            "random": torch.get_rng_state().tolist()[:40],
        }
    if accelerator.is_main_process:
        (out / "final.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
