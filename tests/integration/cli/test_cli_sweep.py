"""Jobs made of another spec: `sweep` and `clone`, and `stop --now`."""

from __future__ import annotations

import pytest
import yaml

from tests.support.fake_control import job
from trainerd.cli import submit
from trainerd.supervisor.specs.load import load_spec


@pytest.fixture
def accepting(supervisor, jobs_dir, monkeypatch):
    monkeypatch.setattr(submit, "POLL_S", 0.001)

    def accept() -> None:
        for path in jobs_dir.glob("*.yaml"):
            spec = load_spec(path, trust=None)
            supervisor.jobs[spec.name] = job(
                spec.name, "queued", reason="submitted", spec_digest=spec.spec_digest, spec_path=str(path)
            )

    supervisor.on_rescan = accept
    return supervisor


@pytest.fixture
def template(tmp_path):
    folder = tmp_path / "template"
    folder.mkdir()
    (folder / "mnist.yaml").write_text("command: python t.py --lr 0.1\nworkdir: .\nenv: {SEED: '0'}\n")
    return folder / "mnist.yaml"


@pytest.mark.usefixtures("accepting")
def test_a_sweep_places_one_spec_for_each_combination(trainerd, jobs_dir, template):
    words = ("sweep", template, "--set", "lr=0.1,1", "--set", "env.SEED=1..2")
    out = trainerd(*words, "--max-running", 2, "--name", "grid").stdout
    assert out.count(": queued: submitted\n") == 4
    specs = {path.stem: yaml.safe_load(path.read_text()) for path in jobs_dir.glob("*.yaml")}
    assert sorted(specs) == [f"grid-lr-{lr}-seed-{seed}" for lr in ("0.1", "1") for seed in (1, 2)]
    one = specs["grid-lr-1-seed-2"]
    assert one["command"] == ["python", "t.py", "--lr", "1"]
    assert (one["env"], one["workdir"]) == ({"SEED": "2"}, str(template.parent))
    assert one["group"] == {"name": "grid", "max_running": 2}
    refused = trainerd(*words, "--name", "grid", code=1).stderr
    assert "grid-lr-0.1-seed-1, grid-lr-0.1-seed-2" in refused
    assert "--replace" in refused
    more = trainerd("sweep", template, "--set", "lr=0.1,2", "--set", "env.SEED=1", "--name", "grid", code=1)
    assert "nothing was submitted" in more.stderr
    assert sorted(path.stem for path in jobs_dir.iterdir()) == sorted(specs)


def test_a_dry_run_of_a_sweep_needs_no_supervisor_and_writes_nothing(trainerd, template, jobs_dir):
    out = trainerd("sweep", template, "--set", "lr=1..3", "--dry-run").stdout
    assert out.splitlines()[0] == "mnist-lr-1: python t.py --lr 1"
    assert len(out.splitlines()) == 3
    assert list(jobs_dir.iterdir()) == []
    assert "--momentum" in trainerd("sweep", template, "--set", "momentum=1", "--dry-run", code=1).stderr
    assert "grace" in trainerd("sweep", template, "--set", "grace=fast", "--dry-run", code=1).stderr


@pytest.mark.usefixtures("accepting")
def test_a_clone_is_another_job_with_other_values(trainerd, jobs_dir, template):
    trainerd("submit", template)
    out = trainerd("clone", "mnist", "mnist-2", "--set", "lr=9").stdout
    assert out == "mnist-2: queued: submitted\n"
    spec = yaml.safe_load((jobs_dir / "mnist-2.yaml").read_text())
    assert (spec["name"], spec["command"][-1], spec["workdir"]) == ("mnist-2", "9", str(template.parent))
    assert "already a job" in trainerd("clone", "mnist", "mnist-2", code=1).stderr
    assert "mnist-3" in trainerd("clone", "mnist", "mnist-3", "--dry-run").stdout
    assert not (jobs_dir / "mnist-3.yaml").exists()
    assert "name" in trainerd("clone", "mnist", "No/Name", code=1).stderr


def test_stop_now_asks_a_second_time(trainerd, supervisor):
    trainerd("stop", "mnist", "--now")
    assert ("stop --now", "mnist") in supervisor.calls
