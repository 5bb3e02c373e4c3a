"""The manifests name ports, probes, settings and metrics that exist."""

from typing import Any

import pytest
import yaml

from service.app import create_app
from service.settings import Settings
from tests.docker.files import DOCKERFILE, check_variables, load, targets
from tests.test_readme import metrics

BASE = {
    kind: load(f"kubernetes/base/{kind}.yaml")
    for kind in ("deployment", "service", "poddisruptionbudget", "horizontalpodautoscaler")
}
POD = BASE["deployment"]["spec"]["template"]["spec"]
KSERVE = load("kubernetes/kserve/inferenceservice.yaml")["spec"]["predictor"]
OVERLAYS = ("cpu", "gpu")


def container(overlay: str) -> Any:
    """What an overlay says of the container."""
    for patch in load(f"kubernetes/{overlay}/kustomization.yaml")["patches"]:
        changed = yaml.safe_load(patch["patch"])
        if changed["kind"] == "Deployment":
            return changed["spec"]["template"]["spec"]["containers"][0]
    raise AssertionError("no patch of the Deployment")


def variables(of: Any) -> dict[str, str]:
    return {pair["name"]: pair["value"] for pair in of["env"]}


EVERY = {
    "base": POD["containers"][0],
    **{overlay: container(overlay) for overlay in OVERLAYS},
    "kserve": KSERVE["containers"][0],
}


@pytest.mark.parametrize("name", EVERY)
def test_settings_are_those_of_the_service(name: str) -> None:
    check_variables(variables(EVERY[name]))


@pytest.mark.parametrize("name", ["base", "kserve"])
def test_probes_ask_routes_that_exist_on_the_port_that_is_listened_on(name: str) -> None:
    paths = create_app().openapi()["paths"]
    (port,) = EVERY[name]["ports"]
    listening = variables(EVERY[name]).get("ANYPOOL_PORT", "8000")
    assert str(port["containerPort"]) == listening
    probes = [probe["httpGet"] for key, probe in EVERY[name].items() if key.endswith("Probe")]
    assert len(probes) >= 2
    for probe in probes:
        assert probe["path"] in paths
        assert probe["port"] in (port["containerPort"], port.get("name"))


@pytest.mark.parametrize("name", ["base", "kserve"])
def test_it_runs_as_the_user_of_the_image_on_a_file_system_that_is_read_only(name: str) -> None:
    rights = EVERY[name]["securityContext"]
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["capabilities"] == {"drop": ["ALL"]}
    user = POD["securityContext"]["runAsUser"] if name == "base" else rights["runAsUser"]
    assert f"USER {user}:{user}\n" in DOCKERFILE


def test_the_service_and_the_autoscaler_find_the_pods() -> None:
    (port,) = BASE["service"]["spec"]["ports"]
    assert port["targetPort"] == EVERY["base"]["ports"][0]["name"]
    target = BASE["horizontalpodautoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "anypool")
    assert BASE["deployment"]["metadata"]["name"] == "anypool"


def test_the_autoscaler_goes_by_a_metric_that_exists_and_the_adapter_gives() -> None:
    (metric,) = BASE["horizontalpodautoscaler"]["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert name in metrics()
    (rule,) = load("kubernetes/prometheus-adapter.yaml")["rules"]["custom"]
    assert rule["name"]["matches"] == name
    most = float(metric["pods"]["target"]["averageValue"].removesuffix("M"))
    assert most < Settings().queue_megapixels


def test_there_is_time_to_drain() -> None:
    before = int(EVERY["base"]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert POD["terminationGracePeriodSeconds"] > before + Settings().drain_s + 5


def test_the_service_sets_no_variables() -> None:
    assert POD["enableServiceLinks"] is False  # ANYPOOL_PORT=tcp://… is no port


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_take_the_image_of_their_target(overlay: str) -> None:
    (image,) = load(f"kubernetes/{overlay}/kustomization.yaml")["images"]
    assert image["name"] == EVERY["base"]["image"]
    assert image["newTag"] == overlay
    assert overlay in targets()
    assert EVERY[overlay]["name"] == EVERY["base"]["name"]
    assert ("nvidia.com/gpu" in EVERY[overlay]["resources"]["limits"]) == (overlay == "gpu")
