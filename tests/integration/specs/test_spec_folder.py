"""What the jobs folder says while users and editors do to it what they do."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from trainerd.errors import UntrustedError
from trainerd.supervisor.specs import folder as folder_module
from trainerd.supervisor.specs.folder import BROKEN_SETTLE_S, SETTLE_S
from trainerd.supervisor.specs.view import Accepted, Refused

JUST_BEFORE_S = SETTLE_S - 0.1


def kinds(view):
    return {name: type(reading).__name__ for name, reading in view.specs.items()}


def command(view, name="job"):
    return view.specs[name].job.command


# Dropping


def test_a_dropped_spec_is_read_once_it_has_settled(jobs):
    path = jobs.write("job.yaml")
    fresh = jobs.scan()
    assert (fresh.specs, fresh.unsettled) == ({}, (path,))
    assert 0 < fresh.look_again_s <= SETTLE_S
    view = jobs.scan(after_s=SETTLE_S)
    assert (kinds(view), view.unsettled, view.look_again_s) == ({"job": "Accepted"}, (), None)


def test_a_spec_that_was_there_long_before_the_supervisor_is_read_at_once(jobs):
    jobs.write("job.yaml")
    jobs.clock.wall_ahead_s = 60.0
    assert kinds(jobs.scan()) == {"job": "Accepted"}


def test_a_half_written_spec_is_not_read_though_it_is_valid_so_far(jobs):
    path = jobs.write("job.yaml", "command: a\n")
    jobs.scan()
    for _ in range(5):
        jobs.clock.passed_s += JUST_BEFORE_S
        with path.open("a") as file:
            file.write("# more\n")
        assert jobs.scan().specs == {}
    assert kinds(jobs.settled()) == {"job": "Accepted"}


def test_a_file_written_a_moment_ago_by_the_kernels_clock_is_not_read_yet(jobs):
    jobs.clock.wall_ahead_s = 0.0
    jobs.write("job.yaml")
    view = jobs.scan()
    assert view.specs == {}
    assert 0 < view.look_again_s <= SETTLE_S


def test_a_file_dated_in_the_future_settles_by_the_supervisors_own_watch(jobs):
    jobs.write("job.yaml")
    assert jobs.scan().specs == {}
    assert kinds(jobs.scan(after_s=SETTLE_S)) == {"job": "Accepted"}


def test_a_spec_broken_in_mid_write_is_not_refused_until_it_stays_so(jobs):
    path = jobs.write("job.yaml", "command: [a,")
    jobs.scan()
    assert jobs.scan(after_s=SETTLE_S).specs == {}
    path.write_text("command: [a, b]")
    assert command(jobs.settled()) == ("a", "b")


def test_a_spec_that_stays_broken_is_refused_with_its_error(jobs):
    path = jobs.write("job.yaml", "command: [a,")
    reading = jobs.settled().specs["job"]
    assert isinstance(reading, Refused)
    assert reading.error_text.startswith(f"{path}:1: not valid YAML")


def test_an_empty_file_waits_and_is_refused_in_the_end(jobs):
    jobs.write("job.yaml", "")
    jobs.scan()
    assert jobs.scan(after_s=SETTLE_S).specs == {}
    view = jobs.scan(after_s=BROKEN_SETTLE_S)
    assert "the file is empty" in view.specs["job"].error_text


@pytest.mark.parametrize(
    "name", [".hidden.yaml", "job.yaml~", ".job.yaml.swp", "job.yaml.tmp", "#job.yaml#",
             "README.md", "job", "job.yaml.bak", ".job.yaml.tmp-1-2"]
)  # fmt: skip
def test_what_is_no_spec_by_its_name_is_not_looked_at(jobs, name):
    jobs.write(name, "this is: [no spec")
    (jobs.path / "examples").mkdir()
    (jobs.path / "examples" / "job.yaml").write_text("nonsense")
    view = jobs.scan(after_s=60.0)
    assert (view.specs, view.unsettled) == ({}, ())


def test_one_bad_spec_does_not_keep_the_others_from_being_read(jobs):
    jobs.write("bad.yaml", "comand: a")
    jobs.write("good.yaml")
    assert kinds(jobs.settled()) == {"bad": "Refused", "good": "Accepted"}


# Not files


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: path.mkdir(), "is a folder"),
        (os.mkfifo, "is a named pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device"),
        (lambda path: path.symlink_to("nowhere"), "does not exist"),
        (lambda path: path.symlink_to("job.yaml"), "leads back to itself"),
    ],
    ids=["folder", "pipe", "device", "dangling", "loop"],
)
def test_what_is_no_file_is_refused_and_never_waited_on(jobs, make, expected):
    make(jobs.path / "job.yaml")
    jobs.write("good.yaml")
    view = jobs.settled()
    assert kinds(view) == {"good": "Accepted", "job": "Refused"}
    assert expected in view.specs["job"].error_text


def test_a_spec_replaced_by_a_folder_is_refused_under_its_name_and_comes_back(jobs):
    path = jobs.write("job.yaml")
    jobs.settled()
    path.unlink()
    path.mkdir()
    assert kinds(jobs.settled()) == {"job": "Refused"}
    path.rmdir()
    jobs.write("job.yaml", "command: b")
    assert command(jobs.settled()) == ("b",)


def test_a_link_is_followed_and_a_change_of_its_target_is_seen(jobs, tmp_path):
    target = tmp_path / "target.yaml"
    target.write_text("command: a")
    (jobs.path / "job.yaml").symlink_to(target)
    assert command(jobs.settled()) == ("a",)
    target.write_text("command: bb")
    assert command(jobs.settled()) == ("bb",)


def test_a_link_whose_target_is_being_replaced_keeps_what_it_said(jobs, tmp_path):
    target = tmp_path / "target.yaml"
    target.write_text("command: a")
    (jobs.path / "job.yaml").symlink_to(target)
    jobs.settled()
    target.unlink()
    jobs.scan()
    assert kinds(jobs.scan(after_s=SETTLE_S)) == {"job": "Accepted"}
    assert kinds(jobs.settled()) == {"job": "Refused"}
    target.write_text("command: b")
    assert command(jobs.settled()) == ("b",)


# Changing


def test_a_rewritten_spec_says_the_old_until_the_new_has_settled(jobs):
    path = jobs.write("job.yaml")
    old = jobs.settled().specs["job"].job
    path.write_text("command: other")
    view = jobs.scan()
    assert (command(view), view.unsettled) == (("a",), (path,))
    new = jobs.settled().specs["job"].job
    assert new.command == ("other",)
    assert new.spec_digest != old.spec_digest


def test_what_came_by_a_rename_is_read_at_once_and_what_else_there_is_has_to_settle(jobs):
    """Whoever renames a file into its place has written it; whoever writes to it there may not be done."""
    jobs.write("one.yaml")
    jobs.write("two.yaml")
    jobs.write("broken.yaml", "command: [")
    jobs.write("empty.yaml", "")
    (jobs.path / "link.yaml").symlink_to("two.yaml")
    arrived = frozenset({"one.yaml", "broken.yaml", "empty.yaml", "link.yaml", "gone.yaml"})
    jobs.specs = jobs.opened(take_arrived=lambda: arrived)
    assert kinds(jobs.scan()) == {"one": "Accepted"}


def test_a_spec_that_was_touched_and_not_changed_says_the_same(jobs):
    path = jobs.write("job.yaml")
    before = jobs.settled()
    os.utime(path)
    assert jobs.settled().specs == before.specs


def test_a_running_job_whose_spec_is_broken_keeps_its_name_and_is_refused(jobs):
    path = jobs.write("file.yaml", "name: job\ncommand: a")
    jobs.settled()
    path.write_text("nothing: [of use")
    view = jobs.settled()
    assert kinds(view) == {"job": "Refused"}
    assert not view.is_removed("job", str(path))


def test_a_spec_that_is_broken_elsewhere_is_shown_under_the_name_it_says(jobs):
    jobs.write("file.yaml", "name: other\ncommand: a\nnproc: 0")
    assert kinds(jobs.settled()) == {"other": "Refused"}


def test_a_spec_that_lacks_its_workdir_is_accepted_when_the_folder_appears(jobs):
    jobs.write("job.yaml", "command: a\nworkdir: code")
    assert kinds(jobs.settled()) == {"job": "Refused"}
    (jobs.path / "code").mkdir()
    assert kinds(jobs.scan()) == {"job": "Accepted"}


def test_a_change_of_mode_is_noticed(jobs):
    path = jobs.write("job.yaml")
    jobs.settled()
    path.chmod(0o666)
    assert "chmod o-w" in jobs.settled().specs["job"].error_text
    path.chmod(0o644)
    assert kinds(jobs.settled()) == {"job": "Accepted"}


# Removing and renaming


def test_a_removed_spec_is_gone_when_it_stays_away(jobs):
    path = jobs.write("job.yaml")
    jobs.settled()
    path.unlink()
    view = jobs.scan()
    assert (kinds(view), view.unsettled) == ({"job": "Accepted"}, (path,))
    assert not view.is_removed("job", str(path))
    view = jobs.scan(after_s=SETTLE_S)
    assert view.specs == {}
    assert view.is_removed("job", str(path))


def test_an_editor_that_removes_and_writes_anew_removes_no_job(jobs):
    path = jobs.write("job.yaml")
    jobs.settled()
    path.rename(path.with_name("job.yaml~"))
    assert "job" in jobs.scan(after_s=JUST_BEFORE_S).specs
    path.write_text("command: edited")
    for _ in range(4):
        assert "job" in jobs.scan(after_s=JUST_BEFORE_S).specs
    assert command(jobs.settled()) == ("edited",)


def test_a_file_renamed_is_the_same_job_if_it_says_its_name(jobs):
    path = jobs.write("one.yaml", "name: job\ncommand: a")
    jobs.settled()
    path.rename(jobs.path / "two.yaml")
    while (view := jobs.scan(after_s=0.1)).look_again_s is not None:
        assert kinds(view) == {"job": "Accepted"}
    assert view.specs["job"].path == jobs.path / "two.yaml"


def test_a_file_renamed_is_another_job_if_its_name_comes_from_the_file(jobs):
    path = jobs.write("one.yaml")
    jobs.settled()
    path.rename(jobs.path / "two.yaml")
    view = jobs.settled()
    assert kinds(view) == {"two": "Accepted"}
    assert view.is_removed("one", str(path))


def test_a_name_that_a_listing_missed_is_asked_for_itself(jobs, monkeypatch):
    """A folder that is listed while a name in it is replaced may leave that name out."""
    jobs.write("job.yaml")
    before = jobs.settled()
    with monkeypatch.context() as patched:
        patched.setattr(folder_module.SpecFolder, "_listed", lambda self: {})
        for _ in range(3):
            assert jobs.scan(after_s=SETTLE_S) == before


# Names


def test_of_two_files_with_one_name_the_running_one_keeps_it(jobs):
    jobs.write("mnist.yaml")
    jobs.settled()
    jobs.write("mnist.json", '{"command": "b"}')
    os.utime(jobs.path / "mnist.json", (0, 0))
    view = jobs.settled()
    assert kinds(view) == {"mnist": "Accepted", "mnist.json": "Refused"}
    assert command(view, "mnist") == ("a",)
    assert str(jobs.path / "mnist.yaml") in view.specs["mnist.json"].error_text


def test_a_started_supervisor_is_told_who_held_a_name(jobs):
    jobs.write("a.yaml", "name: x\ncommand: a")
    jobs.write("b.yaml", "name: x\ncommand: b")
    jobs.clock.wall_ahead_s = 60.0
    assert command(jobs.opened().scan(), "x") == ("a",)
    assert command(jobs.opened(holders={"x": jobs.path / "b.yaml"}).scan(), "x") == ("b",)


def test_a_holder_that_is_being_written_while_the_supervisor_starts_keeps_its_name(jobs):
    jobs.write("b.yaml", "name: x\ncommand: b")
    jobs.write("a.yaml", "name: x\ncommand: a")
    os.utime(jobs.path / "b.yaml", (0, 0))
    jobs.specs = jobs.opened(holders={"x": jobs.path / "a.yaml"})
    assert "x" not in jobs.scan().specs
    assert command(jobs.settled(), "x") == ("a",)


def test_the_second_file_takes_over_when_the_first_is_removed(jobs):
    jobs.write("a.yaml", "name: x\ncommand: a")
    jobs.settled()
    jobs.write("b.yaml", "name: x\ncommand: b")
    jobs.settled()
    (jobs.path / "a.yaml").unlink()
    view = jobs.settled()
    assert (kinds(view), command(view, "x")) == ({"x": "Accepted"}, ("b",))


def test_a_file_name_that_is_not_utf8_is_refused_in_printable_words(jobs):
    jobs.write(os.fsdecode(b"caf\xe9.yaml"), "name: fine\ncommand: a")
    (reading,) = jobs.settled().specs.values()
    assert isinstance(reading, Refused)
    assert f"{reading.path} {reading.name} {reading.error_text}".encode()
    assert "not UTF-8" in reading.error_text


# Not observing


def test_a_folder_that_is_not_there_is_unknown_and_not_empty(jobs):
    jobs.write("job.yaml")
    jobs.settled()
    jobs.path.rename(jobs.path.with_name("away"))
    with pytest.raises(FileNotFoundError):
        jobs.scan()
    jobs.path.with_name("away").rename(jobs.path)
    assert kinds(jobs.settled()) == {"job": "Accepted"}


def test_a_mount_point_whose_filesystem_is_gone_is_unknown_and_not_empty(jobs, tmp_path):
    """A link from one filesystem to another stands in for the mount."""
    path = jobs.write("job.yaml")
    jobs.settled()
    home = tmp_path / "home"
    jobs.path.rename(home)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        if Path(other).stat().st_dev == home.stat().st_dev:
            pytest.skip("there is only one filesystem")
        jobs.path.symlink_to(other)
        for _ in range(3):
            with pytest.raises(OSError, match="is its own mounted"):
                jobs.scan(after_s=SETTLE_S)
    jobs.path.unlink()
    home.rename(jobs.path)
    assert kinds(jobs.settled()) == {"job": "Accepted"}
    path.unlink()
    assert jobs.settled().specs == {}


def test_a_folder_that_others_can_write_is_not_believed(jobs):
    jobs.write("job.yaml")
    jobs.settled()
    jobs.path.chmod(0o777)
    with pytest.raises(UntrustedError, match="chmod o-w"):
        jobs.scan()
    jobs.path.chmod(0o755)
    assert kinds(jobs.settled()) == {"job": "Accepted"}


def test_a_spec_that_cannot_be_read_for_now_keeps_what_it_said(jobs, monkeypatch):
    path = jobs.write("job.yaml")
    jobs.settled()
    path.write_text("command: b")

    def failing(path, trust):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(folder_module, "read_bytes", failing)
        for _ in range(3):
            view = jobs.scan(after_s=SETTLE_S)
        assert (command(view), view.unsettled) == (("a",), (path,))
        jobs.clock.wall_ahead_s = 60.0
        assert "Input/output error" in jobs.opened().scan().specs["job"].error_text
    assert command(jobs.settled()) == ("b",)


def test_a_file_exchanged_while_it_is_read_is_read_again(jobs, monkeypatch):
    path = jobs.write("job.yaml")
    jobs.settled()
    path.write_text("command: bb")
    real = folder_module.read_bytes

    def exchanging(path, trust):
        path.write_text("command: ccc")
        return real(path, trust)

    jobs.scan()
    with monkeypatch.context() as patched:
        patched.setattr(folder_module, "read_bytes", exchanging)
        assert command(jobs.scan(after_s=SETTLE_S)) == ("a",)
    assert command(jobs.settled()) == ("ccc",)


# Scale


def test_a_thousand_specs_are_read_once_and_then_only_looked_at(jobs, monkeypatch):
    for number in range(1000):
        jobs.write(f"job-{number}.yaml")
    jobs.clock.wall_ahead_s = 60.0
    assert len(jobs.scan().specs) == 1000
    monkeypatch.setattr(folder_module, "read_bytes", lambda *_: pytest.fail("an unchanged spec was read"))
    view = jobs.scan()
    assert all(isinstance(reading, Accepted) for reading in view.specs.values())


def test_scanning_changes_nothing_in_the_folder(jobs):
    jobs.write("good.yaml")
    jobs.write("bad.yaml", "x: [")
    before = {
        entry.name: (entry.stat().st_mtime_ns, stat.S_IMODE(entry.stat().st_mode))
        for entry in os.scandir(jobs.path)
    }
    jobs.settled()
    assert before == {
        entry.name: (entry.stat().st_mtime_ns, stat.S_IMODE(entry.stat().st_mode))
        for entry in os.scandir(jobs.path)
    }
    shutil.rmtree(jobs.path)


@pytest.mark.parametrize("day_s", [-86400.0, 86400.0], ids=["back", "on"])
def test_a_clock_that_steps_by_a_day_keeps_no_spec_from_being_read(jobs, day_s):
    jobs.write("job.yaml")
    jobs.scan()
    jobs.clock.wall_ahead_s = day_s
    assert kinds(jobs.settled()) == {"job": "Accepted"}
    jobs.clock.wall_ahead_s = -day_s
    jobs.write("other.yaml", "command: b")
    jobs.scan()
    assert kinds(jobs.settled()) == {"job": "Accepted", "other": "Accepted"}
