"""A loop with one step that never ends, asleep or at work."""

from __future__ import annotations

import argparse
import time

import torch

import trainerd
from trainerd.training.interruption import deadline
from trainerd.training.schedule import staging_budget


def sleep() -> None:
    time.sleep(120)


def spin() -> None:
    while True:
        pass


HANGS = {"sleep": sleep, "spin": spin}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hang", choices=HANGS, default="sleep")
    parser.add_argument("--at", type=int, default=5)
    parser.add_argument("--step-ms", type=float, default=500)
    parser.add_argument("--grace-s", type=float, default=3.0)
    parser.add_argument("--margin-s", type=float, default=deadline.MARGIN_S_MIN)
    args = parser.parse_args()
    # A copy at every boundary, however long one takes on a busy machine.
    staging_budget.COPY_SHARE_MAX = float("inf")
    deadline.MARGIN_S_MIN = args.margin_s
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    with trainerd.session(every={"seconds": None, "epochs": None}, grace_s=args.grace_s) as session:
        session.track(model=model)
        for _ in session.epochs(1):
            for batch in session.batches(list(torch.randn(8, 4))):
                if session.step == args.at:
                    print("hangs", flush=True)
                    HANGS[args.hang]()
                time.sleep(args.step_ms / 1000)
                model(batch)


if __name__ == "__main__":
    main()
