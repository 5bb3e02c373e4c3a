"""What is said of GPUs that cannot be used."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from service import cuda
from service.api.deps import Service
from service.api.ops import readyz
from service.engine import Engine


class Driver:
    """NVIDIA's, as ctypes shows it."""

    def __init__(self, version: int, gpus: int, code: int = 0) -> None:
        self.version, self.gpus, self.code = version, gpus, code

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.code

    def cuDeviceGetCount(self, count: object) -> int:  # noqa: N802
        count._obj.value = self.gpus  # type: ignore[attr-defined]
        return 0

    def cuDriverGetVersion(self, version: object) -> int:  # noqa: N802
        version._obj.value = self.version  # type: ignore[attr-defined]
        return 0


def test_a_gpu_with_a_driver_that_is_new_enough_is_no_problem() -> None:
    assert cuda.complaint(Driver(13_000, gpus=1), "13.0") is None
    assert cuda.complaint(Driver(13_020, gpus=8), "13.0") is None


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        (Driver(12_040, gpus=1), "made for CUDA 12.4, ONNX Runtime for 13.0"),
        (Driver(13_000, gpus=0), "shows no GPU"),
        (Driver(13_000, gpus=1, code=100), "shows no GPU (its code is 100)"),
    ],
)
def test_what_is_wrong_is_said(driver: Driver, said: str) -> None:
    assert said in str(cuda.complaint(driver, "13.0"))


@pytest.mark.skipif(cuda.cuda_version() is not None, reason="the GPU build is installed")
def test_without_the_gpu_build_it_is_named() -> None:
    assert "pip install 'anypool[gpu]'" in str(cuda.problem())


@pytest.mark.skipif(cuda.cuda_version() is not None, reason="the GPU build is installed")
def test_the_cpu_build_on_the_cpu_is_no_fallback(store: Path) -> None:
    assert Engine(store / "seed_cnn" / "1", "auto").fallback is None


def test_readiness_says_why_a_model_is_not_on_the_gpu(store: Path) -> None:
    engines = [Engine(store / "seed_cnn" / "1", "cpu"), Engine(store / "seed_cnn" / "1", "cpu")]
    parts = cast(Service, SimpleNamespace(store=engines, ensure_ready=lambda: None))
    assert "detail" not in json.loads(bytes(asyncio.run(readyz(parts)).body))
    engines[1].fallback = "there is no driver"
    assert (
        json.loads(bytes(asyncio.run(readyz(parts)).body))["detail"]
        == "on the CPU: there is no driver"
    )
