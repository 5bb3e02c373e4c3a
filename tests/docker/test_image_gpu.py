"""What only the gpu image must do, on a machine without a GPU: `make docker-test TARGET=gpu`."""

import httpx
import pytest

from tests.docker.container import Container, inside
from tests.docker.files import DOCKER

pytestmark = pytest.mark.docker


def test_of_nvidias_libraries_only_the_driver_is_lacking() -> None:
    done = inside((DOCKER / "check_gpu.py").read_text(encoding="utf-8"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "libcuda.so.1" in done.stdout


def test_without_a_gpu_it_runs_on_the_cpu_and_says_so() -> None:
    with Container() as container:
        ready = httpx.get(f"{container.url}/readyz").json()
        assert ready["models"][0]["provider"] == "CPUExecutionProvider"
        assert "there is no NVIDIA driver" in ready["detail"]
        assert "\nanypool_fallback_models 1.0" in httpx.get(f"{container.url}/metrics").text
        assert "WARNING service.engine" in container.log
        assert "no usable GPU, running on the CPU: there is no NVIDIA driver" in container.log
