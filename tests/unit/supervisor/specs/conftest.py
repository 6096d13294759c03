"""A folder in which a spec can be written and loaded in one line."""

from __future__ import annotations

import gc

import pytest

from trainerd.errors import SpecError
from trainerd.supervisor.specs.load import load_spec


@pytest.fixture(autouse=True, scope="module")
def _old_objects_are_set_aside():
    """A spec may cost so much processor time: to look through what other tests have left is no part of it."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class SpecBench:
    def __init__(self, folder):
        self.folder = folder

    def load(self, text, *, name="job.yaml", trust=None):
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_spec(path, trust=trust)

    def error(self, text, *, name="job.yaml"):
        """Return the error of a bad spec, its file's path cut out."""
        with pytest.raises(SpecError) as caught:
            self.load(text, name=name)
        return str(caught.value).replace(f"{self.folder}/", "")


@pytest.fixture
def bench(tmp_path):
    return SpecBench(tmp_path)
