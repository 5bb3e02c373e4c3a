"""The RayServices start what exists, and their pods have the room and the rights that it needs."""

import ast
import math
import re
from typing import Any

import pytest
import yaml

from service.settings import Settings
from tests.docker.files import DOCKER, DOCKERFILE, load, targets

ROOT = DOCKER.parent
NODE_PORT = 52365  # where every node of a Ray cluster says how it is
PROXY_PORT = 8000  # where Ray Serve listens, and what the Service that KubeRay makes sends to


def on_gpus() -> Any:
    """The RayService as kustomize changes it for GPUs."""
    changed = load("kubernetes/ray/rayservice.yaml")
    overlay = load("kubernetes/ray-gpu/kustomization.yaml")
    for change in yaml.safe_load(overlay["patches"][0]["patch"]):
        *folders, last = change["path"].strip("/").split("/")
        place = changed
        for name in folders:
            place = place[int(name)] if isinstance(place, list) else place[name]
        assert (last in place) == (change["op"] == "replace"), change["path"]
        place[last] = change["value"]
    (image,) = overlay["images"]
    for part in pods(changed).values():
        name, _, _ = part["containers"][0]["image"].partition(":")
        assert name == image["name"]
        part["containers"][0]["image"] = f"{name}:{image['newTag']}"
    return changed


def pods(service: Any) -> dict[str, Any]:
    """What its pods are, by what they are for."""
    cluster = service["spec"]["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    return {
        "head": cluster["headGroupSpec"]["template"]["spec"],
        "worker": workers["template"]["spec"],
    }


SERVICES = {"cpu": load("kubernetes/ray/rayservice.yaml"), "gpu": on_gpus()}
PODS = {(name, part): pod for name in SERVICES for part, pod in pods(SERVICES[name]).items()}


def application(name: str) -> Any:
    (found,) = yaml.safe_load(SERVICES[name]["spec"]["serveConfigV2"])["applications"]
    return found


def module(name: str) -> ast.Module:
    """What Ray imports, only read: it would take Ray to import it."""
    path = application(name)["import_path"].partition(":")[0].replace(".", "/")
    return ast.parse((ROOT / f"{path}.py").read_text(encoding="utf-8"))


def arguments(name: str) -> set[str]:
    """The fields of what the builder of the application takes."""
    of_its_own = {
        field.target.id
        for kind in module(name).body
        if isinstance(kind, ast.ClassDef) and kind.name == "RaySettings"
        for field in kind.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }
    assert {"cores", "gpus", "replicas", "max_replicas"} <= of_its_own
    return of_its_own | set(Settings.model_fields)


def workers(name: str) -> Any:
    return SERVICES[name]["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_imported_builds_an_application_of_settings(name: str) -> None:
    attribute = application(name)["import_path"].partition(":")[2]
    (builder,) = [
        node
        for node in module(name).body
        if isinstance(node, ast.FunctionDef) and node.name == attribute
    ]
    assert [ast.unparse(a.annotation) for a in builder.args.args if a.annotation] == ["RaySettings"]
    assert application(name)["route_prefix"] == "/"


@pytest.mark.parametrize("name", SERVICES)
def test_arguments_are_settings_that_take_their_values(name: str) -> None:
    given = application(name)["args"]
    assert set(given) <= arguments(name)
    settings = Settings.model_validate(
        {k: v for k, v in given.items() if k in Settings.model_fields}
    )
    assert f"ANYPOOL_ARTIFACTS={settings.artifacts} " in DOCKERFILE
    assert settings.provider == {"cpu": "cpu", "gpu": "cuda"}[name]


@pytest.mark.parametrize("name", SERVICES)
def test_a_pod_has_room_for_one_replica_and_a_core_for_ray(name: str) -> None:
    given, group = application(name)["args"], workers(name)
    limits = pods(SERVICES[name])["worker"]["containers"][0]["resources"]["limits"]
    assert int(group["rayStartParams"]["num-cpus"]) == given["cores"] == int(limits["cpu"]) - 1
    assert int(limits.get("nvidia.com/gpu", 0)) == given.get("gpus", 0) == int(name == "gpu")
    assert group["replicas"] == group["minReplicas"] == given["replicas"]
    more = math.ceil(given["max_replicas"] * given.get("surge", 25) / 100)
    assert group["maxReplicas"] == given["max_replicas"] + more


@pytest.mark.parametrize("name", SERVICES)
def test_replicas_bring_their_pods_and_none_is_on_the_head(name: str) -> None:
    spec = SERVICES[name]["spec"]
    assert spec["rayClusterConfig"]["enableInTreeAutoscaling"] is True
    assert spec["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["excludeHeadPodFromServeSvc"] is True


@pytest.mark.parametrize("name", SERVICES)
def test_only_who_has_the_clusters_token_gets_into_it(name: str) -> None:
    cluster = SERVICES[name]["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert "serviceType" not in cluster["headGroupSpec"]  # ClusterIP
    assert "enableIngress" not in cluster["headGroupSpec"]


@pytest.mark.parametrize("name", SERVICES)
def test_ray_is_that_of_the_image_and_tells_nobody_how_it_is_used(name: str) -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (version,) = re.findall(r"^ray==(.+)$", constraints, re.MULTILINE)
    assert SERVICES[name]["spec"]["rayClusterConfig"]["rayVersion"] == version
    assert "RAY_USAGE_STATS_ENABLED=0 " in DOCKERFILE


@pytest.mark.parametrize(("name", "part"), PODS)
def test_pods_run_the_image_of_their_target(name: str, part: str) -> None:
    assert name in targets()
    assert PODS[name, part]["containers"][0]["image"] == f"anypool:{name}"


@pytest.mark.parametrize(("name", "part"), PODS)
def test_probes_need_no_program_in_the_image(name: str, part: str) -> None:
    (container,) = PODS[name, part]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["serve"] == PROXY_PORT
    node = {"path": "/api/healthz", "port": NODE_PORT}
    ready = {"head": node, "worker": {"path": "/-/healthz", "port": "serve"}}[part]
    assert container["livenessProbe"]["httpGet"] == node
    assert container["readinessProbe"]["httpGet"] == ready


@pytest.mark.parametrize(("name", "part"), PODS)
def test_a_pod_has_no_rights_and_writes_only_to_what_ends_with_it(name: str, part: str) -> None:
    pod = PODS[name, part]
    user = pod["securityContext"]
    assert user["runAsNonRoot"] is True
    assert user["seccompProfile"] == {"type": "RuntimeDefault"}
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}\n" in DOCKERFILE
    options = SERVICES[name]["spec"]["rayClusterConfig"]["autoscalerOptions"]
    for container in (pod["containers"][0], options):
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]}
        assert volumes[mounted["/tmp"]] == {}
    assert pod["enableServiceLinks"] is False  # ANYPOOL_PORT=tcp://… is no port
    if part == "worker":  # the autoscaler beside the head needs its own
        assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize(("name", "part"), PODS)
def test_rays_shared_memory_has_room_for_its_objects(name: str, part: str) -> None:
    pod, cluster = PODS[name, part], SERVICES[name]["spec"]["rayClusterConfig"]
    (volume,) = [v for v in pod["volumes"] if v["name"] == "shm"]
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
    assert {"name": "shm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]
    group = {"head": cluster["headGroupSpec"], "worker": workers(name)}[part]
    assert int(group["rayStartParams"]["object-store-memory"]) < 1 << 30


@pytest.mark.parametrize("name", SERVICES)
def test_there_is_time_to_move_a_replica_and_to_drain(name: str) -> None:
    pod = pods(SERVICES[name])["worker"]
    (variable,) = pod["containers"][0]["env"]
    assert variable["name"] == "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
    assert float(variable["value"]) >= 2 * Settings().drain_s
    assert pod["terminationGracePeriodSeconds"] > float(variable["value"]) + 10


def test_a_login_shell_finds_what_is_installed() -> None:
    (written,) = re.findall(r'^RUN echo "(.*)" >/etc/profile.d/\w+\.sh$', DOCKERFILE, re.MULTILINE)
    assert written.replace("\\", "") == re.findall(r"^ENV (PATH=\S+)", DOCKERFILE, re.MULTILINE)[0]
