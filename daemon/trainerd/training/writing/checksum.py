"""Checksums of tensors that a device and a processor compute alike: the sum of their words, modulo 2**64.

Integer addition is exact in any order, so a parallel reduction on a device gives the same number as a loop on
the host. A single wrong word always changes the sum; words that changed places do not.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch

_TORCH_WORDS: Final = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_NUMPY_WORDS: Final = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}
_WORD_BYTES_MAX: Final = 8


def word_bytes_of(tensor: torch.Tensor) -> int:
    """Return the size of the words that a tensor is summed in, in bytes.

    The largest that fits its place and size.
    """
    offset = tensor.storage_offset() * tensor.element_size() if tensor.is_contiguous() else 0
    return math.gcd(_WORD_BYTES_MAX, tensor.nbytes, offset)


def words_of(tensor: torch.Tensor, word_bytes: int) -> torch.Tensor:
    """Return the bytes of a tensor, in the order of its elements, as a flat tensor of signed integers.

    Args:
        tensor: Any dtype and layout of strides. Not copied if it is contiguous.
        word_bytes: What `word_bytes_of` returned for it.
    """
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return plain.view(-1).view(_TORCH_WORDS[word_bytes])


def checksum_of(tensor: torch.Tensor, word_bytes: int) -> int:
    """Return the checksum of a contiguous host tensor. One thread, which lets others run meanwhile.

    torch would start a team of threads for each thread that asks for a sum.
    """
    octets = tensor.detach().view(-1).view(torch.uint8).numpy()
    return int(np.add.reduce(octets.view(_NUMPY_WORDS[word_bytes]), dtype=np.int64))
