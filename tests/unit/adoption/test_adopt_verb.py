"""`trainerd adopt`: it says *resumable* only after a drill that found no difference."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("libcst")

from click.testing import CliRunner

from tests.unit.adoption.scripts_that_adopt import RIGHT
from trainerd.adoption.adopt_script import adopt_source
from trainerd.cli import adopted_drill
from trainerd.cli.adopt import command
from trainerd.cli.adopted_drill import NOT_DRILLED, NOT_RESUMABLE, RESUMABLE, judged

SOURCE = RIGHT["module_level"]
ADOPTED = adopt_source(SOURCE).text


@pytest.fixture
def script(tmp_path):
    file = tmp_path / "train.py"
    file.write_text(SOURCE)
    file.chmod(0o755)
    return file


@pytest.fixture
def drill(monkeypatch):
    """Stand in for the command of the drill: ends with `code`, and keeps what it was called with."""

    class Drill:
        code, stdout, stderr = 0, "{}", ""
        called = None

        def run(self, arguments, **options):
            self.called = arguments
            output = self.stdout if options["stdout"] == subprocess.PIPE else None
            return subprocess.CompletedProcess(arguments, self.code, output, self.stderr)

    standing_in = Drill()
    monkeypatch.setattr(adopted_drill.subprocess, "run", standing_in.run)
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
    assert drill.called[1:6] == ["-m", "trainerd", "drill", "--budget", "90s"]
    assert drill.called[6:] == ["--", sys.executable, str(new), "--epochs", "2"]


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
    assert "resumable" not in done.output


def test_in_place_replaces_the_script_after_the_drill(script, drill):
    assert adopt(script, "--in-place").exit_code == 0
    assert script.read_text() == ADOPTED
    assert script.stat().st_mode & 0o777 == 0o755
    assert [each.name for each in script.parent.iterdir()] == ["train.py"]


def test_in_place_leaves_a_script_that_was_changed_meanwhile(script, drill):
    run = drill.run

    def changing_run(arguments, **options):
        script.write_text("# edited\n")
        return run(arguments, **options)

    adopted_drill.subprocess.run = changing_run
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
        assert (document["changed"], document["drill"]) == (2, {})
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
    ("code", "output", "errors", "verdict"),
    [
        (0, None, "", RESUMABLE),
        (0, '{"rows": []}', "drilling …\n", RESUMABLE),
        (0, "", "", NOT_DRILLED),
        (0, "Usage: …", "", NOT_DRILLED),
        (1, None, "", NOT_RESUMABLE),
        (1, "{}", "", NOT_RESUMABLE),
        (1, None, "error: torch is not installed\n", NOT_DRILLED),
        (2, None, "Usage: trainerd\n\nError: there is no verb 'drill'\n", NOT_DRILLED),
        (-9, None, "", NOT_DRILLED),
        (130, "{}", "", NOT_DRILLED),
    ],
    ids=lambda value: str(value)[:12],
)
def test_only_a_drill_that_took_place_says_resumable(code, output, errors, verdict):
    assert judged(code, output, errors).verdict == verdict


def test_a_missing_libcst_is_said_with_what_to_install(script, monkeypatch):
    monkeypatch.setitem(sys.modules, "libcst", None)
    for name in [name for name in sys.modules if name.startswith(("trainerd.adoption", "libcst."))]:
        monkeypatch.delitem(sys.modules, name)
    done = adopt(script)
    assert "needs libcst, which is not installed" in str(done.exception)
    assert "pip install 'trainerd[adopt]'" in str(done.exception)
