"""The configuration file: what may be written, and what is said about everything else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trainerd.errors import SpecError, UserError
from trainerd.supervisor.service.configuration import (
    BEGIN,
    END,
    Configuration,
    field_table,
    load_configuration,
)

PAGE = Path(__file__).parents[4] / "docs" / "configuration.md"


@pytest.fixture
def load(tmp_path):
    def load(text: str) -> Configuration:
        path = tmp_path / "trainerd.toml"
        path.write_text(text)
        return load_configuration(path)

    return load


def test_without_a_file_and_with_an_empty_one_everything_has_its_default(load):
    assert load_configuration(None) == load("") == Configuration()


def test_what_is_written_is_read(load):
    found = load(
        '[limits]\nmax_jobs = 8\ncpus = 2.5\nmemory = "64GiB"\ngpus = 2\n'
        '[stop]\nlimit = "90s"\nmargin = 5\n[log]\nlevel = "debug"\nfile_size = "1MiB"\nfiles = 2\n'
        '[socket]\nmode = "0660"\ngroup = "root"\n'
    )
    assert (found.limits.max_jobs, found.limits.cpus, found.limits.memory) == (8, 2.5, 64 << 30)
    assert found.limits.gpus == [0, 1]
    assert (found.stop.limit, found.stop.margin, found.stop.hurry) == (90.0, 5.0, 10.0)
    assert (found.log.level_number, found.log.file_size, found.log.files) == (10, 1 << 20, 2)
    assert found.socket.group_id == 0


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[limits]\nmax_job = 3\n", 2, "did you mean 'limits.max_jobs'"),
        ("[limit]\nmax_jobs = 3\n", 1, "did you mean 'limits'"),
        (
            "jobs = 3\n",
            1,
            "the sections are limits, cgroups, stop, log, socket, notify, smtp, disk, preemption",
        ),
        ("[limits]\nmax_jobs = 0\n", 2, "must be at least 1, not 0"),
        ('[limits]\ncpus = "two"\n', 2, "expected a number, not the text 'two'"),
        ("[limits]\nmemory = 64\n", 2, "has no unit"),
        ("[limits]\ngpus = [0, 0]\n", 2, "named twice"),
        ("[limits]\ngpus = true\n", 2, "not true"),
        ("[limits]\ngpus = -1\n", 2, "between 0 and 1024"),
        ('[stop]\nlimit = "soon"\n', 2, "is not a duration"),
        ('[log]\nlevel = "loud"\n', 2, "expected 'debug', 'info' or 'warning'"),
        ("[log]\nfiles = 0\n", 2, "must be at least 1"),
        ('[socket]\nmode = "0777"\n', 2, "expected '0600' or '0660'"),
        ('[socket]\nmode = "0660"\n', 1, "go together"),
        ('[socket]\nmode = "0660"\ngroup = "nobody-has-this"\n', 3, "there is no group"),
        ("[limits\n", 1, "not valid TOML"),
    ],
)
def test_an_error_names_file_line_field_and_the_way_to_mend_it(load, tmp_path, text, line, said):
    with pytest.raises(SpecError, match=re.escape(said)) as caught:
        load(text)
    assert str(caught.value).startswith(f"{tmp_path / 'trainerd.toml'}:{line}: ")


def test_everything_that_is_wrong_is_said_at_once(load):
    with pytest.raises(SpecError) as caught:
        load("[limits]\nmax_jobs = 0\n[log]\nfiles = 0\n")
    assert "limits.max_jobs" in str(caught.value)
    assert "log.files" in str(caught.value)


def test_a_file_that_cannot_be_read_or_that_anybody_may_write_is_named(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        load_configuration(tmp_path / "missing.toml")
    with pytest.raises(UserError, match=r"cannot read|is not a file"):
        load_configuration(tmp_path)
    path = tmp_path / "open.toml"
    path.write_text("")
    path.chmod(0o666)
    with pytest.raises(UserError, match="chmod o-w"):
        load_configuration(path)
    path.chmod(0o644)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="UTF-8"):
        load_configuration(path)


def test_the_page_has_the_table_that_the_model_makes_and_its_example_is_valid(load):
    page = PAGE.read_text()
    assert page.partition(BEGIN)[2].partition(END)[0].strip() == field_table()
    example = re.search(r"```toml\n(.*?)```", page, re.DOTALL)[1]
    assert load(example.replace('group = "trainers"', 'group = "root"')).limits.max_jobs == 8
