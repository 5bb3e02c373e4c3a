"""What a replica is given and says, without Ray around it; tests/e2e/test_ray.py has the rest."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from service import ray_serve
from service.errors import Unavailable
from service.folders import StoreError
from service.ray_serve import ByWaitingPixels, RaySettings, Replica, app, settings_here
from service.settings import granted_cores, granted_memory_mb


def replicas(megapixels: float, waiting: dict[str, float] | None) -> int:
    metrics = None if waiting is None else {"waiting_megapixels": waiting}
    context: Any = SimpleNamespace(aggregated_metrics=metrics)
    return ByWaitingPixels(megapixels)(context)[0]


@pytest.mark.parametrize(
    ("waiting", "wanted"),
    [(None, 1), ({}, 1), ({"a": 0}, 1), ({"a": 8}, 1), ({"a": 8.1}, 2), ({"a": 20, "b": 5}, 4)],
)
def test_as_many_replicas_as_the_waiting_pixels_take(
    waiting: dict[str, float] | None, wanted: int
) -> None:
    assert replicas(8, waiting) == wanted


def test_a_replica_has_its_share_of_the_memory_where_it_runs() -> None:
    whole = settings_here({"cores": 1}).memory_mb
    assert whole == granted_memory_mb() // granted_cores()
    assert settings_here({"cores": 1, "memory_mb": 77}).memory_mb == 77
    assert settings_here({"cores": 10_000}).memory_mb == granted_memory_mb()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"workers": 2}, "workers"),
        ({"control_access": "open"}, "control_access"),
        ({"replicas": 3, "max_replicas": 2}, "not be less than replicas"),
        ({"max_replicas": 2, "queue_megapixels": 8}, "less than queue_megapixels"),
        ({"port": 8001, "devices": "1"}, "devices, port"),
        ({"provider": "cuda"}, "gpus=1"),
        ({"gpus": 1.5}, "whole number"),
        ({"replica_megapixels": 0}, "replica_megapixels"),
        ({"surge": 101}, "surge"),
        ({"coress": 1}, "coress"),
    ],
)
def test_what_cannot_be_on_ray_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RaySettings(**given)


def test_arguments_and_environment_become_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYPOOL_MAX_IMAGES", "7")
    monkeypatch.setenv("ANYPOOL_REPLICAS", "3")
    settings = RaySettings.model_validate({"cores": "4", "max_images": "9"})  # as Ray does
    assert (settings.cores, settings.max_images, settings.replicas) == (4, 9, 3)


def test_replicas_are_given_what_they_cannot_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    built = app(RaySettings(cores=4, gpus=0.5, replicas=3, max_images=5, drain_s=7, surge=50))
    deployment = built._bound_deployment
    (given,) = deployment.init_args
    assert given == {"artifacts": str(tmp_path / "artifacts"), "cores": 4, "max_images": 5,
                     "drain_s": 7, "workers": 1, "control_access": "closed"}  # fmt: skip
    assert json.loads(json.dumps(given)) == given
    assert deployment.num_replicas == 3
    assert deployment.ray_actor_options is not None
    assert deployment.ray_actor_options["num_cpus"] == 4
    assert deployment.ray_actor_options["num_gpus"] == 0.5


def test_a_replica_without_gpus_leaves_those_of_its_machine_alone() -> None:
    (given,) = app(RaySettings())._bound_deployment.init_args
    assert given["provider"] == "cpu"
    (given,) = app(RaySettings(gpus=0.5, provider="cuda"))._bound_deployment.init_args
    assert given["provider"] == "cuda"


def test_with_max_replicas_their_number_follows_what_waits() -> None:
    settings = RaySettings(replicas=2, max_replicas=5, replica_megapixels=3, scale_up_s=4)
    scaling = app(settings)._bound_deployment._deployment_config.autoscaling_config
    assert scaling is not None
    assert (scaling.min_replicas, scaling.max_replicas, scaling.upscale_delay_s) == (2, 5, 4)
    policy: Any = scaling.policy.get_policy()
    assert policy is ByWaitingPixels
    assert scaling.policy.policy_kwargs == {"megapixels": 3}


class Shown:
    """A gauge that remembers."""

    values: dict[tuple[str, str], float] = {}  # noqa: RUF012

    def __init__(self, name: str, tag_keys: tuple[str, ...]) -> None:
        self._name, self._keys = name, tag_keys

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(self._keys)
        self.values[self._name, json.dumps(tags)] = value


def test_a_replica_is_healthy_while_it_can_classify_and_shows_our_metrics(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_serve, "Gauge", Shown)
    replica = Replica({"artifacts": str(store), "cores": 1, "log_level": "error"})
    parts = replica.__serve_build_asgi_app__().state.service
    try:
        monkeypatch.setattr(Shown, "set", lambda *_: 1 / 0)
        asyncio.run(replica.check_health())  # healthy, though metrics cannot be shown
        monkeypatch.undo()
        monkeypatch.setattr(ray_serve, "Gauge", Shown)
        asyncio.run(replica.check_health())
        assert replica.record_autoscaling_stats() == {"waiting_megapixels": 0}
        parts.bodies.take(parts.settings.bodies_bytes // 4, None)
        waiting = replica.record_autoscaling_stats()["waiting_megapixels"]
        assert waiting == pytest.approx(parts.settings.queue_megapixels / 4)
        assert Shown.values["anypool_processes_ready", "{}"] == 1
        assert all(name.startswith("anypool_") for name, _ in Shown.values)
        parts.draining = True
        with pytest.raises(Unavailable, match="shutting down"):
            asyncio.run(replica.check_health())
    finally:
        parts.scheduler.close()


def test_a_replica_without_a_model_says_why(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=str(tmp_path)):
        Replica({"artifacts": str(tmp_path), "log_level": "error"})
