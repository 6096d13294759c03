"""A training script for drills, right or wrong in one way: `drilled.py right|carried|unseeded`."""

from __future__ import annotations

import sys

import torch
from torch.utils.data import DataLoader, TensorDataset

import trainerd

KIND = sys.argv[1]
if KIND != "unseeded":
    torch.manual_seed(0)
model = torch.nn.Linear(3, 1)
data = TensorDataset(torch.randn(24, 3, generator=torch.Generator().manual_seed(1)))
loader = DataLoader(data, 4, shuffle=True)

with trainerd.session() as session:
    session.track(model=model)
    momentum = session.value("momentum", 0.0) if KIND != "carried" else 0.0
    for _ in session.epochs(3):
        for (x,) in session.batches(loader):
            loss = model(x).square().mean()
            loss.backward()
            slope = float(model.weight.grad.sum())
            if KIND == "carried":
                momentum = 0.9 * momentum + slope
                pull = momentum
            else:
                momentum.value = 0.9 * momentum.value + slope
                pull = momentum.value
            with torch.no_grad():
                model.weight -= 0.01 * (model.weight.grad + pull)
            model.weight.grad = model.bias.grad = None
            session.log(loss=loss)
        session.report(size=float(model.weight.sum()))
