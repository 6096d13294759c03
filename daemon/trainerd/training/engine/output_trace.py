"""What each module returns during one step: a digest each, in the order of the calls.

Two runs of the same step can be compared by it: the first module whose output differs is where they part.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any, Final

import torch
import xxhash

from trainerd.contract.rehearsal import BEFORE_STEP
from trainerd.training.state.tracked import unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OUTPUTS_MAX: Final = 2000
"""Most outputs that are noted."""
_DEPTH_MAX: Final = 6
_KERNEL_WORDS: Final = "does not have a deterministic implementation"


class OutputTrace:
    """Notes the outputs of all modules while it is on.

    Meanwhile torch warns of kernels that have no deterministic form, and these warnings are noted as well.

    Args:
        objects: Tracked objects by name; those that are modules are listened to.

    Attributes:
        outputs: Name of each module that was called, with the digest of its output.
        kernels: What torch warned of.
    """

    def __init__(self, objects: Iterable[tuple[str, Any]]) -> None:
        self.outputs: list[tuple[str, str]] = []
        self.kernels: list[str] = []
        self._objects = [(name, unwrapped(value)) for name, value in objects]
        self._stack = contextlib.ExitStack()

    def begin(self) -> None:
        """Listen from here on."""
        for name, value in self._objects:
            if isinstance(value, torch.nn.Module):
                # Before any output: two runs may begin the step with other weights.
                self.outputs.append((f"{name}{BEFORE_STEP}", _digest(dict(value.state_dict()))))
                for path, module in value.named_modules(prefix=name):
                    handle = module.register_forward_hook(self._hook(path))
                    self._stack.callback(handle.remove)
        was_on, was_warning = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )
        if not was_on:
            torch.use_deterministic_algorithms(True, warn_only=True)
            self._stack.callback(torch.use_deterministic_algorithms, was_on, warn_only=was_warning)
        self._seen = self._stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")

    def end(self) -> None:
        """Listen no more."""
        for each in self._seen:
            text = str(each.message)
            if _KERNEL_WORDS in text:
                kernel = text.partition(_KERNEL_WORDS)[0].strip()
                self.kernels += [kernel] if kernel not in self.kernels else []
        self._stack.close()

    def _hook(self, path: str) -> Any:
        def note(_module: Any, _inputs: Any, output: Any) -> None:
            if len(self.outputs) < OUTPUTS_MAX:
                self.outputs.append((path, _digest(output)))

        return note


def _digest(output: Any) -> str:
    digest = xxhash.xxh3_64()
    for tensor in _tensors(output, 0):
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _tensors(value: Any, depth: int) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        if value.layout == torch.strided and not value.is_quantized:
            yield value.resolve_conj().resolve_neg()
    elif depth < _DEPTH_MAX and isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each, depth + 1)
    elif depth < _DEPTH_MAX and isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each, depth + 1)
