"""Submitting a spec: checked first, placed whole, its paths meaning what they meant."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from trainerd.contract import failpoints
from trainerd.errors import LockedError, SpaceError, SpecError, UserError
from trainerd.supervisor.specs import jobs_dir as jobs_dir_module
from trainerd.supervisor.specs.load import load_spec
from trainerd.supervisor.specs.placement import place_spec, plan_placement


class Placing:
    def __init__(self, root):
        self.jobs_dir = root / "jobs"
        self.jobs_dir.mkdir()
        self.source_dir = root / "project"
        self.source_dir.mkdir()
        self.said = []

    def write(self, text, name="job.yaml"):
        path = self.source_dir / name
        path.write_text(text)
        return path

    def place(self, source, *, replace=False):
        return place_spec(source, self.jobs_dir, replace=replace, say=self.said.append)

    def names(self):
        return sorted(path.name for path in self.jobs_dir.iterdir())


@pytest.fixture
def placing(tmp_path):
    return Placing(tmp_path)


def test_a_spec_is_placed_under_the_name_of_its_job(placing):
    assert (
        placing.place(placing.write("name: mnist\ncommand: a\nworkdir: /")) == placing.jobs_dir / "mnist.yaml"
    )
    assert placing.place(placing.write('{"command": "a", "workdir": "/"}', "two.json")).name == "two.json"
    assert placing.names() == ["mnist.yaml", "two.json"]


def test_a_spec_with_absolute_paths_is_placed_byte_for_byte(placing):
    source = placing.write("# mine\nname: x\ncommand:   a # odd\nworkdir: /\n")
    assert placing.place(source).read_bytes() == source.read_bytes()
    assert placing.said == []


@pytest.mark.parametrize(
    ("text", "placed"),
    [
        ("# mine\ncommand: a\n", "# mine\nworkdir: HERE\ncommand: a\n"),
        (
            "command: a\nworkdir: src   # the code\nnproc: 2\n",
            "command: a\nworkdir: HERE/src   # the code\nnproc: 2\n",
        ),
        ("---\ncommand: a", "---\nworkdir: HERE\ncommand: a"),
        (
            "command: a\nworkdir: .\nenv_file: secrets\npython: venv/python\n",
            "command: a\nworkdir: HERE\nenv_file: HERE/secrets\npython: HERE/venv/python\n",
        ),
    ],
)
def test_relative_paths_are_made_absolute_and_nothing_else_is_changed(placing, text, placed):
    (placing.source_dir / "src").mkdir()
    (placing.source_dir / "venv").mkdir()
    (placing.source_dir / "venv" / "python").symlink_to(sys.executable)
    (placing.source_dir / "secrets").touch(mode=0o600)
    target = placing.place(placing.write(text))
    assert target.read_text() == placed.replace("HERE", str(placing.source_dir))
    assert any("workdir is now" in sentence for sentence in placing.said)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("job.toml", 'command = "a"\n[env]\nA = "b"\n'),
        ("job.toml", 'command = "a"\nworkdir = "." # here\n'),
        ("job.json", '{"command": ["a"], "workdir": "."}'),
        ("job.json", '{"command": ["a"]}'),
        ("job.yml", "command: a\nworkdir: '.'"),
    ],
)
def test_relative_paths_are_made_absolute_in_every_format(placing, name, text):
    target = placing.place(placing.write(text, name))
    assert load_spec(target, trust=None).workdir == str(placing.source_dir)


def test_a_folder_with_a_strange_name_survives_the_rewriting(placing):
    strange = placing.source_dir / 'a: b #c "d" é'
    strange.mkdir()
    for number, suffix, text in [
        (1, "yaml", "command: a"),
        (2, "toml", 'command = "a"'),
        (3, "json", '{"command": "a"}'),
    ]:
        source = strange / f"job{number}.{suffix}"
        source.write_text(text)
        assert load_spec(placing.place(source), trust=None).workdir == str(strange)


@pytest.mark.parametrize(
    "text", ["{command: a}", "  command: a\n  name: x\n", "command: a\nworkdir: >-\n  .\n"]
)
def test_a_spec_of_unusual_shape_is_not_rewritten_by_guessing(placing, text):
    with pytest.raises(SpecError, match="write the absolute path: "):
        placing.place(placing.write(text))
    assert placing.names() == []


def test_a_workdir_that_is_meant_from_the_jobs_folder_is_left_as_it_is(placing):
    (placing.jobs_dir / "examples" / "mnist").mkdir(parents=True)
    source = placing.write("name: mnist\ncommand: a\nworkdir: examples/mnist\n")
    target = placing.place(source)
    assert target.read_bytes() == source.read_bytes()
    assert load_spec(target, trust=None).workdir == str(placing.jobs_dir / "examples" / "mnist")


def test_a_workdir_that_leads_nowhere_is_refused(placing):
    with pytest.raises(SpecError, match=r"exists neither in .*project nor in .*jobs"):
        placing.place(placing.write("command: a\nworkdir: nowhere"))
    assert placing.names() == []


def test_an_invalid_spec_is_not_placed(placing):
    with pytest.raises(SpecError, match="did you mean 'command'"):
        placing.place(placing.write("comand: a"))
    assert placing.names() == []


@pytest.mark.parametrize("name", ["My Job.yaml", "job.txt"])
def test_a_file_name_that_is_no_good_is_refused(placing, name):
    with pytest.raises(SpecError, match="rename"):
        placing.place(placing.write("command: a\nworkdir: /", name))


@pytest.mark.parametrize("present", ["mnist.yaml", "mnist.json", "other.yaml"])
def test_a_job_that_exists_is_replaced_only_on_request(placing, present):
    old = '{"command": "old", "name": "mnist", "workdir": "/"}'  # which is YAML too
    (placing.jobs_dir / present).write_text(old)
    source = placing.write("name: mnist\ncommand: new\nworkdir: /")
    with pytest.raises(UserError, match=r"there is already a job 'mnist'.*\n.*--replace"):
        placing.place(source)
    assert (placing.jobs_dir / present).read_text() == old
    assert load_spec(placing.place(source, replace=True), trust=None).command == ("new",)
    assert placing.names() == ["mnist.yaml"]


def test_a_broken_spec_of_the_same_name_is_not_overwritten_unasked(placing):
    (placing.jobs_dir / "job.yaml").write_text("half: [written")
    with pytest.raises(UserError, match="already a job"):
        placing.place(placing.write("command: a\nworkdir: /"))


def test_a_spec_that_is_in_the_jobs_folder_already_stays_as_it_is(placing):
    path = placing.jobs_dir / "job.yaml"
    path.write_text("command: a")
    assert placing.place(path) == path
    assert path.read_text() == "command: a"


def test_a_link_in_the_jobs_folder_is_not_written_through(placing):
    (placing.source_dir / "target.yaml").write_text("command: a\nname: job")
    (placing.jobs_dir / "job.yaml").symlink_to(placing.source_dir / "target.yaml")
    with pytest.raises(UserError, match="is a link"):
        placing.place(placing.write("command: b\nworkdir: /"), replace=True)


def test_a_folder_in_the_place_of_the_spec_is_not_touched(placing):
    (placing.jobs_dir / "job.yaml").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        placing.place(placing.write("command: b\nworkdir: /"), replace=True)


def test_the_placed_spec_can_be_written_by_nobody_else_and_stays_private_if_it_was(placing):
    source = placing.write("command: a\nworkdir: /")
    source.chmod(0o666)
    assert stat.S_IMODE(placing.place(source).stat().st_mode) & 0o022 == 0
    source.chmod(0o600)
    assert stat.S_IMODE(placing.place(source, replace=True).stat().st_mode) == 0o600


def test_without_a_jobs_folder_the_user_is_told_to_name_one(placing):
    source = placing.write("command: a\nworkdir: /")
    placing.jobs_dir.rmdir()
    with pytest.raises(UserError, match="there is no jobs folder"):
        placing.place(source)
    placing.jobs_dir.write_text("")
    with pytest.raises(UserError, match="is not a folder"):
        placing.place(source)


def test_who_submits_at_the_same_moment_waits_and_not_for_ever(placing, monkeypatch):
    monkeypatch.setattr(jobs_dir_module, "LOCK_LIMIT_S", 0.05)
    source = placing.write("command: a\nworkdir: /")
    descriptor = os.open(placing.jobs_dir, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(LockedError, match="try again"):
        placing.place(source)
    os.close(descriptor)
    placing.place(source)


def test_a_full_disk_leaves_the_old_spec_and_nothing_else(placing, monkeypatch):
    source = placing.write("command: a\nworkdir: /")
    old = placing.place(source).read_bytes()
    source.write_text("command: b\nworkdir: /")
    failpoints.arm("record.written=ENOSPC")
    try:
        with pytest.raises(SpaceError):
            placing.place(source, replace=True)
    finally:
        failpoints.arm("")
    assert placing.names() == ["job.yaml"]
    assert (placing.jobs_dir / "job.yaml").read_bytes() == old


@pytest.mark.parametrize(
    "point", ["record.written", "record.synced", "record.renamed", "record.durable", "spec.placed"]
)
def test_killed_at_any_point_the_folder_holds_the_old_spec_or_the_new_one(placing, point):
    """After a kill between the two the other ending is still there; submitting again removes it."""
    (placing.jobs_dir / "job.json").write_text('{"command": "old", "workdir": "/"}')
    source = placing.write("command: new\nworkdir: /")
    code = (
        "from pathlib import Path; from trainerd.supervisor.specs.placement import place_spec; "
        f"place_spec(Path({str(source)!r}), Path({str(placing.jobs_dir)!r}), replace=True)"
    )
    environ = {**os.environ, "TRAINERD_FAILPOINTS": f"{point}=kill"}
    assert subprocess.run([sys.executable, "-c", code], env=environ, check=False, timeout=60).returncode == -9
    specs = [path for path in placing.jobs_dir.iterdir() if not path.name.startswith(".")]
    assert {load_spec(path, trust=None).command for path in specs} <= {("old",), ("new",)}
    assert specs
    placing.place(source, replace=True)
    assert [name for name in placing.names() if name[0] != "."] == ["job.yaml"]


def test_the_example_of_the_repository_can_be_submitted_as_it_is(tmp_path):
    """Both ways of the README: cp into the folder, and trainerd submit."""
    jobs = Path(__file__).parents[3] / "jobs"
    for example in sorted((jobs / "examples").glob("*/job.yaml")):
        said = []
        target_dir = tmp_path / example.parent.name
        (target_dir / "examples").mkdir(parents=True)
        (target_dir / "examples" / example.parent.name).symlink_to(example.parent)
        assert plan_placement(example, target_dir).changes == ()
        assert not list(target_dir.glob("*.yaml"))
        target = place_spec(example, target_dir, replace=False, say=said.append)
        assert load_spec(target, trust=None).workdir == str(target_dir / "examples" / example.parent.name)
        assert said == []
