"""What a resume costs by where in the epoch it is: `python -m bench.resume_position`.

From asking for the rest of an epoch until its first batch is there, at several positions of one epoch of a
shuffled map-style dataset. The dataset counts what it loads: whatever the position, one batch. Beside it a
plain iterable, which has no position of its own and is skipped by consumption.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

import torch
from torch.utils.data import DataLoader, Dataset

from trainerd.training.data.sources import Pass, source_for

POSITIONS = (0, 1_000, 10_000, 100_000)
BATCH_SIZE = 2


class Counting(Dataset):
    """Samples that are counted when they are loaded."""

    def __init__(self, size):
        self.size = size
        self.loaded = 0

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.loaded += 1
        return torch.tensor(index) + torch.rand(())


def first_batch(loader, start):
    """Return seconds until the first batch; the source is made anew, as in a new process."""
    began_s = time.perf_counter()
    source = source_for(loader, seed=0, warn=print)
    next(iter(source.iterate(Pass((1, 0), 0), start, lambda: False)))
    return time.perf_counter() - began_s


def measured(rounds):
    rows = []
    for start in POSITIONS:
        dataset = Counting((POSITIONS[-1] + 100) * BATCH_SIZE)
        loader = DataLoader(dataset, BATCH_SIZE, shuffle=True)
        times = [first_batch(loader, start) for _ in range(rounds)]
        loaded = dataset.loaded // rounds
        plain = [first_batch(PlainIterable(dataset), start)]
        rows.append(
            {
                "batch": start,
                "map_style_ms": round(statistics.median(times) * 1e3, 2),
                "samples_loaded": loaded,
                "plain_iterable_ms": round(statistics.median(plain) * 1e3, 2),
            }
        )
    return rows


class PlainIterable:
    """The same batches from something that can only be begun anew."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        for batch in range(self.dataset.size // BATCH_SIZE):
            yield torch.stack([self.dataset[batch * BATCH_SIZE + number] for number in range(BATCH_SIZE)])


def main():
    parser = argparse.ArgumentParser(description="What a resume costs by where in the epoch it is.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = measured(arguments.rounds)
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'batch':>9} {'map-style, ms':>14} {'samples loaded':>15} {'plain iterable, ms':>19}")
    for row in rows:
        print(
            f"{row['batch']:>9,} {row['map_style_ms']:>14} {row['samples_loaded']:>15} "
            f"{row['plain_iterable_ms']:>19}"
        )
    print(
        f"load {os.getloadavg()[0]:.1f}; batches of {BATCH_SIZE}; the order of the whole epoch is "
        "drawn each time"
    )


if __name__ == "__main__":
    main()
