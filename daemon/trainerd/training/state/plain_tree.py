"""Encoding on request what a checkpoint refuses: subclasses of dict, list and tuple, as plain ones."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import torch

_EXACT: Final[dict[type, Any]] = {OrderedDict: OrderedDict, Counter: Counter}
_PLAIN: Final[tuple[Any, ...]] = (bool, int, float, str, bytes)


def plain_tree(tree: Any) -> Any:
    """Return a tree in which every mapping is a dict, every list a list and every enum its value.

    A checkpoint holds no classes: a state with a subclass of dict, such as a framework's configuration, is
    refused, as it would come back as something else. This says that coming back as a plain dict is meant:
    ``session.track(trainer=…)`` of an object whose ``state_dict`` returns ``plain_tree(state)``.

    Tensors stay the very objects that they are. Named tuples become tuples. Anything else is left unchanged.

    Args:
        tree: The state.
    """
    if isinstance(tree, torch.Tensor):
        return tree
    if isinstance(tree, Enum):
        return plain_tree(tree.value)
    if isinstance(tree, Mapping):
        plain = {plain_tree(key): plain_tree(value) for key, value in tree.items()}
        if type(tree) is defaultdict:
            return defaultdict(tree.default_factory, plain)
        return _EXACT.get(type(tree), dict)(plain)
    if isinstance(tree, torch.Size):
        return tree
    if isinstance(tree, list):
        return [plain_tree(each) for each in tree]
    if isinstance(tree, tuple):
        return tuple([plain_tree(each) for each in tree])
    if type(tree).__module__ == "numpy" or type(tree) in _PLAIN:
        return tree
    return next((kind(tree) for kind in _PLAIN if isinstance(tree, kind)), tree)
