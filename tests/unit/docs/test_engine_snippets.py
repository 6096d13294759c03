"""The snippets for SkyPilot and HTCondor in docs/engines.md can be read, and fit the exit codes of exec.

SkyPilot's schema in tests/support/schemas is its own of 0.14 (Apache License 2.0), reduced to the fields that
are used. Where SkyPilot or HTCondor's bindings of version 1 (``pip install 'htcondor<24.1'``) are installed,
they are asked too.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import warnings
from pathlib import Path

import jsonschema
import pytest
import yaml

from trainerd.contract import exit_codes
from trainerd.supervisor.service.foreground import DRAIN_MARGIN_S

REPOSITORY = Path(__file__).parents[3]
PAGE = (REPOSITORY / "docs" / "engines.md").read_text()
SCHEMA = json.loads((REPOSITORY / "tests" / "support" / "schemas" / "skypilot-0.14.json").read_text())
GRACE_S = 30.0
"""The default of a spec."""
REST_S = 15.0

SUBMIT_COMMANDS = {
    "executable", "arguments", "checkpoint_exit_code", "transfer_input_files", "transfer_checkpoint_files",
    "should_transfer_files", "kill_sig", "job_max_vacate_time",
}  # fmt: skip


def snippet(heading: str) -> str:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    (found,) = re.findall(r"^```\w*\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return found


def submit_file() -> dict[str, str]:
    pairs = [line.split("=", 1) for line in snippet("HTCondor").splitlines()]
    return {name.strip(): value.strip() for name, value in pairs}


def exec_words(command: str) -> list[str]:
    words = shlex.split(command)
    assert words[:2] == ["trainerd", "exec"], command
    return words


def test_the_task_of_skypilot_fits_its_schema():
    task = yaml.safe_load(snippet("SkyPilot"))
    jsonschema.validate(task, SCHEMA)
    for broken in (
        {**task, "runs": "true"},
        {**task, "resources": {**task["resources"], "use_spots": True}},
        {**task, "resources": {"job_recovery": {"recover_on_exit_codes": [300]}}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, SCHEMA)
    if importlib.util.find_spec("sky"):
        from sky.utils import schemas

        jsonschema.validate(task, schemas.get_task_schema())
        jsonschema.validate(task["resources"], schemas.get_resources_schema())


def test_skypilot_starts_a_drained_job_again_and_no_other():
    task = yaml.safe_load(snippet("SkyPilot"))
    recovery = task["resources"]["job_recovery"]
    assert recovery == {"max_restarts_on_errors": 0, "recover_on_exit_codes": [exit_codes.DRAINED]}
    assert task["run"].startswith("exec "), "no shell stays between"
    exec_words(task["run"].removeprefix("exec "))


def test_the_submit_file_of_htcondor_leaves_by_itself_and_has_time_to_drain():
    found = submit_file()
    assert set(found) == SUBMIT_COMMANDS
    words = exec_words(found["arguments"].strip('"'))
    assert "--leave-every" in words
    assert words[words.index("--state") + 1] == found["transfer_checkpoint_files"]
    assert words[2] == found["transfer_input_files"]
    assert int(found["checkpoint_exit_code"]) == exit_codes.DRAINED
    assert int(found["job_max_vacate_time"]) >= GRACE_S + DRAIN_MARGIN_S + REST_S


def test_htcondor_reads_the_submit_file_as_it_is_meant():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is no configuration of a pool
        htcondor = pytest.importorskip(
            "htcondor", reason="htcondor, with bindings of version 1, is not installed"
        )
    if not hasattr(htcondor.Submit, "jobs"):
        pytest.skip("these bindings make no jobs")
    (job,) = htcondor.Submit(snippet("HTCondor")).jobs(count=1)
    assert job["SuccessCheckpointExitCode"] == exit_codes.DRAINED
    assert job["TransferCheckpoint"] == "state"
    assert job["Arguments"] == "trainerd exec job.yaml --state state --leave-every 1h"
    assert (job["KillSig"], job["JobMaxVacateTime"]) == ("SIGTERM", 75)
    assert job["WantFTOnCheckpoint"]
