"""`trainerd adopt`: it says *resumable* only after a drill that found no difference."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("libcst")

from click.testing import CliRunner

from tests.unit.adoption.scripts_that_adopt import RIGHT
from trainerd.adoption.adopt_script import adopt_source
from trainerd.cli import adopted_drill
from trainerd.cli.adopt import command
from trainerd.cli.adopted_drill import NOT_DRILLED, NOT_ENOUGH, NOT_RESUMABLE, RESUMABLE, judged
from trainerd.cli.stop_signals import leaving_on_stop_signals
from trainerd.errors import UserError

SOURCE = RIGHT["module_level"]
ADOPTED = adopt_source(SOURCE).text


@pytest.fixture
def script(tmp_path):
    file = tmp_path / "train.py"
    file.write_text(SOURCE)
    file.chmod(0o755)
    return file


def fault(name, verdict="exact", message="", *, lacks_budget=False):
    return {
        "name": name, "title": f"a {name}", "verdict": verdict, "message": message,
        "lacks_budget": lacks_budget,
    }  # fmt: skip


FULL = {"verdict": "exact", "faults": [fault("undisturbed"), fault("drain"), fault("kill")]}


@pytest.fixture
def drill(monkeypatch):
    """Stand in for the command of the drill: ends with `code`, and keeps what it was called with."""

    class Drill:
        code, report, stderr = 0, FULL, ""
        called = None

        def run(self, command, *, is_shown):
            self.called, self.is_shown = command, is_shown
            if self.report is not None:
                Path(command[command.index("--report") + 1]).write_text(json.dumps(self.report))
            return self.code, self.stderr

    standing_in = Drill()
    monkeypatch.setattr(adopted_drill, "run_drill", standing_in.run)
    return standing_in


def adopt(*arguments):
    return CliRunner().invoke(command, [str(each) for each in arguments])


def test_after_a_drill_without_difference_it_is_resumable(script, drill):
    done = adopt(script, "--budget", "90s", "--", "--epochs", "2")
    new = script.with_name("train_adopted.py")
    assert done.exit_code == 0
    assert done.output.endswith(f"{new}: resumable: the drill found everything equal\n")
    assert "+with trainerd.session(seed=1) as session:" in done.output
    assert (script.read_text(), new.read_text()) == (SOURCE, ADOPTED)
    assert new.stat().st_mode & 0o777 == 0o755
    assert drill.called[1:7] == ["-P", "-m", "trainerd", "drill", "--budget", "90s"]
    assert drill.called[7] == "--report"
    assert drill.called[9:] == ["--", sys.executable, str(new), "--epochs", "2"]


def test_a_difference_is_not_resumable_and_leaves_the_script(script, drill):
    drill.code = 1
    done = adopt(script, "--in-place")
    assert done.exit_code == 1
    assert "resumable: the drill found everything equal" not in done.output
    assert "not resumable: the drill found a difference" in done.output
    assert "train.py: left as it is" in done.output
    assert script.read_text() == SOURCE


def test_without_a_drill_it_is_not_called_resumable(script, drill):
    done = adopt(script, "--no-drill")
    assert (done.exit_code, drill.called) == (0, None)
    assert "not drilled: whether it resumes is not known" in done.output
    new = script.with_name("train_adopted.py")
    assert done.output.endswith(f"; trainerd drill -- python {new} finds out\n")
    done = adopt(script, "--no-drill", "--in-place", "--", "--epochs", "2")
    assert (f"\n+++ {script}\n" in done.output, "_adopted" in done.output) == (True, False)
    assert done.output.endswith(f"; trainerd drill -- python {script} --epochs 2 finds out\n")
    assert "resumable" not in done.output


def test_in_place_replaces_the_script_after_the_drill(script, drill):
    assert adopt(script, "--in-place").exit_code == 0
    assert script.read_text() == ADOPTED
    assert script.stat().st_mode & 0o777 == 0o755
    assert [each.name for each in script.parent.iterdir()] == ["train.py"]


def test_in_place_leaves_a_script_that_was_changed_meanwhile(script, drill):
    run = drill.run

    def changing_run(command, **options):
        script.write_text("# edited\n")
        return run(command, **options)

    adopted_drill.run_drill = changing_run
    done = adopt(script, "--in-place")
    assert "was changed while the drill ran" in str(done.exception)
    assert script.read_text() == "# edited\n"


def test_an_earlier_result_is_not_overwritten(script, drill):
    new = script.with_name("train_adopted.py")
    new.write_text("# mine\n")
    assert "exists already" in str(adopt(script, "--no-drill").exception)
    assert new.read_text() == "# mine\n"
    assert adopt(script, "--no-drill", "--force").exit_code == 0
    assert adopt(script, "--no-drill").exit_code == 0  # the same again
    assert new.read_text() == ADOPTED


def test_a_refusal_has_file_line_and_reason_and_writes_nothing(script, drill):
    script.write_text(SOURCE.replace("for x, y in loader", "for x, y in batches()"))
    done = adopt(script)
    assert done.exit_code == 1
    assert (
        f"{script}:35: the loop trains over batches(), which is not known to be a DataLoader" in done.output
    )
    assert done.output.endswith(f"{script}: refused; nothing was written\n")
    assert [each.name for each in script.parent.iterdir()] == ["train.py"]


@pytest.mark.parametrize(
    ("contents", "verdict", "code"),
    [(SOURCE, "resumable", 0), ("import lightning\n" + SOURCE, "refused", 1), ("for in\n", "error", 2)],
    ids=["right", "refused", "not-python"],
)
def test_json_is_one_document(script, drill, contents, verdict, code):
    script.write_text(contents)
    done = adopt(script, "--json")
    document = json.loads(done.output)
    assert (done.exit_code, document["verdict"], document["file"]) == (code, verdict, str(script))
    if verdict == "resumable":
        assert (document["changed"], document["drill"]) == (2, FULL)
    elif verdict == "refused":
        assert document["refusals"][0]["line"] == 1
    else:
        assert document["line"] == 1


def test_a_missing_file_is_an_error_without_traceback(tmp_path):
    done = adopt(tmp_path / "none.py")
    assert (done.exit_code, isinstance(done.exception, SystemExit)) == (2, True)
    assert "none.py: No such file or directory" in done.output


def test_line_ends_and_encoding_are_kept(script, drill):
    text = "# -*- coding: latin-1 -*-\n" + SOURCE.replace("the data", "dät")
    script.write_bytes(text.replace("\n", "\r\n").encode("latin-1"))
    assert adopt(script, "--in-place").exit_code == 0
    assert script.read_bytes() == adopt_source(text).text.replace("\n", "\r\n").encode("latin-1")


@pytest.mark.parametrize(
    ("code", "report", "errors", "verdict"),
    [
        (0, FULL, "", RESUMABLE),
        (0, FULL, "drilling …\n", RESUMABLE),
        (0, None, "", NOT_DRILLED),
        (0, {**FULL, "verdict": "different"}, "", NOT_DRILLED),
        (1, FULL, "", NOT_RESUMABLE),
        (1, None, "", NOT_DRILLED),
        (1, None, "error: torch is not installed\n", NOT_DRILLED),
        (2, None, "Usage: trainerd\n\nError: there is no verb 'drill'\n", NOT_DRILLED),
        (-9, None, "", NOT_DRILLED),
        (130, FULL, "", NOT_DRILLED),
    ],
    ids=["full", "said", "no-report", "other", "differs", "1", "1-error", "usage", "killed", "interrupted"],
)
def test_only_a_drill_that_took_place_says_resumable(code, report, errors, verdict):
    assert judged(code, report, errors).verdict == verdict


@pytest.mark.parametrize(
    ("faults", "named"),
    [
        ([fault("drain")], "kill"),
        ([fault("kill")], "drain"),
        ([fault("drain"), fault("kill", "not-run", "a single step")], "a kill (a single step)"),
        (
            [fault("drain"), fault("kill"), fault("twice", "not-run", "used up", lacks_budget=True)],
            "a twice (used up)",
        ),
    ],
    ids=["no-kill", "no-drain", "kill-not-run", "budget"],
)
def test_a_drill_that_shows_too_little_is_not_resumable(script, drill, faults, named):
    drill.report = {"verdict": "exact", "faults": [fault("undisturbed"), *faults]}
    result = judged(0, drill.report, "")
    assert (result.verdict, named in result.reason) == (NOT_ENOUGH, True)
    done = adopt(script, "--in-place")
    assert (done.exit_code, script.read_text()) == (1, SOURCE)
    assert "not drilled enough: the drill did not show" in done.output
    assert "found everything equal" not in done.output


NOT_RUN = fault("undisturbed"), fault("drain", "not-run", "a single step"), fault("kill", "not-run", "same")


@pytest.mark.parametrize(
    ("faults", "verdict", "reason"),
    [
        (NOT_RUN, NOT_ENOUGH, "a drain (a single step)"),
        ((*FULL["faults"], fault("twice", "different")), NOT_RESUMABLE, "found a difference"),
        ((*FULL["faults"], fault("twice", "refused")), NOT_RESUMABLE, "an attempt after a fault failed"),
        ((fault("undisturbed", "different"), *NOT_RUN[1:]), NOT_RESUMABLE, "found a difference"),
    ],
    ids=["nothing-struck", "different", "refused", "undisturbed"],
)
def test_a_difference_is_said_only_where_one_was_found(faults, verdict, reason):
    result = judged(1, {"verdict": "different", "faults": list(faults)}, "")
    assert (result.verdict, reason in result.reason) == (verdict, True), result.reason


def test_a_budget_that_is_no_time_is_said_before_anything_is_written(script, drill):
    done = adopt(script, "--budget", "soon")
    assert (done.exit_code, drill.called) == (2, None)
    assert [each.name for each in script.parent.iterdir()] == ["train.py"]


def test_a_fault_that_does_not_apply_is_not_missed():
    report = {"verdict": "exact", "faults": [*FULL["faults"], fault("workers", "not-run", "no loader")]}
    assert judged(0, report, "").is_exact


def test_in_place_with_an_output_is_a_usage_error(script, drill):
    other = script.with_name("other.py")
    other.write_text("# mine\n")
    done = adopt(script, "--in-place", "-o", other, "--force")
    assert (done.exit_code, other.read_text(), drill.called) == (2, "# mine\n", None)


def test_in_place_leaves_the_changed_script_of_an_earlier_time(script, drill):
    new = script.with_name("train_adopted.py")
    assert adopt(script, "--no-drill").exit_code == 0
    assert adopt(script, "--in-place").exit_code == 0
    assert (script.read_text(), new.read_text()) == (ADOPTED, ADOPTED)


@pytest.mark.parametrize(("name", "said"), [("folder", "is a folder"), ("none/x.py", "is not there")])
def test_a_place_that_cannot_be_written_is_said_before_anything_is_run(script, drill, name, said):
    (script.parent / "folder").mkdir()
    done = adopt(script, "-o", script.parent / name)
    assert (type(done.exception), drill.called) == (UserError, None)
    assert said in str(done.exception)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["term", "hup"])
def test_a_drill_that_runs_is_stopped_where_adopt_is(monkeypatch, number):
    code = f"import os, time; os.kill(os.getppid(), {int(number)}); time.sleep(60)"
    former, started, make = signal.getsignal(number), [], subprocess.Popen

    def noted(*arguments, **options):
        started.append(make(*arguments, **options))
        return started[0]

    monkeypatch.setattr(adopted_drill.subprocess, "Popen", noted)
    with pytest.raises(SystemExit) as caught:
        adopted_drill.run_drill([sys.executable, "-S", "-c", code], is_shown=False)
    assert caught.value.code == 128 + number
    assert started[0].returncode == -signal.SIGTERM
    assert signal.getsignal(number) is former


def test_a_signal_that_is_ignored_stays_ignored():
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with leaving_on_stop_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


def test_a_missing_libcst_is_said_with_what_to_install(script, monkeypatch):
    monkeypatch.setitem(sys.modules, "libcst", None)
    for name in [name for name in sys.modules if name.startswith(("trainerd.adoption", "libcst."))]:
        monkeypatch.delitem(sys.modules, name)
    done = adopt(script)
    assert "needs libcst, which is not installed" in str(done.exception)
    assert "pip install 'trainerd[adopt]'" in str(done.exception)
