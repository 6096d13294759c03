"""The rows in a shuffle buffer of Hugging Face's are in no state: a resume that loses them is named."""

import pytest

from trainerd.training.data.stateful_source import StatefulSource

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(("has_buffer", "done"), [(True, 2), (True, 0), (False, 2)])
def test_a_resume_within_a_pass_over_a_shuffle_buffer_is_named(has_buffer, done):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    stream = datasets.Dataset.from_dict({"x": [1, 2, 3, 4]}).to_iterable_dataset()
    if has_buffer:
        stream = stream.shuffle(buffer_size=2, seed=1).map(dict)
    next(iter(stream))
    found = []
    StatefulSource(stream, seed=0, suspect=found.append).begin({"loader": stream.state_dict()}, done)
    assert [each.kind for each in found] == (["shuffle-buffer"] if has_buffer and done else [])
