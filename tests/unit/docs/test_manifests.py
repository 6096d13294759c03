"""The manifests in docs/engines are valid, and leave a job the time that it needs.

The schema in tests/support/schemas is the official one of Kubernetes 1.31, reduced to the fields that the
manifests use: any other field is refused. Where kubernetes-validate is installed, its schemas are asked too.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import shlex
from pathlib import Path

import jsonschema
import pytest
import yaml

from trainerd.contract import exit_codes
from trainerd.contract.node_place import Place, place_of
from trainerd.supervisor.service.foreground import DRAIN_MARGIN_S
from trainerd.supervisor.specs.load import load_spec

REPOSITORY = Path(__file__).parents[3]
SCHEMAS = json.loads((REPOSITORY / "tests" / "support" / "schemas" / "kubernetes-1.31.json").read_text())
FOLDER = REPOSITORY / "docs" / "engines"
MANIFESTS = sorted(path.name for path in FOLDER.glob("*.yaml"))
REST_S = 15.0


def documents(name: str) -> list[dict]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def check(document: dict) -> None:
    jsonschema.validate(document, SCHEMAS[f"{document['apiVersion']} {document['kind']}"])


def test_there_are_manifests():
    assert MANIFESTS


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_document_fits_its_schema(name):
    for document in documents(name):
        check(document)
        if importlib.util.find_spec("kubernetes_validate"):
            import kubernetes_validate

            kubernetes_validate.validate(document, "1.31", strict=True)


def test_a_field_that_is_misspelt_or_of_another_type_is_refused():
    job = next(each for each in documents("job.yaml") if each["kind"] == "Job")
    check(job)
    for break_it in (
        lambda spec: spec.update(podReplacementPolicies="Failed"),
        lambda spec: spec["template"]["spec"].update(terminationGracePeriodSeconds="75"),
        lambda spec: spec["template"]["spec"]["containers"][0].pop("name"),
    ):
        broken = copy.deepcopy(job)
        break_it(broken["spec"])
        with pytest.raises(jsonschema.ValidationError):
            check(broken)


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_pod_has_the_grace_of_the_spec_and_the_margins(name, tmp_path):
    found = {each["kind"]: each for each in documents(name)}
    path = tmp_path / "job.yaml"
    path.write_text(found["ConfigMap"]["data"]["job.yaml"])
    grace_s = load_spec(path, trust=None).grace_s
    pod = found["Job"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= grace_s + DRAIN_MARGIN_S + REST_S


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_exit_codes_of_exec_are_answered_and_no_shell_is_between(name):
    job = next(each for each in documents(name) if each["kind"] == "Job")["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert container["command"][:2] == ["trainerd", "exec"], shlex.join(container["command"])
    rules = [
        (
            rule["action"],
            rule["onExitCodes"]["values"] if "onExitCodes" in rule else rule["onPodConditions"][0]["type"],
        )
        for rule in job["podFailurePolicy"]["rules"]
    ]
    assert rules == [
        ("FailJob", [exit_codes.NEVER_RETRY]),
        ("Ignore", [exit_codes.DRAINED]),
        ("Ignore", "DisruptionTarget"),
    ]
    for rule in job["podFailurePolicy"]["rules"]:
        assert rule.get("onExitCodes", {}).get("containerName", container["name"]) == container["name"]
    assert job["podReplacementPolicy"] == "Failed"
    assert job["template"]["spec"]["restartPolicy"] == "Never"


def test_the_pods_of_an_indexed_job_meet_at_the_name_that_the_service_gives_to_the_first():
    found = {each["kind"]: each for each in documents("indexed-job.yaml")}
    job, service = found["Job"], found["Service"]
    pod = job["spec"]["template"]["spec"]
    words = pod["containers"][0]["command"]
    flags = dict(zip(words[3::2], words[4::2], strict=True))
    nodes, name = job["spec"]["completions"], job["metadata"]["name"]
    assert (job["spec"]["completionMode"], job["spec"]["parallelism"]) == ("Indexed", nodes)
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None", "as YAML has it, that is no null"
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    for index in range(nodes):
        place = place_of(
            {"JOB_COMPLETION_INDEX": str(index)},
            nodes=int(flags["--nnodes"]),
            rendezvous=flags["--rendezvous"],
        )
        assert place == Place(nodes, index, f"{name}-0.{pod['subdomain']}", 29400)
    # What all nodes share is on a volume that they can all mount.
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    folder = next(path for path in mounts if flags["--run"].startswith(path))
    claim = volumes[mounts[folder]]["persistentVolumeClaim"]["claimName"]
    assert claim == found["PersistentVolumeClaim"]["metadata"]["name"]
    assert found["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]
