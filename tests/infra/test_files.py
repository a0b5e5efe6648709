"""What infra/ has for other machines, by each kind's own validator: images, compose, Kubernetes, OpenTofu, systemd."""

import copy
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import hcl2
import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement

from infra.prefect_api import job_template

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
MANIFESTS = sorted((INFRA / "kubernetes").glob("*.yaml"))


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _documents() -> list[dict[str, Any]]:
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text()) if document]


def _pods() -> dict[str, dict[str, Any]]:
    """The pod's specification of every workload, by kind and name."""
    pods = {}
    for document in _documents():
        spec = document["spec"].get("pytorchReplicaSpecs", {}).get("Worker", document["spec"]) if "spec" in document else {}
        if "template" in spec:
            pods[f"{document['kind']} {document['metadata']['name']}"] = spec["template"]["spec"]
    return pods


def test_hadolint_has_nothing_to_say_of_the_image() -> None:
    done = _run(_program("hadolint"), str(INFRA / "Dockerfile"))
    assert (done.returncode, done.stdout) == (0, "")


def test_the_images_that_compose_names_are_made_by_the_dockerfile() -> None:
    stages = set(re.findall(r"^FROM .* AS (\w+)$", (INFRA / "Dockerfile").read_text(), re.MULTILINE))
    services = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"].values()
    assert {service["build"]["target"] for service in services if "build" in service} == {"worker", "server", "store"} < stages


def test_compose_is_of_the_specification() -> None:
    done = _run(_program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(INFRA / "compose.yaml"))
    assert done.returncode == 0, done.stdout


def test_the_example_has_every_variable_that_compose_needs() -> None:
    needed = set(re.findall(r"\$\{(\w+)", (INFRA / "compose.yaml").read_text())) - {"ALEXNET_NOTIFY_URL"}
    assert set(re.findall(r"^(\w+)=", (INFRA / "compose.env.example").read_text(), re.MULTILINE)) == needed


def test_only_the_administrator_of_compose_may_do_everything() -> None:
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())
    identities = json.loads(compose["configs"]["identities"]["content"])["identities"]
    actions = {identity["name"]: identity["actions"] for identity in identities}
    assert actions["administrator"] == ["Admin"]
    assert {action.partition(":")[2] for action in actions["worker"]} == {"alexnet-data", "alexnet-registry"}
    assert {action.partition(":")[0] for action in actions["reader"]} == {"Read", "List"}
    users = {name for name, service in compose["services"].items() if "ADMIN_KEY" in json.dumps(service)}
    assert users == {"buckets"}
    assert compose["services"]["worker"]["depends_on"]["buckets"] == {"condition": "service_completed_successfully"}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_of_kubernetes_schema(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        if document["kind"] == "PyTorchJob":  # the operator's own kind: its pods are a Job's here
            template = document["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
            template["spec"]["restartPolicy"] = "Never"
            document = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "pods"}, "spec": {"template": template}}
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_a_misspelt_manifest_is_found() -> None:
    document = next(document for document in _documents() if document["kind"] == "Job")
    document["spec"]["template"]["spec"]["container"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_pods_have_the_workers_image_and_one_prepares_its_work_pool_for_it() -> None:
    containers = [one for pod in _pods().values() for one in [*pod["containers"], *pod.get("initContainers", [])]]
    assert {one["image"] for one in containers} == {"REGISTRY/alexnet-worker:TAG"}
    (prepare,) = (one["command"] for one in containers if "infra.scheduler" in one.get("command", []))
    assert prepare == ["python", "-m", "infra.scheduler", "prepare", "--kubernetes", "REGISTRY/alexnet-worker:TAG"]


def test_no_pod_has_more_rights_than_it_needs() -> None:
    pods = _pods()
    assert len(pods) == 6
    for name, pod in pods.items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod.get("automountServiceAccountToken") is False or pod["serviceAccountName"] == "alexnet-worker", name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}, name


def test_pods_that_train_have_gpus_and_shared_memory() -> None:
    trains = {name: pod for name, pod in _pods().items() if "nvidia.com/gpu" in json.dumps(pod)}
    assert set(trains) == {"Job alexnet", "Job alexnet-train", "PyTorchJob alexnet-train"}
    for name, pod in trains.items():
        (container,) = pod["containers"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory", name
        assert "/app/.local" in mounts, "checkpoints outlive a pod"


def _filled(value: Any, defaults: dict[str, Any]) -> Any:
    """A job template with the variables' defaults in their places, as a worker fills it."""
    if isinstance(value, dict):
        return {key: filled for key, part in value.items() if (filled := _filled(part, defaults)) is not None}
    if isinstance(value, list):
        return [_filled(part, defaults) for part in value]
    found = re.fullmatch(r"\{\{ (\w+) \}\}", value) if isinstance(value, str) else None
    if found:
        return copy.deepcopy(defaults[found[1]])
    return re.sub(r"\{\{ (\w+) \}\}", lambda name: str(defaults[name[1]]), value) if isinstance(value, str) else value


def test_the_work_pools_template_makes_a_valid_job() -> None:
    template = job_template(
        "registry.example.org/alexnet-worker:1", {"ALEXNET_BUCKET": "data", "AWS_DEFAULT_REGION": "eu-west-1"}
    )
    variables = {name: entry.get("default") for name, entry in template["variables"]["properties"].items()}
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(variables)
    job = _filled(template["job_configuration"]["job_manifest"], variables | {"command": ["prefect", "flow-run", "execute"]})
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.example.org/alexnet-worker:1"
    buckets = {"ALEXNET_BUCKET": "data", "ALEXNET_REGISTRY": "REGISTRY_BUCKET"}
    assert container["env"] == buckets | {"AWS_DEFAULT_REGION": "eu-west-1", "ALEXNET_HOME": "/app"}
    container["env"] = [{"name": name, "value": value} for name, value in container["env"].items()]  # as the worker does
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)


TOFU = {path.name: path.read_text() for path in sorted((INFRA / "tofu").glob("*.tf"))}


def test_every_reference_of_the_tofu_files_is_declared() -> None:
    parsed = [hcl2.loads(text) for text in TOFU.values()]
    variables = {name.strip('"') for file in parsed for entry in file.get("variable", []) for name in entry if name[:2] != "__"}
    text = "\n".join(TOFU.values())
    assert set(re.findall(r"\bvar\.(\w+)", text)) == variables
    declared = set(re.findall(r'^(?:resource|data) "(\w+)" "(\w+)"', text, re.MULTILINE))
    assert set(re.findall(r"\b(aws_\w+)\.(\w+)", text)) <= declared
    locals_ = "".join(re.findall(r"^locals \{\n.*?^\}", text, re.MULTILINE | re.DOTALL))
    local = set(re.findall(r"^  (\w+) += ", locals_, re.MULTILINE))
    assert set(re.findall(r"\blocal\.(\w+)", text)) <= local


def test_buckets_are_versioned_encrypted_locked_and_tidied() -> None:
    kinds = set(re.findall(r'^resource "aws_s3_bucket_(\w+)"', TOFU["buckets.tf"], re.MULTILINE))
    assert {
        "versioning",
        "server_side_encryption_configuration",
        "lifecycle_configuration",
        "object_lock_configuration",
        "public_access_block",
    } <= kinds
    assert "abort_incomplete_multipart_upload" in TOFU["buckets.tf"]


def test_no_role_may_delete_a_release() -> None:
    roles = TOFU["iam.tf"].partition("roles = {")[2].partition("\ndata ")[0]
    assert re.findall(r"^    (\w+) = \{", roles, re.MULTILINE) == ["prep", "train", "publish", "read"]
    deletes = re.findall(r'"s3:DeleteObject"\]\)?, on = \[(.*?)\]', roles)
    assert deletes == ['"${local.data}/*"', '"${local.registry}/*/probes/*", "${local.registry}/.doctor/*"']
    assert roles.count("s3:DeleteObject") == len(deletes)


@pytest.mark.skipif(not (shutil.which("tofu") or shutil.which("terraform")), reason="neither tofu nor terraform is here")
def test_tofu_reads_and_formats_the_files_as_they_are() -> None:
    program = shutil.which("tofu") or shutil.which("terraform")
    assert program
    done = _run(program, "fmt", "-check", "-diff", str(INFRA / "tofu"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_accepts_the_unit_and_finds_it_little_exposed(tmp_path: Path) -> None:
    text = (INFRA / "systemd" / "alexnet-worker.service").read_text()
    unit = tmp_path / "alexnet-worker.service"
    unit.write_text(re.sub(r"/srv/alexnet/\.venv/bin/\w+", sys.executable, text))  # the programs must be there
    done = _run("systemd-analyze", "verify", str(unit))
    assert "alexnet-worker" not in done.stderr, done.stderr
    exposure = _run("systemd-analyze", "security", "--offline=true", "--threshold=25", str(unit))
    assert exposure.returncode == 0, exposure.stdout[-600:]


def test_the_consumers_constraints_are_the_locks_versions_one_for_each_package(tmp_path: Path) -> None:
    """The lock has some packages twice, for older and newer Python: markers tell which counts."""
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    (command,) = re.findall(r"RUN (sed .* > versions\.txt) ", (INFRA / "Dockerfile").read_text())
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    lines = [Requirement(line) for line in (tmp_path / "versions.txt").read_text().splitlines()]
    assert len(lines) == len(re.findall(r"^[A-Za-z0-9._-]+==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    names = [line.name for line in lines if not line.marker or line.marker.evaluate()]
    assert {"numpy", "torch"} < set(names)
    assert len(names) == len(set(names))


def test_the_consumers_image_has_no_more_than_the_librarys_dependencies() -> None:
    """It installs the package without an extra, so what it holds is `dependencies`; DVC and Prefect are none of them."""
    consumer = (INFRA / "Dockerfile").read_text().partition("AS consumer\n")[2].partition("\nFROM ")[0]
    assert re.search(r"pip install .* --constraint versions.txt \. \\\n", consumer)
    assert "\nARG PIP_EXTRA_INDEX_URL=\n" in consumer  # an index is named when the image is built: pip reads it from there
    assert "index-url" not in consumer.lower().replace("pip_extra_index_url", "")
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert not {"dvc", "prefect", "great-expectations"} & {re.split(r"[\[<>=]", name)[0] for name in dependencies}
