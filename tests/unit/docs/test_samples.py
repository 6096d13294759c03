"""The samples of the pages run, resume exactly, and are accepted as specs."""

from __future__ import annotations

import gc
import grp
import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainerd.supervisor.specs.load import parse_spec

torch = pytest.importorskip("torch")
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _nothing_old_to_search() -> Iterator[None]:
    """Leave the objects of other tests out of the search for objects that train: it takes seconds."""
    gc.freeze()
    yield
    gc.unfreeze()


class Killed(Exception):  # noqa: N818 - stands for the end of a process
    pass


def samples(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text("utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(sample) for _, sample in found]


def parts(sample: str, killed_at: int | None) -> dict[str, Any]:
    """Return what a sample takes for granted: a model, its data and the functions that it calls."""
    import trainerd

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    # One that is there and not tracked is an error of the audit.
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9) if "schedule" in sample else None
    data = torch.utils.data.TensorDataset(torch.randn(12, 4), torch.arange(12) % 3)
    calls = 0

    def train_step(images: Any, targets: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == killed_at:
            raise Killed
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return {
        "trainerd": trainerd,
        "model": model,
        "optimizer": optimizer,
        "scheduler": schedule,
        "schedule": schedule,
        "train_loader": torch.utils.data.DataLoader(data, batch_size=4, shuffle=True),
        "train_step": train_step,
        "step": train_step,
        "evaluate": lambda model: model[0].weight.sum().item(),
    }


def run(sample: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int | None = None) -> Any:
    monkeypatch.setenv("TRAINERD_RUN_DIR", str(run_dir))
    monkeypatch.setenv("TRAINERD_CHECKPOINT_EVERY_EPOCHS", "4")
    names = parts(sample, killed_at)
    exec(compile(sample, "sample", "exec"), names)
    return {
        **names["model"].state_dict(),
        "momentum": names["optimizer"].state_dict()["state"][0]["momentum_buffer"],
    }


def loop_of(page: str) -> str:
    """Return the loop that a reader of a page copies first."""
    return next(sample for sample in samples(page, "python") if "session.epochs(10)" in sample)


def test_the_loop_of_the_readme_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = loop_of("README.md")
    undisturbed = run(sample, tmp_path / "undisturbed", monkeypatch)
    with pytest.raises(Killed):
        run(sample, tmp_path / "killed", monkeypatch, killed_at=11)  # in the middle of the fourth epoch
    resumed = run(sample, tmp_path / "killed", monkeypatch)
    assert {name: torch.equal(resumed[name], value) for name, value in undisturbed.items()} == dict.fromkeys(
        undisturbed, True
    )


@pytest.mark.parametrize(
    "page", ["docs/training-api.md", "docs/loop-shapes.md", "docs/migrate.md", "docs/notebooks.md"]
)
def test_the_loop_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(loop_of(page), tmp_path / "run", monkeypatch)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) >= 30


def test_every_spec_that_a_page_shows_is_valid() -> None:
    shown = [
        block
        for page in ["README.md", *(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))]
        for block in samples(page, "yaml")
        if re.search(r"^command:", block, re.MULTILINE)
    ]
    assert len(shown) >= 3
    for block in shown:
        parse_spec(Path("/nowhere/job.yaml"), block.encode())


TOML = [
    (page.name, number)
    for page in sorted((ROOT / "docs").glob("*.md"))
    for number, _ in enumerate(samples(f"docs/{page.name}", "toml"))
]


@pytest.mark.parametrize(("page", "number"), TOML)
def test_every_configuration_that_a_page_shows_is_valid(page: str, number: int, tmp_path: Path) -> None:
    from trainerd.supervisor.service.configuration import load_configuration

    path = tmp_path / "trainerd.toml"
    group = grp.getgrgid(os.getgid()).gr_name  # one that is there
    path.write_text(samples(f"docs/{page}", "toml")[number].replace("trainers", group))
    path.chmod(0o600)
    for name in ("slack-url", "smtp-password"):
        (tmp_path / name).write_text("https://hooks.example.org/x")
        (tmp_path / name).chmod(0o600)
    load_configuration(path)


def test_the_page_on_sweeps_shows_what_a_sweep_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from trainerd.cli.main import group

    text = (ROOT / "docs/sweeps.md").read_text("utf-8")
    (tmp_path / "job.yaml").write_text(samples("docs/sweeps.md", "yaml")[0])
    (tmp_path / "train.py").touch()
    monkeypatch.chdir(tmp_path)
    command, *shown = re.search(r"^    \$ trainerd (sweep .*\n(?:    .*\n)+)", text, re.MULTILINE)[
        1
    ].splitlines()
    result = CliRunner().invoke(group, command.split())
    assert result.output.splitlines() == [line.strip() for line in shown]


def test_the_spec_in_the_readme_is_of_the_example_that_it_names() -> None:
    import yaml

    [shown] = [yaml.safe_load(block) for block in samples("README.md", "yaml")]
    example = yaml.safe_load((ROOT / "jobs/examples/mnist/job.yaml").read_text())
    for field, value in shown.items():
        given = example[field]
        assert {**given, **value} == given if isinstance(value, dict) else value == given, field


def test_every_python_sample_compiles() -> None:
    for page in ["README.md", *(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))]:
        for block in samples(page, "python"):
            compile(block, page, "exec")


def test_the_readme_fits_on_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 115


def test_the_tutorial_shows_what_adopt_and_check_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("libcst")
    from click.testing import CliRunner

    from trainerd.cli.main import group

    text = (ROOT / "docs/tutorial.md").read_text("utf-8")
    (tmp_path / "train.py").write_text(samples("docs/tutorial.md", "python")[0])
    monkeypatch.chdir(tmp_path)
    for command in ("adopt train.py --in-place --no-drill", "check train.py"):
        shown = re.search(rf"^    \$ trainerd {command}\n((?:    .*\n|\n(?=    ))+)", text, re.MULTILINE)[1]
        lines = [line.removeprefix("    ").rstrip() for line in shown.splitlines()]
        result = CliRunner().invoke(group, command.split())
        assert [line.rstrip() for line in result.output.splitlines()] == lines
