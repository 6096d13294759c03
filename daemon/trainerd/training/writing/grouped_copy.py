"""Many tensors copied as few: gathered in flat memory of their own device first, then moved in runs.

A copy of its own for each of a thousand tensors takes the processor longer than the device. The gathered
copies are of one moment, so what is trained may change as soon as they are made. Works on tensors of any one
device; which stream that happens on is the caller's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from trainerd.training.writing.checksum import word_bytes_of, words_of
from trainerd.training.writing.host_copy import copy_together

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainerd.training.writing.device_copy import Copy

BLOCK_WORDS: Final = 1 << 17
"""So many words have one checksum: 1 MiB of words of 8 bytes."""


@dataclass(frozen=True)
class Run:
    """Tensors of one dtype that follow one another in the host's memory without a gap.

    Attributes:
        names: Their names, in this order.
        sizes: Their numbers of elements.
        word_bytes: Size of the words that are summed, in bytes.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    word_bytes: int

    @property
    def size(self) -> int:
        """Number of elements of all."""
        return sum(self.sizes)


class Gathered:
    """Tensors of one device, copied into flat memory there.

    Args:
        copies: What to copy, all from one device. Done, or queued on the current stream, on return.

    Raises:
        torch.OutOfMemoryError: The device has no room for them.

    Attributes:
        runs: What is moved at once.
    """

    def __init__(self, copies: Sequence[Copy]) -> None:
        groups = _adjacent(copies)
        self._flat: list[torch.Tensor] = []
        by_dtype: dict[torch.dtype, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        self.runs: list[Run] = []
        for group in groups:
            first, sizes = group[0], [copy.source.numel() for copy in group]
            flat = torch.empty(sum(sizes), dtype=first.source.dtype, device=first.source.device)
            self._flat.append(flat)
            targets, sources = by_dtype.setdefault(flat.dtype, ([], []))
            for part, copy in zip(torch.split(flat, sizes), group, strict=True):
                targets.append(part.view(copy.source.shape))
                sources.append(copy.source.detach().resolve_conj().resolve_neg())
            word_bytes = min(word_bytes_of(flat), word_bytes_of(flat_target(first.target, flat.numel())))
            self.runs.append(Run(tuple([copy.name for copy in group]), tuple(sizes), word_bytes))
        with torch.no_grad():
            for targets, sources in by_dtype.values():
                copy_together(targets, sources)
        self._targets = [group[0].target for group in groups]

    def move(self, *, is_pinned: bool) -> list[torch.Tensor]:
        """Copy each run to the host, and give up the flat memory; return the sums of the blocks of each."""
        sums = []
        with torch.no_grad():
            for flat, target, run in zip(self._flat, self._targets, self.runs, strict=True):
                flat_target(target, flat.numel()).copy_(flat, non_blocking=is_pinned)
                sums.append(_block_sums(words_of(flat, run.word_bytes)))
        self._flat, self._targets = [], []
        return sums


def damaged_in(run: Run, sums: Sequence[int], targets: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of the tensors in those blocks of a run whose sums are others on the host.

    Args:
        run: Tensors that were moved together.
        sums: Of its blocks, from the device.
        targets: Where to, by name.
    """
    host = flat_target(targets[run.names[0]], run.size)
    octets = host.detach().view(torch.uint8).numpy()
    words = octets.view(f"i{run.word_bytes}")
    starts = np.arange(0, len(words), BLOCK_WORDS)
    found = np.add.reduceat(words, starts, dtype=np.int64)
    block_bytes, item_bytes = BLOCK_WORDS * run.word_bytes, host.element_size()
    wrong = np.flatnonzero(found != np.asarray(sums, dtype=np.int64))
    names: dict[str, None] = {}
    begin = 0
    for name, size in zip(run.names, run.sizes, strict=True):
        end = begin + size * item_bytes
        if any(block * block_bytes < end and begin < (block + 1) * block_bytes for block in wrong.tolist()):
            names[name] = None
        begin = end
    return list(names)


def flat_target(first: torch.Tensor, size: int) -> torch.Tensor:
    """Return `size` elements of the memory in which a tensor lies, from its first element on."""
    return torch.as_strided(first, (size,), (1,))


def _block_sums(words: torch.Tensor) -> torch.Tensor:
    """Return the sum of each block of words, the last of which may be shorter."""
    whole = words.numel() // BLOCK_WORDS * BLOCK_WORDS
    sums = words[:whole].view(-1, BLOCK_WORDS).sum(dim=1, dtype=torch.int64)
    if whole == words.numel():
        return sums
    return torch.cat([sums, words[whole:].sum(dtype=torch.int64).view(1)])


def _adjacent(copies: Sequence[Copy]) -> list[list[Copy]]:
    """Return the copies in groups of one dtype, each of which fills its place in the host's memory."""
    groups: list[list[Copy]] = []
    end = (0, torch.uint8)
    for copy in sorted(copies, key=lambda each: each.target.data_ptr()):
        if copy.source.numel() == 0:
            continue
        dtype = copy.source.dtype
        if not groups or end != (copy.target.data_ptr(), dtype):
            groups.append([])
        groups[-1].append(copy)
        end = copy.target.data_ptr() + copy.target.nbytes, dtype
    return groups
