"""The shim: one small process per attempt, which starts the ranks, minds them and records how they ended.

It is the parent of the ranks, so the death of the supervisor is nothing to them. It needs the standard
library, ``trainerd.contract`` and ``trainerd.errors`` alone: it starts in some 50 ms, weighs less than 15 MB,
and its launcher may be of another version. Run as ``python -m trainerd.shim ATTEMPT_DIR``.
"""
