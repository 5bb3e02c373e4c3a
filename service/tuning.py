"""What `anypool tune` has found for an artifact on a host, and whether it counts on this one."""

import hashlib
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import onnxruntime as ort
from pydantic import BaseModel, ConfigDict, ValidationError

from service import cuda
from service.engine import Batching
from service.failures import EngineError
from service.folders import StoreError, default_model, find
from service.sessions import CPU, Gpu, Provider, Search, devices
from service.settings import Settings, granted_cores

logger = logging.getLogger(__name__)

FILE = "tuning.json"
_CPU_INFO = Path("/proc/cpuinfo")
_TUNED = ("cores", "batching", "batch_megapixels", "search", "canvases")
_OF_PROCESS = ("cores", "batch_megapixels")  # for all models, so as the default one would have it


class Host(BaseModel):
    """What was measured on, and what: where any of it differs, the figures say nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: Literal["cpu", "cuda"]
    device: str
    cores: int
    onnxruntime: str
    artifact: str  # SHA-256 of its graphs


class Tuning(BaseModel):
    """The way to serve an artifact that was fastest; None was not measured.

    canvases: (rows, height, width) of each
    images_per_s: with all of this, of which sizes (height, width)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    host: Host
    cores: int | None = None
    batching: Batching | None = None
    batch_megapixels: float | None = None
    search: Search | None = None
    canvases: tuple[tuple[int, int, int], ...] | None = None
    images_per_s: float
    sizes: tuple[tuple[int, int], ...]

    def without(self, explicit: Collection[str]) -> "Tuning":
        """What is left when an operator has chosen some of it."""
        chosen = {name: None for name in explicit if name in _TUNED}
        return self.model_copy(update=chosen)


def host(folder: Path, provider: Provider, gpu: Gpu) -> Host:
    """This one, with the artifact in `folder`; raises EngineError, OSError."""
    on = devices(provider, gpu)[0]
    digest = hashlib.sha256()
    for name in ("model.onnx", "ragged.onnx"):
        if (path := folder / name).exists():
            digest.update(path.read_bytes())
    return Host(
        provider="cpu" if on == CPU else "cuda",
        device=_cpu() if on == CPU else cuda.names()[int(on.partition(":")[2])],
        cores=granted_cores(),
        onnxruntime=ort.__version__,
        artifact=digest.hexdigest(),
    )


def read(folder: Path, provider: Provider, gpu: Gpu) -> tuple[Tuning | None, str | None]:
    """The tuning in an artifact's folder, or why the one that is there does not count."""
    path = folder / FILE
    if not path.exists():
        return None, None
    try:
        found, here = Tuning.model_validate_json(path.read_bytes()), host(folder, provider, gpu)
    except (OSError, ValidationError, EngineError) as exc:
        return None, f"{path} is ignored: {' '.join(str(exc).split())}"
    for name, value in here:
        if (then := getattr(found.host, name)) != value:
            return None, (
                f"{path} is ignored: it was measured with {name} {then}, and here it is {value}; "
                "run anypool tune again"
            )
    return found, None


def tuned(settings: Settings) -> Settings:
    """With what is best for the default model, where the operator has chosen nothing."""
    try:
        found = find(settings.artifacts)
        versions = found[default_model(sorted(found), settings.model, settings.artifacts)]
    except (StoreError, KeyError):
        return settings  # will be told when the store is loaded
    gpu = Gpu(settings.numbers_of_devices, settings.tf32)
    tuning, _ = read(versions[max(versions)], settings.provider, gpu)
    if tuning is None:
        return settings
    values = tuning.without(settings.model_fields_set).model_dump(include={*_OF_PROCESS})
    return settings.model_copy(update={k: v for k, v in values.items() if v is not None})


def _cpu() -> str:
    lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "unknown")
