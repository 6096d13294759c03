"""A session analyses the script that opened it, once, and says what it finds."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from trainerd.contract.environment import CHECK
from trainerd.training.engine import caller_check
from trainerd.training.engine.suspicions import Suspicions

pytestmark = pytest.mark.torch

SCRIPT = """\
import torch, trainerd
model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for _ in range(2):
    with trainerd.session(f"run{_}") as session:
        session.track(model=model, optimizer=optimizer)
        total = 0.0
        for x in session.batches([torch.ones(1)]):
            total += x.item()MARK
        print([str(reason) for reason in session._run.suspicions.reasons])
"""


def run(tmp_path, source, *, stdin=None, **environment):
    script = tmp_path / "train.py"
    script.write_text(source)
    return subprocess.run(
        [sys.executable, "train.py" if stdin is None else "-"],
        cwd=tmp_path,
        input=stdin,
        env={**os.environ, CHECK: "on", **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )


def told(done):
    return [line for line in done.stderr.splitlines() if line.startswith("trainerd: warning: train.py")]


def test_a_finding_is_told_once_and_is_a_reason_of_every_session(tmp_path):
    done = run(tmp_path, SCRIPT.replace("MARK", ""))
    (line,) = told(done)
    assert line.startswith("trainerd: warning: train.py:9: total is carried from one batch to the next")
    assert "may not resume exactly: train.py" not in done.stderr
    assert done.stdout.count("train.py:9: total is carried") == 2


@pytest.mark.slow
def test_a_silenced_line_is_neither(tmp_path):
    done = run(tmp_path, SCRIPT.replace("MARK", "  # trainerd: ok"))
    assert (told(done), done.stdout) == ([], "[]\n[]\n")


@pytest.mark.slow
def test_a_program_from_standard_input_is_not_analysed(tmp_path):
    done = run(tmp_path, "", stdin=SCRIPT.replace("MARK", ""))
    assert (done.stderr.count("trainerd: warning"), done.stdout) == (0, "[]\n[]\n")


@pytest.mark.slow
def test_what_cannot_be_analysed_trains(tmp_path):
    """The script removes itself before it opens the session."""
    done = run(tmp_path, "import os; os.remove(__file__)\n" + SCRIPT.replace("MARK", ""))
    assert (told(done), done.stdout) == ([], "[]\n[]\n")


@pytest.mark.slow
def test_it_can_be_switched_off(tmp_path):
    assert "warning" not in run(tmp_path, SCRIPT.replace("MARK", ""), TRAINERD_CHECK="off").stderr


@pytest.mark.slow
def test_of_many_findings_a_few_are_told(tmp_path):
    more = "".join(f"            total{number} = 1 + total{number}\n" for number in range(15))
    first = "".join(f"total{number} = 0\n" for number in range(15))
    source = first + SCRIPT.replace("MARK", "").replace("        print", more + "        print")
    done = run(tmp_path, source)
    assert len(told(done)) == 10
    assert "trainerd: warning: and 6 more: trainerd check " in done.stderr


def test_what_the_session_raises_itself_is_told_and_no_reason(tmp_path, monkeypatch):
    script = tmp_path / "train.py"
    script.write_text(
        "import torch, trainerd\n"
        "model = torch.nn.Linear(1, 1)\n"
        "with trainerd.session() as session:\n"
        "    session.track(model=model)\n"
        "    for a, b in zip(session.batches(one), session.batches(two)):\n"
        "        train(model, a, b)\n"
    )
    monkeypatch.setattr(caller_check, "_caller", lambda: str(script))
    monkeypatch.delenv(CHECK, raising=False)
    suspicions, told_lines = Suspicions(lambda _: None), []
    caller_check.check_caller(suspicions, told_lines.append)
    assert suspicions.reasons == ()
    assert [line for line in told_lines if "two training loops are open at once" in line]
