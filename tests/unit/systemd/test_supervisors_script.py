"""`systemd/supervisors.sh`: what the scripts find out about supervisors from their command lines."""

import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "systemd" / "supervisors.sh"


@pytest.mark.parametrize(
    ("words", "state"),
    [
        (["run", "--state", "/some where/state"], "/some where/state"),
        (["run", "--state=/some where/state", "--jobs=/j"], "/some where/state"),
        (["run", "--state", "here"], "{cwd}/here"),
        (["run", "--state=/one", "--state=/two"], "/two"),
        (["run"], "{cwd}/.trainerd"),
    ],
    ids=["two words", "one word", "relative", "the last one counts", "default"],
)
def test_the_state_folder_of_a_supervisor_is_read_from_its_command_line(tmp_path, words, state):
    waits = "import sys; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-S", "-c", waits, *words]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        found = subprocess.run(
            ["/bin/sh", "-euc", '. "$0"; state_of "$1"', str(SCRIPT), str(process.pid)],
            env={"PATH": "/usr/bin:/bin", "PREFIX": "/opt/trainerd"},
            capture_output=True,
            text=True,
            check=True,
        )
        process.stdin.close()
    assert found.stdout == state.format(cwd=tmp_path.resolve()) + "\n"


@pytest.mark.parametrize(
    "user",
    [
        pytest.param(pwd.getpwuid(os.geteuid()).pw_name, id="own"),
        pytest.param(
            "daemon",
            id="another",
            marks=[
                pytest.mark.root,
                pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root: becomes another user"),
            ],
        ),
    ],
)
def test_the_new_program_is_checked_as_the_user_and_with_the_words_of_the_supervisor(user):
    words = ["run", "--state", "/some where/state", "--jobs=/j"]
    command = ["/bin/sh", "-c", "echo; read -r _", "sh", *words]
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        program = Path(folder, "program")
        program.write_text('#!/bin/sh\necho out\n{ id -un; pwd -P; printf "<%s>" "$@"; } >&2\nexit 3\n')
        program.chmod(0o755)
        other = {} if user == pwd.getpwuid(os.geteuid()).pw_name else {"user": user, "extra_groups": []}
        with subprocess.Popen(
            command, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **other
        ) as process:
            process.stdout.readline()
            found = subprocess.run(
                ["/bin/sh", "-uc", '. "$0"; check "$1" "$2"', str(SCRIPT), str(process.pid), str(program)],
                env={"PATH": "/usr/bin:/bin", "PREFIX": "/opt/trainerd", "build": folder},
                capture_output=True,
                text=True,
                check=False,
            )
            process.stdin.close()
    assert found.returncode != 0
    shown = "<-m><trainerd><run><--check><--state></some where/state><--jobs=/j>"
    assert found.stdout == f"{user}\n/\n{shown}"
