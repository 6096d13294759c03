"""Which dtypes have a name in safetensors, and how the others are stored."""

from __future__ import annotations

from typing import Final

import torch

SAFETENSORS_DTYPES: Final[dict[torch.dtype, str]] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}
"""What safetensors has a name for. Other dtypes travel as bytes, with their name in the tree."""

OTHER_DTYPES: Final = {
    name: dtype
    for name in (
        "complex128",
        "complex32",
        "float8_e4m3fnuz",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
        "float4_e2m1fn_x2",
    )
    if (dtype := getattr(torch, name, None)) is not None
}
NAME_OF_OTHER: Final = {dtype: name for name, dtype in OTHER_DTYPES.items()}
TORCH_DTYPES: Final = {name: dtype for dtype, name in SAFETENSORS_DTYPES.items()}


def stored_form(tensor: torch.Tensor) -> tuple[torch.Tensor, str]:
    """Return a tensor as stored in the file (bytes, if safetensors lacks the dtype) and its dtype there."""
    if dtype := SAFETENSORS_DTYPES.get(tensor.dtype):
        return tensor, dtype
    return tensor.contiguous().reshape(-1).view(torch.uint8), "U8"


def dense_stride(tensor: torch.Tensor) -> list[int] | None:
    """Return the strides of a tensor without holes whose dimensions are permuted, such as channels last.

    Optimizer state is laid out like its parameter, and arithmetic on another layout may round otherwise.
    """
    if tensor.is_contiguous():
        return None
    expected = 1
    for stride, size in sorted(
        (stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size != 1
    ):
        if stride != expected:
            return None
        expected *= size
    return list(tensor.stride())
