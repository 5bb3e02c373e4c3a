"""A Ray of two nodes on this machine, and services on it, as far as a client can tell like Server.

A node is a set of real processes, with a loopback address of its own: Ray takes 127.0.0.1 for the
name of a machine that others cannot reach. They report to nobody.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.context import _get_global_client

from service.ray_serve import RaySettings, app

LOCAL = "127.0.0.1"
HEAD, SECOND = "127.0.0.2", "127.0.0.3"
AT_MOST_S = 90.0
# Cores as Ray counts them, and bytes for objects, which bodies of requests are not.
_NODE: dict[str, Any] = {"num_cpus": 8, "object_store_memory": 80_000_000}
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}


@dataclass(frozen=True, slots=True)
class Deployed:
    """A service on Ray: `url` is where it answers."""

    url: str
    name: str

    def replicas(self) -> list[int]:
        """Process ids of those that run."""
        return [replica["pid"] for replica in self.running()]

    def nodes(self) -> list[str]:
        """The node of each that runs, in the same order."""
        return [replica["node_id"] for replica in self.running()]

    def wait_for(self, replicas: int, without: Sequence[int] = ()) -> None:
        """Return when so many run, none of them one of those."""
        wait(
            lambda: len(self.replicas()) == replicas and not {*without} & {*self.replicas()},
            f"{replicas} replicas of {self.name}",
        )

    @property
    def message(self) -> str:
        """What Ray has to say about it."""
        status = serve.status().applications[self.name]
        return " ".join([status.message, *(d.message for d in status.deployments.values())])

    def running(self) -> list[dict[str, Any]]:
        """The replicas that run, as Ray describes them."""
        controller = _get_global_client()
        assert controller is not None
        told = controller.get_serve_details()  # as Ray's dashboard does
        deployments = told["applications"][self.name]["deployments"].values()
        replicas = [replica for deployment in deployments for replica in deployment["replicas"]]
        return [replica for replica in replicas if replica["state"] == "RUNNING"]


class Nodes:
    """Use it in `with`."""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        os.environ.update(_QUIET)
        head = {**_NODE, "node_ip_address": HEAD, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.add_node()
        ray.init(self.cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        with socket.create_server((LOCAL, 0)) as free:
            self._port = free.getsockname()[1]
        serve.start(
            proxy_location=ProxyLocation.HeadOnly,
            http_options=HTTPOptions(host=LOCAL, port=self._port),
        )

    def __exit__(self, *error: object) -> None:
        if ray.is_initialized():
            serve.shutdown()
        ray.shutdown()
        if hasattr(self, "cluster"):
            self.cluster.shutdown()

    @contextmanager
    def serve(self, store: Path, *options: str, **settings: Any) -> Iterator[Deployed]:
        """A service for the length of the block; options are those of `anypool serve`."""
        names = [name.removeprefix("--").replace("-", "_") for name in options[::2]]
        settings |= dict(zip(names, options[1::2], strict=True))
        deployed = self.deploy(store, **settings)
        try:
            yield deployed
        finally:
            serve.delete(deployed.name)

    def deploy(self, store: Path, name: str = "", **settings: Any) -> Deployed:
        """Deploy it, or with the name of one that is, in its place; return when it runs."""
        name = name or f"anypool-{time.monotonic_ns()}"
        built = app(RaySettings(artifacts=store, **settings))
        serve.run(built, name=name, route_prefix=f"/{name}")
        return Deployed(f"http://{LOCAL}:{self._port}/{name}", name)

    def add_node(self) -> None:
        """The second one, again when it was killed."""
        self.second = self.cluster.add_node(node_ip_address=SECOND, **_NODE)


def wait(reached: Callable[[], object], what: str) -> None:
    """Return when it is reached."""
    give_up = time.monotonic() + AT_MOST_S
    while not reached():
        assert time.monotonic() < give_up, f"not {what}"
        time.sleep(0.1)
