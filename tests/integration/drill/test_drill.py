"""`trainerd drill` on whole programs: right ones, and ones that are wrong in a way that it must name."""

from __future__ import annotations

import shutil
import sys

import pytest

from tests.support.drill_command import LIMIT_S, by_name, drill
from tests.support.training_runs import REPOSITORY, TINY

SCRIPT = REPOSITORY / "tests" / "support" / "scripts" / "drilled.py"
SAVES_ALONE = REPOSITORY / "tests" / "support" / "scripts" / "drilled_saves.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT_S + 50)]


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(TINY, folder / "train.py")
    shutil.copy(SCRIPT, folder / "drilled.py")
    shutil.copy(SAVES_ALONE, folder / "saves.py")
    return folder


def test_a_right_script_is_exact_in_every_fault_and_its_folder_is_as_before(project):
    code, report, said = drill(project, "--budget", "10m", "--", sys.executable, "train.py", "--epochs", "2")
    assert code == 0, (report, said)
    faults = by_name(report)
    assert {name: each["verdict"] for name, each in faults.items()} == dict.fromkeys(
        ("undisturbed", "drain", "kill", "after-loop", "evaluation", "epoch-end", "twice", "workers"), "exact"
    )
    assert faults["kill"]["steps_lost"] == 1
    assert faults["drain"]["steps_lost"] == 0
    # A save that is due while another is in flight is skipped; the final one never is.
    assert all(each["compared"]["states"] >= 1 for each in faults.values())
    assert all(each["compared"]["samples"] == 20 for each in faults.values())
    assert sorted(path.name for path in project.iterdir()) == ["drilled.py", "saves.py", "train.py"]


def test_a_variable_carried_between_batches_is_found_and_named(project):
    code, report, _ = drill(
        project, "--budget", "10m", "--fault", "drain", "--", sys.executable, "drilled.py", "carried"
    )
    assert code == 1
    drained = by_name(report)["drain"]
    assert drained["verdict"] == "different"
    first = drained["compared"]["differences"][0]
    assert (first["step"], first["where"]) == (3, "model.weight")
    cause = drained["causes"][0]
    assert cause["kind"] == "variable carried between batches"
    assert cause["where"].startswith("drilled.py:")
    assert "momentum" in cause["detail"]


def test_weights_without_a_seed_are_told_from_a_resume_that_is_not_exact(project):
    code, report, _ = drill(
        project, "--budget", "10m", "--fault", "kill", "--", sys.executable, "drilled.py", "unseeded"
    )
    assert code == 1
    faults = by_name(report)
    assert (faults["undisturbed"]["verdict"], faults["kill"]["verdict"]) == ("different", "not-run")
    cause = faults["undisturbed"]["causes"][0]
    assert (cause["kind"], cause["where"]) == ("nondeterministic from the start", "model")


def test_a_script_with_a_checkpointer_alone_is_drilled_by_its_saves(project, tmp_path):
    real = tmp_path / "real"
    command = (sys.executable, "saves.py", "right", str(real))
    code, report, said = drill(
        project, "--budget", "10m", "--fault", "drain", "--fault", "kill", "--", *command
    )
    assert code == 0, (report, said)
    faults = by_name(report)
    assert {name: each["verdict"] for name, each in faults.items()} == dict.fromkeys(
        ("undisturbed", "drain", "kill"), "exact"
    )
    # Its own handler of SIGTERM saves at the end of the epoch; a SIGKILL loses what came since the save.
    assert (faults["drain"]["steps_lost"], faults["kill"]["steps_lost"]) == (0, 3)
    assert faults["kill"]["compared"]["states"] == 4
    assert any("samples" in each for each in report["unseen"])
    assert not real.exists()


def test_a_script_with_a_checkpointer_alone_that_does_not_seed_its_epochs_is_different(project, tmp_path):
    command = (sys.executable, "saves.py", "unseeded-epochs", str(tmp_path / "real"))
    code, report, _ = drill(project, "--budget", "10m", "--fault", "kill", "--", *command)
    assert code == 1
    killed = by_name(report)["kill"]
    first = killed["compared"]["differences"][0]
    assert (killed["verdict"], first["kind"], first["step"]) == ("different", "state", 12)
    assert killed["causes"][0]["kind"] == "generator"
