"""What Kubernetes is given, checked against its own schema: manifests, and the jobs of stages.

No cluster is needed: a job is rendered by the worker's own code from the pool's template and a
deployment's variables, as it is just before it is sent. The schema is Kubernetes' own OpenAPI
document, strict: a field that it does not know is an error.
"""

import asyncio
import json
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import ValidationError

from flows.deployment_specs import DeploymentSpec, packaged_folder, read_project
from tasks import graph

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # raised inside Prefect
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

MANIFESTS = {
    f"{path.stem}-{index}": manifest
    for path in sorted((packaged_folder() / "kubernetes").glob("*.yaml"))
    for index, manifest in enumerate(yaml.safe_load_all(path.read_text()))
}
STAGES = {
    spec.flow: spec
    for spec in read_project(packaged_folder()).stage_deployments()
    if spec.name == "kubernetes"
}


def check(manifest: Any) -> None:
    """Raise ValidationError for what Kubernetes does not know."""
    kubernetes_validate.validate(manifest, "1.34", strict=True)


def job_of(spec: DeploymentSpec) -> Any:
    """The job that the worker starts for a run of this deployment."""
    from prefect.client.schemas.objects import FlowRun
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    template = json.loads((packaged_folder() / "work_pools/kubernetes.json").read_text())
    nobody = object()  # a client; nothing in the template refers to the server
    configuration = asyncio.run(
        KubernetesWorkerJobConfiguration.from_template_and_values(
            template, dict(spec.work_pool.job_variables), client=nobody
        )
    )
    configuration.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name=spec.flow))
    return configuration.job_manifest


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_fit_the_schema(name: str) -> None:
    check(MANIFESTS[name])


@pytest.mark.parametrize("stage", STAGES)
def test_jobs_of_stages_fit_the_schema(stage: str) -> None:
    check(job_of(STAGES[stage]))


def test_wrong_fields_do_not_fit() -> None:
    """Otherwise the tests above would pass whatever is there."""
    misspelt = job_of(STAGES["train"])
    misspelt["spec"]["template"]["spec"]["toleration"] = []
    with pytest.raises(ValidationError, match="toleration"):
        check(misspelt)
    mistyped = job_of(STAGES["train"])
    mistyped["spec"]["backoffLimit"] = "none"
    with pytest.raises(ValidationError, match="none"):
        check(mistyped)


def test_only_stages_with_a_model_ask_for_a_gpu() -> None:
    gpus = {
        stage: container(job_of(spec))["resources"]["limits"]["nvidia.com/gpu"]
        for stage, spec in STAGES.items()
    }
    assert gpus.keys() == graph.STAGES.keys()
    with_gpu = {
        "sample", "score", "train", "divergence", "likelihood", "harness", "reward", "adopt",
    }  # fmt: skip
    assert {stage for stage, count in gpus.items() if count} == with_gpu


def test_jobs_tolerate_gpu_nodes_and_keep_models_on_the_claim() -> None:
    pod = job_of(STAGES["train"])["spec"]["template"]["spec"]
    taints = [(each["key"], each["effect"]) for each in pod["tolerations"]]
    assert taints == [("nvidia.com/gpu", "NoSchedule")]
    mounts = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
    claims = {each["name"]: each.get("persistentVolumeClaim") for each in pod["volumes"]}
    assert mounts["home"] == "/var/lib/pvar"
    assert claims["home"] == {"claimName": name_of("PersistentVolumeClaim")}


def test_jobs_are_what_the_namespace_admits() -> None:
    """Pod security `restricted`: an ordinary user, no new privileges, no capabilities."""
    pod = job_of(STAGES["train"])["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = pod["containers"][0]["securityContext"]
    assert security == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_names_in_the_jobs_are_those_of_the_manifests() -> None:
    job = job_of(STAGES["train"])
    pod = job["spec"]["template"]["spec"]
    accounts = {
        manifest["metadata"]["name"]
        for manifest in MANIFESTS.values()
        if manifest["kind"] == "ServiceAccount"
    }
    assert pod["serviceAccountName"] in accounts
    assert container(job)["envFrom"] == [{"secretRef": {"name": name_of("Secret")}}]
    assert job["metadata"]["namespace"] == name_of("Namespace")


def container(job: Any) -> Any:
    (only,) = job["spec"]["template"]["spec"]["containers"]
    return only


def name_of(kind: str) -> str:
    """The name of the only manifest of a kind."""
    (manifest,) = (each for each in MANIFESTS.values() if each["kind"] == kind)
    return str(manifest["metadata"]["name"])
