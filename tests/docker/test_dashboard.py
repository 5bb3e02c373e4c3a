"""The dashboard's queries, asked of a real Prometheus that reads a real server."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import photo
from tests.docker.files import DOCKER, load
from tests.e2e.server import Server
from tests.test_readme import metrics

DASHBOARD = json.loads((DOCKER / "grafana" / "dashboards" / "anypool.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
PROMETHEUS = shutil.which("prometheus")
_WAIT_S = 60


@pytest.mark.parametrize("query", QUERIES)
def test_queries_name_metrics_that_exist(query: str) -> None:
    named = set(re.findall(r"\b(?:anypool|process)_\w+", query))
    families = {*metrics(), "process_cpu_seconds_total", "process_resident_memory_bytes",
                "process_open_fds", "process_start_time_seconds"}  # fmt: skip
    series = {name + end for name in families for end in ("", "_bucket", "_sum", "_count")}
    assert named
    assert named <= series


def test_the_panels_ask_the_source_that_is_provisioned() -> None:
    (source,) = load("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}


def test_every_metric_has_a_place_on_the_dashboard() -> None:
    assert [name for name in metrics() if not any(name in query for query in QUERIES)] == []


@pytest.fixture(scope="module")
def prometheus(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A Prometheus with our configuration, told where a server is that has something to tell."""
    if PROMETHEUS is None:
        pytest.skip("there is no Prometheus here: apt-get install prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    with Server(store, "--queue-megapixels", "0.3") as server:
        settings = load("prometheus/prometheus.yml")
        settings["global"]["scrape_interval"] = "1s"
        (job,) = settings["scrape_configs"]
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [server.url.removeprefix("http://")]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = subprocess.Popen(
            [PROMETHEUS, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}",
             f"--web.listen-address={address}", "--log.level=error"]
        )  # fmt: skip
        try:
            with httpx.Client(base_url=f"http://{address}", timeout=10) as client:
                _wait_and_talk(client, server)
                yield client
        finally:
            process.terminate()
            process.wait(20)


def _wait_and_talk(client: httpx.Client, server: Server) -> None:
    """Send requests of all kinds until Prometheus has seen some of them grow."""
    give_up = time.monotonic() + _WAIT_S
    seen: Any = []
    while not seen:
        assert time.monotonic() < give_up, "Prometheus has not seen the server's metrics grow"
        for images in (1, 3, 9):  # nine exceed the queue
            files = [("files", ("x", photo("panda").data))] * images
            httpx.post(f"{server.url}/v1/classify", files=files, timeout=60)
        try:
            seen = ask(client, "sum(rate(anypool_rejected_images_total[10s])) > 0")
        except httpx.TransportError:  # it does not listen yet
            time.sleep(0.1)


def ask(client: httpx.Client, query: str) -> Any:
    """What a query finds now."""
    answer = client.get("/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", f"{query}: {answer.get('error')}"
    return answer["data"]["result"]


@pytest.mark.slow
@pytest.mark.parametrize("query", QUERIES)
def test_every_query_finds_something(prometheus: httpx.Client, query: str) -> None:
    for name, value in {"$instance": ".*", "$__rate_interval": "1m"}.items():
        query = query.replace(name, value)
    found = ask(prometheus, query)
    assert found, query
    assert all(float(row["value"][1]) >= 0 for row in found)  # NaN is not


@pytest.mark.slow
def test_the_instances_to_choose_from_are_found(prometheus: httpx.Client) -> None:
    (variable,) = DASHBOARD["templating"]["list"]
    series, label = re.fullmatch(
        r"label_values\((\w+), (\w+)\)", variable["query"]["query"]
    ).groups()  # type: ignore[union-attr]
    assert all(label in row["metric"] for row in ask(prometheus, series))
    assert ask(prometheus, series)
