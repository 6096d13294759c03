"""Hold signals from the first line of a script on: ``import trainerd.early`` before ``import torch``.

A request to stop (SIGTERM, Ctrl-C, SIGUSR1, …) that comes while torch is imported or the data is prepared is
noted. The program leaves with exit code 85 as soon as it opens its session, instead of dying as a failure. A
second signal, 2 s or more after the first, ends the program at once.

The import takes some 20 ms and loads the standard library only.
"""

from __future__ import annotations

from trainerd.training.interruption.early_signals import EARLY

EARLY.hold()
