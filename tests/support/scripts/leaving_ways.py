"""A training script that is asked to stop, or raises, in one of many ways at step 5 of 12."""

import argparse
import atexit
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainerd

AT = 5


def say(words: str) -> None:
    print(words, flush=True)


class Ways:
    """What happens at step `AT`, by the name of the way."""

    def __init__(self, session: trainerd.Session) -> None:
        self.session = session

    def signal(self, name: str) -> None:
        os.kill(os.getpid(), getattr(signal, name))

    def raises(self, name: str) -> None:
        signal.signal(signal.SIGTERM, self._raise)
        self.signal(name)
        time.sleep(5)

    def _raise(self, *_: object) -> None:
        raise InterruptedError("a library raises on SIGTERM")

    def pipe(self, name: str) -> None:
        self.signal(name)
        raise BrokenPipeError(32, "Broken pipe")

    def crash(self, _: str) -> None:
        raise ValueError("a bug of the script's own")

    def ask(self, reason: str) -> None:
        self.session.on_leave(lambda: say("last words"))
        thread = threading.Thread(target=self.session.ask_to_stop, args=(reason,))
        thread.start()
        thread.join()

    def pool(self, _: str) -> None:
        fork = multiprocessing.get_context("fork")
        with fork.Pool(2) as pool:
            say(f"pool {sum(pool.map(abs, range(4)))}")
        child = fork.Process(target=time.sleep, args=(60,), daemon=True)
        child.start()
        child.terminate()
        child.join(20)
        say(f"terminated {child.exitcode}, draining {self.session.draining}")

    def fork(self, _: str) -> None:
        child = os.fork()
        if child == 0:
            try:
                self.session.log(loss=1.0)
            except trainerd.errors.UserError as error:
                say(f"child: {error.message}")
            sys.exit(3)  # through the session's block, and the end of the interpreter
        say(f"child {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")


def train(way: str, argument: str, *, is_kept: bool) -> None:
    data = TensorDataset(torch.arange(16.0).reshape(8, 2))
    with trainerd.session(every={"steps": 100, "seconds": None, "epochs": None}, grace_s=20.0) as session:
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        session.track(model=model, optimizer=optimizer)
        ways = Ways(session)
        for _ in session.epochs(3):
            try:
                for (points,) in session.batches(DataLoader(data, 2)):
                    optimizer.zero_grad()
                    model(points).sum().backward()
                    if session.step + 1 == AT and session.attempt == 1:
                        getattr(ways, way)(argument)
                    optimizer.step()
            except:  # noqa: E722 - what scripts do
                if not is_kept:
                    raise
                say("kept")
    say(f"finished at step {session.step}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("way")
    parser.add_argument("argument", nargs="?", default="")
    parser.add_argument("--kept", action="store_true")
    parser.add_argument("--slow-cleanup", type=float, default=0.0)
    parser.add_argument("--early", type=float, default=0.0)
    options = parser.parse_args()
    # Never closed: many scripts leave that to the interpreter.
    rows = Path(os.environ["ROWS"]).open("w") if "ROWS" in os.environ else None  # noqa: SIM115
    if rows is not None:
        rows.write("a row in a buffer\n")
    atexit.register(say, "atexit ran")
    if options.early:
        import trainerd.early

        say("early")
        time.sleep(options.early)
    try:
        train(options.way, options.argument, is_kept=options.kept)
    finally:
        say("finally ran")
        time.sleep(options.slow_cleanup)
