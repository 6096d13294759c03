"""`systemd/supervisors.sh`: what the scripts find out about supervisors from their command lines."""

import subprocess
import sys
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
