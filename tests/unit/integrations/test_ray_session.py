"""The session for Ray Train, without a cluster. What a cluster does is in tests/integration/integrations."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
pytest.importorskip("ray", reason="ray is not installed: pip install -c constraints.txt '.[ray]'")

from ray.exceptions import RayActorError

from trainerd.contract.exit_codes import DRAINED
from trainerd.errors import UserError
from trainerd.integrations.ray import session as ray_session
from trainerd.training.integrations import ray_session as module

pytestmark = [pytest.mark.torch, pytest.mark.ray]


def test_outside_of_a_worker_it_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match="no worker of Ray Train") as caught:
        ray_session(tmp_path)
    assert "TorchTrainer" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_ray_gets_says_preempted_also_where_it_is_a_copy():
    end = module._end_for_ray(f"{module.PREEMPTED} of the node of rank 0 to rank 1")
    for each in (end, type(end)(*end.args), pickle.loads(pickle.dumps(end))):
        assert isinstance(each, RayActorError)
        assert each.preempted
        assert "drained: Ray Train: preemption" in str(each)


def test_a_drain_that_ray_did_not_announce_is_an_exit_and_no_preemption():
    end = module._end_for_ray("out of patience")
    assert isinstance(end, SystemExit)
    assert end.code == DRAINED


@pytest.mark.parametrize("kind", ["s3", "py::fsspec+memory"])
def test_a_storage_that_is_no_filesystem_is_refused_with_what_to_do(kind, monkeypatch):
    storage = SimpleNamespace(storage_filesystem=SimpleNamespace(type_name=kind))
    context = SimpleNamespace(get_storage=lambda: storage)
    monkeypatch.setattr(module.ray.train, "get_context", lambda: context)
    with pytest.raises(UserError, match=f"lies on {kind.replace('+', '.')}"):
        module._folder_of_experiment()
