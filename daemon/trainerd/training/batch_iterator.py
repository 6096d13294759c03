"""What `session.batches` returns: the batches that are left, and how many that are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class BatchIterator:
    """Iterator over the batches that are left of a loop.

    A ``for`` over it iterates over the generator itself, which costs nothing more per batch, and which Python
    closes as soon as the loop is left.

    Args:
        batches: The generator.
        left: Returns how many batches it has left, None if that is not known.
    """

    def __init__(self, batches: Iterator[Any], left: Callable[[], int | None]) -> None:
        self._batches: Final = batches
        self._left: Final = left

    def __iter__(self) -> Iterator[Any]:
        return self._batches

    def __next__(self) -> Any:
        return next(self._batches)

    def __len__(self) -> int:
        """Return how many batches are left.

        Raises:
            TypeError: The loader does not say how many it has.
        """
        left = self._left()
        if left is None:
            raise TypeError("the number of batches is not known: the loader has no len()")
        return left

    def __length_hint__(self) -> int:
        return self._left() or 0
