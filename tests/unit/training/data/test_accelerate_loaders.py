"""Accelerate's prepared loaders fetch a batch ahead: they are resumed by skipping."""

import pytest

from trainerd.training.data.iterable_source import IterableSource
from trainerd.training.data.sources import source_for

pytestmark = pytest.mark.torch


class Prepared:
    """A loader with the methods and the flag of accelerate's."""

    def __init__(self, *, is_stateful):
        self.use_stateful_dataloader = is_stateful

    def __iter__(self):
        return iter([1, 2, 3])

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@pytest.mark.parametrize("is_stateful", [False, True])
def test_the_state_of_a_prepared_loader_is_not_used(is_stateful):
    loader = Prepared(is_stateful=is_stateful)
    source = source_for(loader, seed=1, warn=lambda message: None, suspect=lambda reason: None)
    assert isinstance(source, IterableSource)
