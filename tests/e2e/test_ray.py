"""The service on a Ray of two nodes: what dies, what is replaced, what is added."""

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import ray

from tests.conftest import photo
from tests.e2e import test_swap as swap
from tests.e2e.faults.load import Load, photos
from tests.e2e.nodes import AT_MOST_S, Deployed, Nodes, wait
from tests.e2e.test_statuses import noise
from tests.versions import make_version

pytestmark = pytest.mark.slow
CLIENTS = 3  # of the load: at a sudden death no more than a request of each is in flight


@pytest.fixture(scope="module")
def pair(nodes: Nodes, store: Path) -> Iterator[Deployed]:
    """Two replicas, one on each node."""
    with nodes.serve(store, replicas=2) as deployed:
        assert len(set(deployed.nodes())) == 2
        yield deployed


def exported(name: str) -> dict[str, float]:
    """What Ray's exporters say that each replica has classified, by its id."""
    ports = [node["MetricsExportPort"] for node in ray.nodes() if node["Alive"]]
    texts = [httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text for port in ports]
    lines = "\n".join(texts).splitlines()
    of = [line for line in lines if line.startswith("ray_anypool_images_total{")
          and f'application="{name}"' in line and 'outcome="ok"' in line]  # fmt: skip
    return {re.findall('replica="(.+?)"', line)[0]: float(line.split()[-1]) for line in of}


def check_both_answer(pair: Deployed) -> None:
    """Return when those that run now have both classified something."""
    ids = {replica["replica_id"] for replica in pair.running()}
    assert len(ids) == 2
    wait(lambda: all(exported(pair.name).get(each) for each in ids), "answered by both")


def check_what_was_seen(load: Load) -> None:
    """Nobody got a wrong answer or half of one, and only what was in flight was lost."""
    assert set(load.seen) <= {"right", "500", "503", "reset"}, load.seen
    assert load.seen.total() - load.seen["right"] <= 2 * CLIENTS, load.seen


def test_a_replica_that_dies_is_replaced_and_the_other_goes_on(pair: Deployed) -> None:
    first, other = pair.replicas()
    with Load(pair.url, photos(pair.url)) as load:
        check_both_answer(pair)
        load.strike()
        os.kill(first, signal.SIGKILL)
        load.wait_for_right()
        pair.wait_for(2, without=[first])
        load.wait_for_right()
    assert other in pair.replicas()
    check_what_was_seen(load)


def test_a_node_that_dies_takes_its_replica_only(nodes: Nodes, store: Path) -> None:
    """Of new replicas: one that was replaced may be on the other's node."""
    with nodes.serve(store, replicas=2) as pair:
        lose_a_node(nodes, pair)


def lose_a_node(nodes: Nodes, pair: Deployed) -> None:
    here = ray.get_runtime_context().get_node_id()
    (doomed,) = (r for r, n in zip(pair.replicas(), pair.nodes(), strict=True) if n != here)
    with Load(pair.url, photos(pair.url)) as load:
        check_both_answer(pair)
        load.strike()
        nodes.cluster.remove_node(nodes.second, allow_graceful=False)
        try:
            load.wait_for_right()
            pair.wait_for(2, without=[doomed])  # on the node that is left
            load.wait_for_right()
        finally:
            nodes.add_node()
    check_what_was_seen(load)


def test_another_version_takes_over_and_no_request_fails(
    nodes: Nodes, store: Path, tmp_path: Path
) -> None:
    for version in (1, 2):
        make_version(store, tmp_path / str(version), version)
    with nodes.serve(tmp_path / "1", replicas=2) as deployed:
        load = swap.Load(deployed.url)
        with load.running():
            load.wait_for(1)
            before = deployed.replicas()
            nodes.deploy(tmp_path / "2", deployed.name, replicas=2)
            deployed.wait_for(2, without=before)
            load.wait_for(2)
    assert load.failed == []


def test_a_version_that_is_broken_changes_nothing_and_ray_says_why(
    nodes: Nodes, store: Path, tmp_path: Path
) -> None:
    make_version(store, tmp_path / "good", 1)
    shutil.copytree(tmp_path / "good", tmp_path / "bad")
    (tmp_path / "bad" / "seed_cnn" / "1" / "model.onnx").write_bytes(b"not a model")
    with nodes.serve(tmp_path / "good") as deployed:
        load = swap.Load(deployed.url)
        with load.running():
            load.wait_for(1)
            with pytest.raises(RuntimeError):
                nodes.deploy(tmp_path / "bad", deployed.name)
            load.wait_for(1)
        assert "seed_cnn" in deployed.message
    assert load.failed == []


def test_replicas_come_and_go_by_the_pixels_that_wait(nodes: Nodes, store: Path) -> None:
    scaling = {"max_replicas": 2, "replica_megapixels": 1, "scale_up_s": 1, "scale_down_s": 1}
    data = noise(500, 330)
    with nodes.serve(store, **scaling) as deployed, ThreadPoolExecutor(6) as clients:
        assert len(deployed.replicas()) == 1

        def until_two(_: int) -> set[int]:
            statuses, give_up = set(), time.monotonic() + AT_MOST_S
            while len(deployed.replicas()) < 2 and time.monotonic() < give_up:
                url = f"{deployed.url}/v1/classify?resize=fit&size=1200"  # 0.95 megapixels
                answer = httpx.post(url, content=data, timeout=60)
                statuses.add(answer.status_code)
            return statuses

        assert set.union(*clients.map(until_two, range(6))) == {200}
        deployed.wait_for(2)
        deployed.wait_for(1)


def test_more_requests_than_all_replicas_take_are_sent_away_with_retry_after(
    nodes: Nodes, store: Path
) -> None:
    with nodes.serve(store, max_connections=1) as deployed, ThreadPoolExecutor(8) as clients:

        def post(_: int) -> httpx.Response:
            return httpx.post(f"{deployed.url}/v1/classify", content=photo("bee").data, timeout=60)

        answers = list(clients.map(post, range(24)))
    assert {answer.status_code for answer in answers} == {200, 503}
    away = [answer for answer in answers if answer.status_code == 503]
    assert {answer.headers["retry-after"] for answer in away} == {"1"}


def test_our_metrics_are_shown_by_rays_exporter(pair: Deployed) -> None:
    httpx.post(f"{pair.url}/v1/classify", content=photo("bee").data, timeout=60).raise_for_status()
    wait(lambda: sum(exported(pair.name).values()) > 0, "shown")


def test_images_of_a_client_that_has_gone_are_dropped(nodes: Nodes, store: Path) -> None:
    files = [("files", ("bee.webp", photo("bee").data))] * 64
    cancelled = re.compile(r"^anypool_cancelled_images_total (.+)$", re.M)
    gone = re.compile(r'^anypool_requests_total{route="/v1/classify",status="499"} (.+)$', re.M)
    with nodes.serve(store) as deployed:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{deployed.url}/v1/classify?resize=fit&size=1024", files=files, timeout=2)

        def counted(what: re.Pattern[str]) -> float:
            text = httpx.get(f"{deployed.url}/metrics", timeout=60).text
            return sum(map(float, what.findall(text)))

        wait(lambda: counted(cancelled) > 0 and counted(gone) == 1, "dropped")
