"""submit, edit and rm with a real supervisor: what they say beforehand, and what then happens."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.daemon_bench import OBEDIENT, script
from trainerd.cli import edit
from trainerd.cli.main import group
from trainerd.contract import failpoints
from trainerd.errors import UserError
from trainerd.supervisor.purge import PURGED_PREFIX, purge_run
from trainerd.supervisor.specs.remove import remove_specs


@pytest.fixture
def trainerd(bench):
    def run(*words: object, code: int = 0):
        result = CliRunner().invoke(group, [str(word) for word in (*words, "--state", bench.state.root)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def editor(bench, monkeypatch):
    """An editor that does what it is told: `editor("replace", old, new)`."""
    program = bench.root / "editor.py"
    program.write_text(
        "import sys, pathlib\n"
        "old, new, path = sys.argv[1:]\n"
        "file = pathlib.Path(path)\n"
        "file.write_text(file.read_text().replace(old, new))\n"
    )

    def set_editor(old: str, new: str) -> None:
        monkeypatch.setenv("VISUAL", f"{sys.executable} {program} '{old}' '{new}'")

    return set_editor


def test_rm_drains_what_runs_and_leaves_the_run_folder(bench, trainerd):
    bench.start()
    spec = bench.drop("ant", script("ant", OBEDIENT))
    bench.wait_running("ant")
    plan = trainerd("rm", "ant", "--dry-run").stdout
    assert plan.startswith("ant: it drains, and is then forgotten\n")
    assert f"its run folder stays: {bench.state.run('ant').root}" in plan
    assert (bench.job("ant")["state"], spec.exists()) == ("running", True)
    trainerd("rm", "ant")
    assert bench.job("ant") is None
    assert not spec.exists()
    assert (bench.state.run("ant").attempt(1).root / "exit.json").exists()


def test_rm_purge_deletes_the_run_folder_and_asks_first(bench, trainerd):
    bench.start()
    bench.drop("ant", script("ant", "exit 0"))
    bench.wait_state("ant", "finished")
    assert "give --yes" in trainerd("rm", "ant", "--purge", code=1).stderr
    assert bench.job("ant")["state"] == "finished"
    assert "deleted for good" in trainerd("rm", "ant", "--purge", "--yes").stdout
    assert not bench.state.run("ant").root.exists()
    assert bench.job("ant") is None


def test_rm_of_several_removes_none_if_one_has_no_spec(bench):
    first = bench.write("ant", "{}")
    with pytest.raises(UserError, match="no spec of 'bee'"):
        remove_specs(["ant", "bee"], bench.jobs)
    assert first.exists()


def test_rm_takes_every_file_that_claims_the_name_and_of_a_link_the_link_alone(bench):
    """Else the second would take over, and the job be back."""
    target = bench.root / "elsewhere.json"
    target.write_text('{"name": "ant", "command": "true"}')
    (bench.jobs / "one.json").symlink_to(target)
    bench.write("ant", '{"command": "true"}')
    assert [path.name for path in remove_specs(["ant"], bench.jobs)] == ["ant.json", "one.json"]
    assert target.exists()
    assert list(bench.jobs.glob("*.json")) == []


def test_a_purge_cut_short_is_completed_by_the_next(bench):
    run = bench.state.run("ant")
    run.root.mkdir(parents=True)
    failpoints.arm("run.purged=EIO")
    try:
        with pytest.raises(UserError):
            purge_run(run)
    finally:
        failpoints.arm("")
    assert not run.root.exists()
    assert (bench.state.runs / f"{PURGED_PREFIX}ant").exists()
    purge_run(bench.state.run("bee"))
    assert list(bench.state.runs.iterdir()) == []


def test_edit_says_what_will_happen_and_the_job_goes_on_under_the_new_spec(bench, trainerd, editor):
    bench.start()
    spec = bench.drop("ant", script("ant", OBEDIENT))
    spec.chmod(0o600)
    bench.wait_running("ant")
    editor('"grace": 5', '"grace": 7')
    plan = trainerd("edit", "ant", "--dry-run").stdout
    assert plan == (
        "ant: it drains, and goes on from its newest checkpoint under the new spec\n  ~ grace: 5.0 -> 7.0\n"
    )
    assert '"grace": 5' in spec.read_text()
    trainerd("edit", "ant", "--yes")
    assert json.loads(spec.read_text())["grace"] == 7
    assert stat.S_IMODE(spec.stat().st_mode) == 0o600
    bench.wait_running("ant", attempt=2)


def test_edit_finds_the_spec_of_a_job_whose_file_was_renamed(bench, trainerd, editor):
    """At once, though the supervisor knows of its old name until it has looked."""
    bench.start()
    said = {"name": "ant", "command": ["sh", "-c", script("ant", OBEDIENT)], "workdir": str(bench.work)}
    old = bench.write("ant", json.dumps(said | {"grace": 5}))
    bench.wait_running("ant")
    editor('"grace": 5', '"grace": 7')
    new = old.rename(bench.jobs / "renamed.json")
    assert "~ grace: 5.0 -> 7.0" in trainerd("edit", "ant", "--dry-run").stdout
    bench.wait_for(lambda: f"{new}\n" in trainerd("status", "ant").stdout, "the new path to be shown")
    trainerd("edit", "ant")
    assert '"grace": 7' in new.read_text()
    bench.wait_running("ant", attempt=2)


def test_a_mistake_made_in_the_editor_changes_nothing_and_the_copy_stays(bench, trainerd, editor):
    bench.start()
    spec = bench.drop("ant", script("ant", OBEDIENT))
    bench.wait_running("ant")
    before = spec.read_bytes()
    editor("grace", "garce")
    result = trainerd("edit", "ant", code=1)
    assert "did you mean 'grace'" in result.stderr
    (copy,) = [word for word in result.stderr.split() if word.startswith("/") and word.endswith(".json")][-1:]
    assert "garce" in Path(copy).read_text()
    Path(copy).unlink()
    assert (spec.read_bytes(), bench.job("ant")["state"]) == (before, "running")
    editor("x", "x")
    assert trainerd("edit", "ant").stdout == "ant: unchanged\n"


def test_a_spec_that_somebody_else_changed_meanwhile_is_left_alone(bench, trainerd, editor, monkeypatch):
    bench.start()
    spec = bench.drop("ant", script("ant", OBEDIENT))
    bench.wait_running("ant")
    editor('"grace": 5', '"grace": 7')
    run_editor = edit._run_editor

    def meanwhile(copy) -> None:
        run_editor(copy)
        spec.write_text(spec.read_text().replace('"grace": 5', '"grace": 9'))

    monkeypatch.setattr(edit, "_run_editor", meanwhile)
    assert "changed by another program" in trainerd("edit", "ant", "--yes", code=1).stderr
    assert json.loads(spec.read_text())["grace"] == 9


def test_submit_shows_what_a_replacement_will_do(bench, trainerd, tmp_path):
    bench.start()
    mine = tmp_path / "ant.json"
    mine.write_text(json.dumps({"command": ["sh", "-c", "exit 0"], "workdir": "/"}))
    assert "a new job" in trainerd("submit", mine, "--dry-run").stdout
    assert bench.job("ant") is None
    trainerd("submit", mine)
    bench.wait_state("ant", "finished")
    mine.write_text(json.dumps({"command": ["sh", "-c", "exit 0"], "workdir": "/", "priority": 2}))
    plan = trainerd("submit", mine, "--replace", "--dry-run").stdout
    assert plan == "ant: it goes on from its last checkpoint under the new spec\n  ~ priority: 0 -> 2\n"
    assert "~ priority: 0 -> 2" in trainerd("submit", mine, "--replace").stderr
