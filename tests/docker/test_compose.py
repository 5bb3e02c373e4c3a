"""compose.yaml says what the service understands, and leaves nobody with more than he needs."""

from typing import Any

import pytest

from service.settings import Settings
from tests.docker.files import check_variables, load, targets

COMPOSE = load("compose.yaml")
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = [name for name in SERVICES if "build" in SERVICES[name]]


def test_the_cpu_is_served_unless_asked_otherwise() -> None:
    assert [name for name in SERVICES if "profiles" not in SERVICES[name]] == ["cpu"]
    assert SERVICES["gpu"]["profiles"] == ["gpu"]
    assert SERVICES["prometheus"]["profiles"] == SERVICES["grafana"]["profiles"] == ["monitoring"]


@pytest.mark.parametrize("name", SERVICES)
def test_each_has_a_healthcheck_limits_and_no_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("${BIND:-127.0.0.1}:") for port in service["ports"])


@pytest.mark.parametrize("name", OURS)
def test_ours_are_built_by_the_dockerfile_and_set_what_can_be_set(name: str) -> None:
    service = SERVICES[name]
    assert service["build"]["target"] in targets()
    assert service["image"] == f"anypool:{service['build']['target']}"
    check_variables(service["environment"])
    assert int(service["stop_grace_period"].removesuffix("s")) > Settings().drain_s + 5


def test_prometheus_reads_ours_where_they_listen() -> None:
    (job,) = load("prometheus/prometheus.yml")["scrape_configs"]
    (discovery,) = job["dns_sd_configs"]
    assert discovery["names"] == OURS
    assert all(SERVICES[name]["ports"][0].endswith(f":{discovery['port']}") for name in OURS)


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    (source,) = load("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = load("grafana/provisioning/dashboards/anypool.yaml")["providers"]
    mounted = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted
