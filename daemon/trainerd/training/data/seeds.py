"""Seeds derived from (seed, epoch, batch), so that no random stream depends on what came before it.

The mixing is SplitMix64's finalizer (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
OOPSLA 2014), folded over the parts: cheap, and parts that differ in one bit give unrelated seeds.
"""

from __future__ import annotations

from typing import Final

_MASK: Final = (1 << 64) - 1
_GAMMA: Final = 0x9E3779B97F4A7C15


def derive_seed(*parts: int) -> int:
    """Return a 63-bit seed that depends on every part and on their order."""
    return folded(*parts) >> 1


def folded(*parts: int, state: int = 0) -> int:
    """Fold parts into a state of 64 bits; go on with it by `state`, and shift it by one for a seed."""
    for part in parts:
        state = (state ^ (part & _MASK)) + _GAMMA & _MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state
