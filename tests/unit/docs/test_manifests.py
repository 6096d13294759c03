"""The manifests in docs/engines are valid, and leave a job the time that it needs.

The schemas in tests/support/schemas are the official ones of Kubernetes 1.31 and of JobSet 0.9.1 (its CRD,
under the Apache License 2.0), reduced to the fields that the manifests use: any other field is
refused. Where kubernetes-validate is installed, its schemas are asked too; it knows no custom resources.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml

from trainerd.contract import exit_codes
from trainerd.contract.node_place import Place, place_of
from trainerd.supervisor.service.foreground import DRAIN_MARGIN_S
from trainerd.supervisor.specs.load import load_spec

REPOSITORY = Path(__file__).parents[3]
SCHEMAS = {
    kind: schema
    for name in ("kubernetes-1.31.json", "jobset-0.9.1.json")
    for kind, schema in json.loads((REPOSITORY / "tests" / "support" / "schemas" / name).read_text()).items()
}
FOLDER = REPOSITORY / "docs" / "engines"
MANIFESTS = sorted(path.name for path in FOLDER.glob("*.yaml"))
REST_S = 15.0


def documents(name: str) -> list[dict]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def by_kind(name: str) -> dict[str, dict]:
    return {each["kind"]: each for each in documents(name)}


def check(document: dict) -> None:
    jsonschema.validate(document, SCHEMAS[f"{document['apiVersion']} {document['kind']}"])


def check_refused(document: dict, *breaks: Callable[[dict], object]) -> None:
    """Check that a document is valid, and no longer so once its spec is broken in one of some ways."""
    check(document)
    for break_it in breaks:
        broken = copy.deepcopy(document)
        break_it(broken["spec"])
        with pytest.raises(jsonschema.ValidationError):
            check(broken)


def job_of(name: str) -> dict:
    """Return the spec of the Job in a manifest, which may be within a JobSet."""
    found = by_kind(name)
    if "JobSet" not in found:
        return found["Job"]["spec"]
    (replicated,) = found["JobSet"]["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


def flags_of(job: dict) -> dict[str, str]:
    words = job["template"]["spec"]["containers"][0]["command"]
    return dict(zip(words[3::2], words[4::2], strict=True))


def places_of(job: dict) -> list[Place]:
    """Return the place of the pod of each index."""
    flags = flags_of(job)
    nodes, rendezvous = int(flags["--nnodes"]), flags["--rendezvous"]
    return [
        place_of({"JOB_COMPLETION_INDEX": str(index)}, nodes=nodes, rendezvous=rendezvous)
        for index in range(job["completions"])
    ]


def test_there_are_manifests():
    assert MANIFESTS == ["indexed-job.yaml", "job.yaml", "jobset.yaml"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_document_fits_its_schema(name):
    for document in documents(name):
        check(document)
        if importlib.util.find_spec("kubernetes_validate") and document["kind"] != "JobSet":
            import kubernetes_validate

            kubernetes_validate.validate(document, "1.31", strict=True)


def test_a_field_that_is_misspelt_or_of_another_type_is_refused():
    check_refused(
        by_kind("job.yaml")["Job"],
        lambda spec: spec.update(podReplacementPolicies="Failed"),
        lambda spec: spec["template"]["spec"].update(terminationGracePeriodSeconds="75"),
        lambda spec: spec["template"]["spec"]["containers"][0].pop("name"),
    )


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_pod_has_the_grace_of_the_spec_and_the_margins(name, tmp_path):
    found = by_kind(name)
    path = tmp_path / "job.yaml"
    path.write_text(found["ConfigMap"]["data"]["job.yaml"])
    grace_s = load_spec(path, trust=None).grace_s
    pod = job_of(name)["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= grace_s + DRAIN_MARGIN_S + REST_S


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_exit_codes_of_exec_are_answered_and_no_shell_is_between(name):
    job = job_of(name)
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


def test_a_jobset_with_a_misspelt_field_or_an_unknown_action_is_refused():
    check_refused(
        by_kind("jobset.yaml")["JobSet"],
        lambda spec: spec.update(failurePolicies={}),
        lambda spec: spec["failurePolicy"].update(restartStrategy="Never"),
        lambda spec: spec["failurePolicy"]["rules"][0].update(action="Ignore"),
        lambda spec: spec["replicatedJobs"][0].pop("name"),
        lambda spec: spec["replicatedJobs"][0]["template"]["spec"]["template"]["spec"].update(grace=75),
    )


def test_a_jobset_fails_where_its_job_can_never_run_and_never_has_two_pods_of_one_node():
    policy = by_kind("jobset.yaml")["JobSet"]["spec"]["failurePolicy"]
    assert policy["restartStrategy"] == "BlockingRecreate"
    assert [(rule["action"], rule["onJobFailureReasons"]) for rule in policy["rules"]] == [
        ("FailJobSet", ["PodFailurePolicy"])
    ]


def test_the_pods_of_a_jobset_meet_at_the_name_that_it_gives_to_the_first():
    found = by_kind("jobset.yaml")
    network, (replicated,) = (found["JobSet"]["spec"][name] for name in ("network", "replicatedJobs"))
    job = job_of("jobset.yaml")
    assert network["enableDNSHostnames"]
    assert network["publishNotReadyAddresses"]
    assert (job["completionMode"], job["completions"]) == ("Indexed", job["parallelism"])
    first = f"{found['JobSet']['metadata']['name']}-{replicated['name']}-0-0.{network['subdomain']}"
    nodes = job["completions"]
    assert places_of(job) == [Place(nodes, index, first, 29400) for index in range(nodes)]
    assert found["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_pods_of_an_indexed_job_meet_at_the_name_that_the_service_gives_to_the_first():
    found = by_kind("indexed-job.yaml")
    job, service = found["Job"], found["Service"]
    pod = job["spec"]["template"]["spec"]
    nodes, name = job["spec"]["completions"], job["metadata"]["name"]
    assert (job["spec"]["completionMode"], job["spec"]["parallelism"]) == ("Indexed", nodes)
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None", "as YAML has it, that is no null"
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    first = f"{name}-0.{pod['subdomain']}"
    assert places_of(job["spec"]) == [Place(nodes, index, first, 29400) for index in range(nodes)]
    # What all nodes share is on a volume that they can all mount.
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    folder = next(path for path in mounts if flags_of(job["spec"])["--run"].startswith(path))
    claim = volumes[mounts[folder]]["persistentVolumeClaim"]["claimName"]
    assert claim == found["PersistentVolumeClaim"]["metadata"]["name"]
    assert found["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]
