"""Trackers by name: what the script and the spec say, and what happens to a name that cannot be used."""

from __future__ import annotations

import sys
import types

import pytest

import trainerd
from trainerd.contract import environment as env
from trainerd.errors import UserError
from trainerd.training.settings import resolve_settings

pytestmark = pytest.mark.torch


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Trackers that note the sessions they follow."""
    called: list[object] = []
    for name in ("tensorboard", "wandb"):
        module = types.ModuleType(f"trainerd.integrations.{name}")
        module.follow = called.append  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return called


def settings(said: object, environ: dict[str, str]) -> tuple[str, ...]:
    return resolve_settings(
        run_dir="run", seed=0, every=None, keep_last=3, keep_best=None, keep_every=None, grace_s=None,
        trackers=said, environ=environ,
    ).trackers  # type: ignore[arg-type]  # fmt: skip


def test_the_environment_wins_over_the_script() -> None:
    assert settings(["tensorboard", "tensorboard"], {}) == ("tensorboard",)
    assert settings("wandb", {}) == ("wandb",)
    assert settings(["tensorboard"], {env.TRACKERS: "wandb, mlflow"}) == ("wandb", "mlflow")
    assert settings(["tensorboard"], {env.TRACKERS: ""}) == ()


def test_a_name_that_is_none_of_them_is_refused() -> None:
    with pytest.raises(UserError, match="no tracker 'tensorbord'") as caught:
        settings(["tensorbord"], {})
    assert caught.value.hint == "did you mean 'tensorboard'?"
    with pytest.raises(UserError, match="TRAINERD_TRACKERS='aim' cannot be read"):
        settings([], {env.TRACKERS: "aim"})
    with pytest.raises(UserError, match="a list of names of trackers is meant"):
        settings([7], {})


def test_each_tracker_follows_the_session(tmp_path, called) -> None:
    with trainerd.session(tmp_path, trackers=["tensorboard", "wandb"]) as session:
        assert called == [session, session]


def test_a_package_that_is_missing_is_said_before_the_run_is_touched(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "trainerd.integrations.wandb", None)
    with pytest.raises(UserError, match="wandb cannot be imported") as caught:
        trainerd.session(tmp_path / "run", trackers="wandb")
    assert "trainerd[wandb]" in str(caught.value.hint)
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_fails_ends_the_attempt(tmp_path, called, monkeypatch) -> None:
    def fail(session: object) -> None:
        raise UserError("no disk for events")

    monkeypatch.setattr(sys.modules["trainerd.integrations.wandb"], "follow", fail)
    with pytest.raises(UserError, match="no disk"), trainerd.session(tmp_path, trackers="wandb"):
        pass
    with trainerd.session(tmp_path) as session:  # the lock of the run was released
        assert session.attempt == 2
