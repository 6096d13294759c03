"""What a step of a session costs beyond the plain loop: `python -m bench.step_overhead`.

The same loop over the same loader, plain and in a session, alternating; one epoch each, medians over the
rounds. The step does nothing, so what is left is the loader and what the session adds: position, heartbeat,
drain flag, history row with a digest of the samples. Three loops:

=========  ==========================================================================================
list       batches that are there already: the session alone
loader     a stock loader over tensors in the main process: the order of the data is the session's too
drawing    the same with a dataset of the user's own, which might draw random numbers: each batch gets
           streams of its own, and the global ones are put back, which plain loading does not do
=========  ==========================================================================================
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
    for number, _ in enumerate(loader):
        if number == 1:
            began_s = time.perf_counter()
    return time.perf_counter() - began_s


def session_epoch(loader, folder, loss):
    with trainerd.session(folder, every={"seconds": None, "epochs": None}) as session:
        for _ in session.epochs(1):
            for number, _ in enumerate(session.batches(loader)):  # trainerd: ok
                if number == 1:  # the first step is audited, once an attempt
                    began_s = time.perf_counter()
                session.log(loss=loss)
            took_s = time.perf_counter() - began_s
    return took_s


class OwnDataset(TensorDataset):
    """Code of the user's own, as far as anybody can tell."""


def measured(steps, rounds):
    torch.set_num_threads(1)
    loss = torch.tensor(0.5)
    points = torch.empty(steps * 2, 1)
    sources = {
        "list": [torch.empty(2, 1)] * steps,
        "loader": DataLoader(TensorDataset(points), batch_size=2, shuffle=True),
        "drawing": DataLoader(OwnDataset(points), batch_size=2, shuffle=True),
    }
    taken = {name: ([], []) for name in sources}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for name, source in sources.items():
                taken[name][0].append(plain_epoch(source))
                taken[name][1].append(session_epoch(source, f"{folder}/{name}", loss))
    found = {}
    for name, (plain, session) in taken.items():
        plain_us, session_us = (statistics.median(times) / steps * 1e6 for times in (plain, session))
        found[name] = {"plain": plain_us, "session": session_us, "added": session_us - plain_us}
        found[name]["added_least"] = (min(session) - min(plain)) / steps * 1e6
    return found


def main():
    parser = argparse.ArgumentParser(description="What a step of a session costs beyond the plain loop.")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measured(arguments.steps, arguments.rounds)
    if arguments.json:
        print(
            json.dumps(
                {name: {key: round(value, 2) for key, value in row.items()} for name, row in found.items()}
            )
        )
        return
    print(f"{'µs a step':10} {'plain':>8} {'session':>8} {'added':>8} {'added, least round':>19}")
    for name, row in found.items():
        print(
            f"{name:10} {row['plain']:8.1f} {row['session']:8.1f} {row['added']:8.1f} "
            f"{row['added_least']:19.1f}"
        )
    print(
        f"load {os.getloadavg()[0]:.1f}; medians of {arguments.rounds}; target: at most {TARGET_US:g} "
        "µs added"
    )


if __name__ == "__main__":
    main()
