"""Power cuts on paper: records what a program does to the disk, and rebuilds every state a cut may leave.

`python -m chaos.power_cut` records, enumerates and recovers; `docs/chaos.md` says what the model allows.
"""
