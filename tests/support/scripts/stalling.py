"""A session that makes a few steps and then stands still in the way it is told to."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time

import torch
from torch.utils.data import DataLoader, Dataset

import trainerd

HOW = sys.argv[1]
STEPS = 3


class Samples(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, index):
        if HOW == "loader" and torch.utils.data.get_worker_info() is not None and self.is_late(index):
            time.sleep(3600)
        return torch.tensor([float(index)])

    def is_late(self, index):
        return index >= 0 and time.monotonic() > BEGAN_S + 2.0


BEGAN_S = time.monotonic()

with trainerd.session() as session:
    session.track(model=torch.nn.Linear(1, 1))
    loader = DataLoader(Samples(), batch_size=2, num_workers=1 if HOW == "loader" else 0)
    for _ in session.epochs(1000):
        for batch in session.batches(loader):
            session.log(loss=float(batch.sum()))
            if session.step < STEPS or HOW == "loader":
                time.sleep(0.02)
            elif HOW == "gil":
                re.match(r"(a+)+$", "a" * 60 + "b")
            elif HOW == "deadlock":
                lock = threading.Lock()
                lock.acquire()
                lock.acquire()
            elif HOW == "sigstop":
                os.kill(os.getpid(), signal.SIGSTOP)
