"""What a step of a session costs beyond the plain loop: `python -m bench.step_overhead`.

The same loop over the same loader, plain and in a session, alternating; one epoch each, medians over the rounds.
The step does nothing, so what is left is the loader and what the session adds: position, heartbeat, drain flag,
history row. In the main process (`workers 0`) the session also gives every batch random streams of its own and
puts the global ones back, which plain loading does not do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time

import torch
from torch.utils.data import DataLoader, TensorDataset

import trainerd

TARGET_US = 20.0


def plain_epoch(loader):
    began_s = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - began_s


def session_epoch(loader, folder, loss):
    with trainerd.session(folder, every={"seconds": None, "epochs": None}) as session:
        for _ in session.epochs(1):
            began_s = time.perf_counter()
            for _ in session.batches(loader):
                session.log(loss=loss)
            took_s = time.perf_counter() - began_s
    return took_s


def iterable_epoch(batches, folder, loss):
    with trainerd.session(folder, every={"seconds": None, "epochs": None}) as session:
        for _ in session.epochs(1):
            began_s = time.perf_counter()
            for _ in session.batches(batches):
                session.log(loss=loss)
            took_s = time.perf_counter() - began_s
    return took_s


def measured(steps, rounds):
    torch.set_num_threads(1)
    loss = torch.tensor(0.5)
    loader = DataLoader(TensorDataset(torch.empty(steps * 2, 1)), batch_size=2, shuffle=True)
    batches = [torch.empty(2, 1)] * steps
    taken = {"plain loader": [], "session, loader": [], "plain list": [], "session, list": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            taken["plain loader"].append(plain_epoch(loader))
            taken["session, loader"].append(session_epoch(loader, f"{folder}/a", loss))
            taken["plain list"].append(plain_epoch(batches))
            taken["session, list"].append(iterable_epoch(batches, f"{folder}/b", loss))
    return {name: statistics.median(times) / steps * 1e6 for name, times in taken.items()}


def main():
    parser = argparse.ArgumentParser(description="What a step of a session costs beyond the plain loop.")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measured(arguments.steps, arguments.rounds)
    found["added, loader"] = found["session, loader"] - found["plain loader"]
    found["added, list"] = found["session, list"] - found["plain list"]
    if arguments.json:
        print(json.dumps({name: round(value, 2) for name, value in found.items()}, indent=1))
        return
    for name, value in found.items():
        print(f"{name:20} {value:8.1f} µs a step")
    print(f"load {os.getloadavg()[0]:.1f}; target: at most {TARGET_US:g} µs added; list: the session alone")


if __name__ == "__main__":
    main()
