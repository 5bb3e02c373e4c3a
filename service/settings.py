"""Every knob, once: ANYPOOL_* variables, and `anypool serve` options of the same name."""

import math
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MEGA = 1_000_000
PREFIX = "ANYPOOL_"
BYTES_A_PIXEL = 190  # of activations in a run: EfficientNet-Lite0; ResNet-18 takes 120
_FOR_RUNS = 0.6  # of the memory; the rest is for bodies, decoded images and the process itself
_FOR_BODIES = 0.1
_ORIGIN = re.compile(r"\*|https?://[^/\s,]+")
_CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")


def granted_cores(quota: Path = _CGROUP_CPU) -> int:
    """Cores this process may really use: its CPU affinity, cut by the cgroup quota; at least 1."""
    cores = len(os.sched_getaffinity(0))
    try:
        limit, period = quota.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if limit == "max" else max(1, min(cores, int(limit) // int(period)))


def granted_memory_mb(limit: Path = _CGROUP_MEMORY) -> int:
    """Memory this process may use: the machine's, cut by the cgroup limit; in 10^6 bytes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no cgroup, or no limit in it
        memory = min(memory, int(limit.read_text()))
    return memory // MEGA


class Settings(BaseSettings):
    """What an operator can set; each has its unit in its name."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    artifacts: Path = Field(Path("artifacts"), description="store: folder of <name>/<version>/")
    model: str | None = Field(
        None,
        description="default model; may be left out when the store holds one model, "
        "or efficientnet_lite0 among others",
    )
    watch_s: float = Field(
        0, ge=0, description="seconds between looks for models that come and go; 0 looks only once"
    )
    verify: bool = Field(
        False,
        description="take an artifact only if it answers here what torch answered at export",
    )
    provider: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="execution provider; auto takes CUDA where a GPU is, and says so"
    )
    devices: str | None = Field(
        None,
        pattern=r"^\d+(,\d+)*$",
        description="numbers of the GPUs to use, for example 0,2 (default: all the driver shows)",
    )
    tf32: bool = Field(
        False,
        description="let convolutions on a GPU round to 10 bits: faster, but answers are only "
        "right to about 1e-3; not together with verify",
    )
    cores: int = Field(
        default_factory=granted_cores,
        ge=1,
        description="threads for decoding and inference (default: cores granted by the cgroup)",
    )
    workers: int = Field(
        1,
        ge=1,
        description="worker processes; cores, memory_mb, queue_megapixels and bodies_mb are shared "
        "out between them",
    )
    memory_mb: int = Field(
        default_factory=granted_memory_mb,
        ge=1,
        description="memory in 10^6 bytes (default: what the cgroup grants); runs wait for each "
        "other rather than take more than 0.6 of it, at 190 bytes a pixel",
    )
    batching: Literal["equal", "auto", "mixed"] = Field(
        "auto",
        description="which images share a run: equal, those of one size; auto, others too where "
        "the measured cost says that it saves time; mixed, any. The answers are the same",
    )
    canvases: Path | None = Field(
        None,
        description="JSON file of shapes to pin, a session each: "
        '{"efficientnet_lite0": [[16, 96, 96], [8, 224, 224]]}, (rows, height, width)',
    )
    max_body_mb: float = Field(64, gt=0, description="largest request body, in 10^6 bytes")
    bodies_mb: float | None = Field(
        None,
        gt=0,
        description="bodies read and not answered yet, in 10^6 bytes; beyond it, 503 (default: 0.1 "
        "of memory_mb, at least twice max_body_mb)",
    )
    max_connections: int = Field(
        900,
        ge=1,
        description="client connections at once; one more, and the one that has idled longest is "
        "closed",
    )
    max_images: int = Field(64, ge=1, description="images in one request")
    max_source_megapixels: float = Field(
        50, gt=0, le=178, description="largest image as sent, from its header"
    )
    max_source_side: int = Field(16_384, ge=1, description="longest side as sent, in pixels")
    max_aspect: float = Field(100, ge=1, description="longest side over shortest, as sent")
    max_megapixels: float = Field(
        2.1, gt=0, description="largest image as the network sees it, after the resize policy"
    )
    max_side: int = Field(2_048, ge=1, description="longest side as the network sees it, in pixels")
    batch_megapixels: float = Field(
        2.1, gt=0, description="pixels in one run; activations take up to 190 bytes for each"
    )
    queue_megapixels: float = Field(
        64, gt=0, description="network pixels admitted and not answered yet; beyond it, 503"
    )
    deadline_s: float = Field(
        30, gt=0, description="an image not begun by then is answered 504 (timeout_ms overrides)"
    )
    run_limit_s: float = Field(
        60,
        gt=0,
        description="a run or a decode that takes longer hangs: it is stopped and answered 504",
    )
    header_timeout_s: float = Field(10, gt=0, description="time for a request's header to arrive")
    body_timeout_s: float = Field(60, gt=0, description="time for a request's body to arrive")
    answer_timeout_s: float = Field(60, gt=0, description="time for a client to take its answer")
    drain_s: float = Field(30, gt=0, description="time for accepted requests after SIGTERM")
    api_keys_file: Path | None = Field(
        None,
        description='JSON file of keys: {"keys": [{"name": "shop", "key": "…", '
        '"megapixels_per_s": 20}]}; with it, requests need one',
    )
    metrics_access: Literal["open", "key", "closed"] = Field(
        "open", description="who may read /metrics: everybody, holders of a key, nobody"
    )
    control_access: Literal["open", "key", "closed"] = Field(
        "closed",
        description="who may load and unload models: whoever may classify, holders of a key with "
        "admin, nobody",
    )
    cors_origins: str | None = Field(
        None,
        description="web pages that may call this service, or *: "
        "https://a.example,https://b.example (default: none)",
    )
    playground: bool = Field(
        True, description="a page at / where visitors try the service; without it, / leads to /docs"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least important message that is logged"
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="console: lines for people; json: an object a line"
    )
    otel_endpoint: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        description="where OpenTelemetry traces go, for example http://collector:4318/v1/traces; "
        "needs the extra otel",
    )
    root_path: str = Field(
        "",
        pattern=r"^(/[\w.~-]+)*$",
        description="path that a proxy serves this under and takes away, for example /vision",
    )
    forwarded_allow_ips: str = Field(
        "",
        description="proxies, by address or network and separated by commas, whose "
        "X-Forwarded-For and X-Forwarded-Proto are believed; * for all",
    )

    @field_validator("workers")
    @classmethod
    def _each_has_a_core(cls, value: int, info: ValidationInfo) -> int:
        cores = info.data.get("cores", value)
        if value > cores:
            raise ValueError(f"there are {cores} cores, and each worker needs one of its own")
        return value

    @field_validator("max_megapixels")
    @classmethod
    def _every_image_can_run(cls, value: float, info: ValidationInfo) -> float:
        workers, memory_mb = info.data.get("workers", 1), info.data.get("memory_mb", math.inf)
        room = _FOR_RUNS * memory_mb / workers / BYTES_A_PIXEL
        if workers > 1 and room < value:
            raise ValueError(f"each of {workers} workers has memory for {room:.2g} megapixels")
        return value

    @field_validator("queue_megapixels")
    @classmethod
    def _every_image_fits(cls, value: float, info: ValidationInfo) -> float:
        return _for_each(value, "queue_megapixels", info)

    @field_validator("api_keys_file")
    @classmethod
    def _every_image_of_a_key_fits(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None:
            _for_each(info.data.get("queue_megapixels", math.inf) / 2, "half of the queue", info)
        return value

    @field_validator("control_access")
    @classmethod
    def _reaches_every_worker(cls, value: str, info: ValidationInfo) -> str:
        if value != "closed" and info.data.get("workers", 1) > 1:
            raise ValueError("loading and unloading reach one worker; with several use watch_s")
        return value

    @field_validator("metrics_access", "control_access")
    @classmethod
    def _there_are_keys(cls, value: str, info: ValidationInfo) -> str:
        if value == "key" and info.data.get("api_keys_file") is None:
            raise ValueError("key needs api_keys_file")
        return value

    @field_validator("devices")
    @classmethod
    def _each_once(cls, value: str | None) -> str | None:
        if value is not None and len(set(_numbers(value))) < len(_numbers(value)):
            raise ValueError(f"{value!r} names a GPU twice")
        return value

    @field_validator("tf32")
    @classmethod
    def _exact_or_fast(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("verify"):
            raise ValueError("verify asks for answers that tf32 is too coarse for; choose one")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str | None) -> str | None:
        for origin in [] if value is None else value.split(","):
            if not _ORIGIN.fullmatch(origin.strip()):
                raise ValueError(f"{origin!r} is no origin such as https://a.example")
        return value

    @property
    def numbers_of_devices(self) -> tuple[int, ...] | None:
        """devices, apart."""
        return None if self.devices is None else _numbers(self.devices)

    @property
    def origins(self) -> list[str]:
        """cors_origins, apart."""
        return [o.strip() for o in self.cors_origins.split(",")] if self.cors_origins else []

    @property
    def bodies_bytes(self) -> int:
        """Encoded bytes held at once; a single client may hold half, so two largest bodies fit."""
        share = _FOR_BODIES * self.memory_mb if self.bodies_mb is None else self.bodies_mb
        return int(max(share, 2 * self.max_body_mb) * MEGA)

    @property
    def running_pixels(self) -> float:
        """Pixels in all runs at once, so that their activations fit the memory."""
        return _FOR_RUNS * self.memory_mb * MEGA / BYTES_A_PIXEL

    @property
    def max_body_bytes(self) -> int:
        return int(self.max_body_mb * MEGA)

    def environment(self) -> dict[str, str]:
        """What was set, as variables, for a worker process: it finds the defaults by itself."""
        values = self.model_dump(mode="json", exclude_none=True, exclude_unset=True)
        return {f"{PREFIX}{name.upper()}": str(value) for name, value in values.items()}


def _for_each(megapixels: float, name: str, info: ValidationInfo) -> float:
    """Raise ValueError where one of several workers could never take a legal image."""
    workers, largest = info.data.get("workers", 1), info.data.get("max_megapixels", 0)
    if workers > 1 and megapixels / workers < largest:
        raise ValueError(
            f"each of {workers} workers has {megapixels / workers:.2g} megapixels of {name}, less "
            f"than one image of {largest:g}"
        )
    return megapixels


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))
