"""A run that is killed: convolution, batch norm, dropout, OneCycleLR and, on a device, fp16 with a scaler.

    python -P bench/cuda_job.py DIGEST-FILE [cpu]

It writes a digest of everything that was trained. Without -P, torch would take bench/cuda.py for the package
cuda.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainerd

EPOCHS, SAMPLES, BATCH = 4, 512, 32
PAUSE_S = 0.02
"""Between two steps, so that a kill falls between them as well as in them."""


def main() -> None:
    device = sys.argv[2] if len(sys.argv) > 2 else "cuda"
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(3)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(4 * 26 * 26, 10)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=100)
    scaler = torch.amp.GradScaler(device, enabled=device == "cuda")
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(SAMPLES, 1, 28, 28, generator=generator)
    data = TensorDataset(images, torch.randint(0, 10, (SAMPLES,), generator=generator))
    loader = DataLoader(data, BATCH, shuffle=True, pin_memory=device == "cuda")
    with trainerd.session() as session:
        session.track(model=model, optimizer=optimizer, schedule=schedule, scaler=scaler)
        for _ in session.epochs(EPOCHS):
            for image, label in session.batches(loader):
                with torch.autocast(device, dtype=torch.float16, enabled=device == "cuda"):
                    loss = nn.functional.cross_entropy(
                        model(image.to(device, non_blocking=True)), label.to(device)
                    )
                optimizer.zero_grad()
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                schedule.step()
                session.log(loss=loss)
                time.sleep(PAUSE_S)
            session.report(quality=loss.detach())
    digest = hashlib.sha256()
    for _, value in sorted(model.state_dict().items()):
        digest.update(value.cpu().numpy().tobytes())
    for state in optimizer.state.values():
        for name in sorted(state):
            digest.update(state[name].cpu().numpy().tobytes())
    Path(sys.argv[1]).write_text(digest.hexdigest())


if __name__ == "__main__":
    main()
