"""A session analyses the script that opened it, once, and says what it finds."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import trainerd
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


MOMENTUM = """\
import torch, trainerd
with trainerd.session("run", seed=0) as session:
    model = torch.nn.Linear(3, 3)
    session.track(model=model)
    velocities = [torch.zeros_like(each) for each in model.parameters()]
    for x in session.batches(list(torch.randn(8, 4, 3))):
        model.zero_grad()
        model(x).square().mean().backward()
        for each, velocity in zip(model.parameters(), velocities):
            velocity.mul_(0.9).add_(each.grad)
            each.data.add_(velocity, alpha=-0.05)
    print([reason.kind for reason in session._run.suspicions.reasons])
"""


def test_what_the_source_and_the_steps_show_is_one_reason(tmp_path):
    assert run(tmp_path, MOMENTUM).stdout == "['carried-variable']\n"
    assert (
        run(tmp_path, MOMENTUM.replace('"run"', '"other"'), **{CHECK: "off"}).stdout
        == "['hand-kept-state']\n"
    )


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
    caller_check.CallerCheck(suspicions, told_lines.append).begin()
    assert suspicions.reasons == ()
    assert [line for line in told_lines if "two training loops are open at once" in line]


TWO_WAYS = """\
import sys
import torch, trainerd

def once(session, loader):
    total = 0.0
    for x in session.batches(loader):
        model(x).sum().backward()

def pretrain(session, loader):
    averaged = torch.optim.swa_utils.AveragedModel(model)
    total = 0.0
    for x in session.batches(loader):
        total += x.item()
    return x

def both(session, loader, way):
    count = 0.0
    if way == "both-1":
        for x in session.batches(
            loader,
        ):
            count += x.item()
    elif way == "both-2":
        for x in session.batches(loader):
            count += x.item()
    return x

def epochs(session, loader, way):
    best = 0
    for epoch in range(2):
        if way == "epochs-1":
            once(session, loader)
        else:
            pretrain(session, loader)
        best = best + epoch
        if best > 5:
            break

model = torch.nn.Linear(1, 1)
with trainerd.session(strict=False) as session:
    session.track(model=model)
    way, loader = sys.argv[1], [torch.ones(1)]
    ways = {"once": once, "pretrain": pretrain}
    if way in ways:
        ways[way](session, loader)
    elif way.startswith("both"):
        both(session, loader, way)
    else:
        epochs(session, loader, way)
"""


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("once", set()),
        ("pretrain", {(10, "untracked-object"), (13, "carried-variable"), (14, "read-after-loop")}),
        ("both-1", {(25, "carried-variable"), (26, "read-after-loop")}),
        ("both-2", {(25, "carried-variable"), (26, "read-after-loop")}),
        ("epochs-1", {(35, "carried-variable")}),
        (
            "epochs-2",
            {
                (10, "untracked-object"),
                (13, "carried-variable"),
                (14, "read-after-loop"),
                (35, "carried-variable"),
            },
        ),
    ],
)
def test_what_is_found_counts_once_a_loop_that_it_is_about_is_opened(way, expected, tmp_path, monkeypatch):
    script = tmp_path / "train.py"
    script.write_text(TWO_WAYS)
    monkeypatch.setattr(sys, "argv", ["train.py", way])
    monkeypatch.setenv("TRAINERD_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(caller_check, "_caller", lambda: str(script))
    monkeypatch.delenv(CHECK, raising=False)
    variables = {"__name__": "__main__"}
    exec(compile(TWO_WAYS, str(script), "exec"), variables)
    reasons = variables["session"]._run.suspicions.reasons
    found = [each for each in reasons if each.where.startswith("train.py:")]
    assert {(int(each.where.split(":")[1]), each.kind) for each in found} == expected


OTHER_FILE = """\
class Trainer:
    def __init__(self, sess, model, loader):
        self.sess, self.model, self.loader = sess, model, loader
        self.best = 9.0

    def fit(self):
        for epoch in self.sess.epochs(2):
            for x in self.sess.batches(self.loader):
                self.model(x).sum().backward()
            self.best = min(self.best, epoch)
            if self.best < -1:
                break

def train(sess, model, loader, seen, box, counts):
    total = 0.0
    for x in sess.batches(loader):
        (model(x).sum() / (1 + total)).backward()
        total += x.item()
        seen.append(total)
        box.value += len(seen)
        counts["n"] += 1
    return counts["n"]

def others(sess, loader):
    unused = 0
    for x in sess.batches(loader):
        unused = unused + 1
    return unused
"""


@pytest.fixture
def other_file(tmp_path, monkeypatch):
    """A file of the program beside the script that opens the session: what it defines."""
    script, other = tmp_path / "train.py", tmp_path / "engine.py"
    script.write_text("import trainerd\n")
    other.write_text(OTHER_FILE)
    monkeypatch.setattr(caller_check, "_caller", lambda: str(script))
    monkeypatch.delenv(CHECK, raising=False)
    variables = {"__name__": "engine_of_a_test"}
    exec(compile(OTHER_FILE, str(other), "exec"), variables)
    return variables


def found_in_other_file(session):
    return {
        (int(each.where.split(":")[1]), each.detail.split()[0])
        for each in session._run.suspicions.reasons
        if each.where.startswith("engine.py:")
    }


@pytest.mark.parametrize("is_kept", [False, True])
def test_a_file_that_opens_a_loop_is_analysed_and_what_the_session_keeps_is_not_named(
    is_kept, other_file, tmp_path, capsys
):
    model, loader = torch.nn.Linear(1, 1), [torch.ones(1)] * 2
    with trainerd.session(tmp_path / "run", strict=False) as session:
        session.track(model=model)
        seen, counts = [], {"n": 0}
        if is_kept:
            seen, counts = session.value("seen", seen).value, session.value("counts", counts).value
        other_file["train"](session, model, loader, seen, session.value("box", 0), counts)
    assert found_in_other_file(session) == {(17, "total")} | (
        set() if is_kept else {(19, "seen"), (21, "counts")}
    )
    assert capsys.readouterr().err.count("may not resume exactly: engine.py:17: total is carried") == 1


def test_a_session_in_an_attribute_of_another_name_is_known(other_file, tmp_path):
    model = torch.nn.Linear(1, 1)
    with trainerd.session(tmp_path / "run", strict=False) as session:
        session.track(model=model)
        other_file["Trainer"](session, model, [torch.ones(1)]).fit()
    assert found_in_other_file(session) == {(10, "self.best")}


def test_without_a_loop_in_it_another_file_is_not_analysed(other_file, tmp_path):
    model = torch.nn.Linear(1, 1)
    with trainerd.session(tmp_path / "run", strict=False) as session:
        session.track(model=model)
        for x in session.batches([torch.ones(1)]):
            model(x).sum().backward()
    assert found_in_other_file(session) == set()
    assert other_file
