"""Power cuts on paper: what a program did to the disk is recorded, and every state a cut may leave is rebuilt.

`python -m chaos.power_cut` records, enumerates and recovers; `docs/chaos.md` says what the model allows.
"""
