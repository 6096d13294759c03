"""A loop in which everything that is hard stands: code before, between and after loops, two loops an epoch, a
break."""

from __future__ import annotations

import random

import torch
from torch.utils.data import DataLoader, TensorDataset

import trainerd

torch.manual_seed(0)
with trainerd.session(every={"steps": 3}) as s:
    m = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 1))
    o = torch.optim.SGD(m.parameters(), lr=0.1)
    sch = torch.optim.lr_scheduler.StepLR(o, 1, 0.5)
    s.track(model=m, optimizer=o, scheduler=sch)
    n = s.value("n", 0)
    ds = TensorDataset(torch.randn(24, 4))
    dl = DataLoader(ds, batch_size=4, shuffle=True)
    for e in s.epochs(3):
        n.value += 1
        torch.rand(2)
        random.random()
        for (x,) in s.batches(dl, train=False):
            pass
        for loop in range(2):
            for i, (x,) in enumerate(s.batches(dl, accumulate=2)):
                loss = m(x).pow(2).mean()
                loss.backward()
                if s.step % 2:
                    s.log(noise=torch.rand(()))
                s.log(loss=loss)
                if i % 2:  # gradients of two batches make a step, and are saved nowhere in between
                    o.step()
                    o.zero_grad()
                if loop == 1 and s.step >= 14:
                    break
            n.value += 10
            sch.step()
            for (x,) in s.batches(dl, train=False):
                pass
        s.report(n=n.value, lr=sch.get_last_lr()[0])
