"""What is said of GPUs that cannot be used."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import onnxruntime as ort
import pytest

from service import cuda
from service.api.deps import Service
from service.api.ops import readyz
from service.engine import Engine
from service.failures import EngineError
from service.sessions import Gpu, Sessions, cuda_options, devices


class Driver:
    """NVIDIA's, as ctypes shows it."""

    def __init__(self, version: int, gpus: int, code: int = 0) -> None:
        self.version, self.gpus, self.code = version, gpus, code

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.code

    def cuDeviceGetCount(self, count: object) -> int:  # noqa: N802
        count._obj.value = self.gpus  # type: ignore[attr-defined]
        return 0

    def cuDeviceGetName(self, name: object, size: int, number: int) -> int:  # noqa: N802
        name.value = f"NVIDIA Test {number}".encode()  # type: ignore[attr-defined]
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


def test_gpus_have_names() -> None:
    assert cuda.names_of(Driver(13_000, gpus=2)) == ["NVIDIA Test 0", "NVIDIA Test 1"]


def test_without_a_gpu_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "problem", lambda: "there is no driver")
    assert cuda.names() == []


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose driver shows four GPUs, to an ONNX Runtime that could use them."""
    monkeypatch.setattr(cuda, "problem", lambda: None)
    monkeypatch.setattr(cuda, "cuda_version", lambda: "13.0")
    monkeypatch.setattr(cuda, "names", lambda: ["NVIDIA Test"] * 4)


@pytest.mark.usefixtures("four_gpus")
def test_all_gpus_are_used_or_those_that_are_named() -> None:
    assert devices("auto", Gpu()) == ("cuda:0", "cuda:1", "cuda:2", "cuda:3")
    assert devices("cuda", Gpu(devices=(2, 0))) == ("cuda:2", "cuda:0")
    assert devices("cpu", Gpu(devices=(2, 0))) == ("cpu",)
    with pytest.raises(EngineError, match="no GPU 4; the driver shows 4, from 0 on"):
        devices("cuda", Gpu(devices=(1, 4)))


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="the GPU build is installed"
)
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_where_cuda_cannot_be_loaded_after_all_it_is_one_cpu_and_said(store: Path) -> None:
    engine = Engine(store / "seed_cnn" / "1", "auto")
    assert engine.devices == ("cpu",)
    assert "could not load CUDA" in str(engine.fallback)
    with pytest.raises(EngineError, match="CUDA was asked for"):
        Engine(store / "seed_cnn" / "1", "cuda")


def test_sessions_on_the_cpu_have_not_fallen_back_to_it(store: Path) -> None:
    made = Sessions(store / "seed_cnn" / "1", "cpu", Gpu(), [], mixes=True)
    assert (made.provider, made.fell_back) == ("CPUExecutionProvider", False)
    assert made.ragged is not None


def test_the_options_of_the_cuda_provider() -> None:
    assert cuda_options(3, Gpu()) == {
        "device_id": "3",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kNextPowerOfTwo",
        "do_copy_in_default_stream": "1",
        "use_tf32": "0",
    }
    assert cuda_options(0, Gpu(tf32=True))["use_tf32"] == "1"
    assert cuda_options(0, Gpu(search="EXHAUSTIVE"))["cudnn_conv_algo_search"] == "EXHAUSTIVE"


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
