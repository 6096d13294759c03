"""A script with a Checkpointer alone, for drills: `drilled_saves.py right|unseeded-epochs|random FOLDER`.

Its own handler of SIGTERM saves at the end of the epoch and leaves.
"""

from __future__ import annotations

import signal
import sys

import torch
from torch.utils.data import DataLoader, TensorDataset

import trainerd

KIND, FOLDER = sys.argv[1:3]
stops = []
signal.signal(signal.SIGTERM, lambda signum, _frame: stops.append(signum))
if KIND != "random":
    torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
data = TensorDataset(torch.randn(24, 3, generator=torch.Generator().manual_seed(1)))
loader = DataLoader(data, 4, shuffle=True)

with trainerd.Checkpointer(FOLDER, {"model": model, "optimizer": optimizer}) as checkpointer:
    found = checkpointer.resume()
    for epoch in range(found.manifest.epoch if found else 0, 4):
        if KIND == "right":
            torch.manual_seed(epoch)
        total = 0.0
        for (x,) in loader:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            total += loss.item()
        checkpointer.save(step=6 * (epoch + 1), epoch=epoch + 1, scores={"total": total})
        if stops:
            break
