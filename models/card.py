"""The card: everything a server must know about an exported model, and nothing of torch.

`card.json` lies beside `model.onnx` in an artifact. The exporter writes it, the service reads it;
it is the only thing the two share.
"""

import json
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

FORMAT: Final = 1

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
Policy = Literal["fit", "limit", "short", "crop", "native"]
Filter = Literal["bicubic", "bilinear"]
Activation = Literal["softmax", "sigmoid", "none"]
Precision = Literal["fp32", "fp16"]
Output = Literal["logits", "probabilities", "embedding", "cam"]


class CardError(ValueError):
    """A card that cannot be used; the message says which file, why, and what to do."""


class Part(BaseModel):
    """A frozen piece of the card that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Label(Part):
    """What one class is called: `id` is unique (a WordNet id for ImageNet), `name` need not be."""

    id: str
    name: str


class Preprocessing(Part):
    """How pixels reach the network: resized by the service, normalised inside the graph.

    `mean` and `std` count in 8-bit pixel values, one number a channel: x = (pixel - mean) / std.
    `short` and `crop` are what torchvision's Resize, and Resize and CenterCrop, do to a PIL image.
    """

    channels: Literal[1, 3]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    policy: Policy
    size: int | None = Field(
        default=None,
        ge=1,
        description="longest side for fit and limit, shortest for short and crop",
    )
    crop: int | None = Field(
        default=None, ge=1, description="side of the square cut from the centre, for crop"
    )
    filter: Filter = "bicubic"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean and std need one number for each of {self.channels} channels")
        if 0 in self.std:
            raise ValueError("std must not be 0")
        if (self.policy == "native") != (self.size is None):
            raise ValueError("size belongs to all policies but native, and only to them")
        if (self.policy == "crop") != (self.crop is not None):
            raise ValueError("crop belongs to the policy crop, and only to it")
        if self.crop is not None and self.size is not None and self.crop > self.size:
            raise ValueError(f"a square of {self.crop} cannot be cut from a side of {self.size}")
        return self

    def words(self) -> str:
        """For people: "crop to 224 of 256, bilinear; 3 channels, mean …, std …"."""
        resize = {
            "fit": f"longest side {self.size}",
            "limit": f"longest side at most {self.size}",
            "short": f"shortest side {self.size}",
            "crop": f"shortest side {self.size}, of that the middle {self.crop}×{self.crop}",
            "native": "any size",
        }[self.policy]
        how = "" if self.policy == "native" else f" ({self.filter})"
        numbers = (", ".join(f"{x:g}" for x in values) for values in (self.mean, self.std))
        mean, std = numbers
        return f"{resize}{how}, {self.channels} channels, mean {mean}, std {std} (of 255)"


class SizeLimits(Part):
    """The sides, in pixels, that the network can take; found by probing at export."""

    min_height: int = Field(ge=1)
    min_width: int = Field(ge=1)
    multiple: int = Field(default=1, ge=1, description="both sides must be divisible by this")

    def smallest(self) -> tuple[int, int]:
        """The smallest legal (height, width)."""
        m = self.multiple
        return -(-self.min_height // m) * m, -(-self.min_width // m) * m

    def allow(self, height: int, width: int) -> bool:
        """Whether the network takes an image of that size."""
        divisible = height % self.multiple == width % self.multiple == 0
        return divisible and height >= self.min_height and width >= self.min_width


class Parity(Part):
    """What verification found: ONNX Runtime against torch over a grid of sizes."""

    reference: str = Field(description="what made the reference outputs, for example 'torch 2.13'")
    provider: str
    cases: int = Field(ge=1)
    worst: float = Field(ge=0, description="largest |difference| / max|logit| over the grid")
    worst_case: str


class Mixed(Part):
    """Whether images of different sizes may share a run, and what proved it.

    tolerances: allowed |difference| / max|logit of that image|, in company against alone, by
    execution provider; they also hold for images of one size in one run
    """

    supported: bool
    reason: str | None = Field(default=None, description="why not, where it is not")
    tolerances: dict[str, float]
    parity: Parity | None = None


class Drift(Part):
    """What fewer bits change on real photos, against the same network in 32 bits.

    agreement: part of the photos that get the same most probable class
    worst: largest difference of a probability, of the photo `worst_photo`; of weights in 16 bits,
    since the CPU, which answers here, computes in 32
    peak: largest number between layers that 16 bits have to hold, of 65504 that they can
    rounded: largest |difference| / max|logit| where those numbers are rounded as well
    unmeasured: why that is not known, where it is not
    """

    photos: int = Field(ge=1)
    agreement: float = Field(ge=0, le=1)
    worst: float = Field(ge=0)
    worst_photo: str
    peak: float | None = Field(default=None, ge=0)
    rounded: float | None = Field(default=None, ge=0)
    unmeasured: str | None = None


class Licence(Part):
    """Terms of the weights. `notice` must travel with them."""

    name: str
    notice: str


class Card(Part):
    """The contract between an artifact and the service that hosts it."""

    format: Literal[1] = FORMAT
    name: Name
    version: int = Field(ge=1)
    labels: tuple[Label, ...] = Field(min_length=1)
    preprocessing: Preprocessing
    activation: Activation
    limits: SizeLimits
    pooling: str = Field(description="the pooling layer, in words")
    outputs: tuple[Output, ...]
    embedding_size: int | None = Field(default=None, ge=1)
    map_stride: int | None = Field(
        default=None, ge=1, description="image pixels a side, about, to one place of a cam"
    )
    tolerances: dict[str, float] = Field(
        description="allowed |difference| / max|logit| by execution provider"
    )
    parity: Parity | None = Field(default=None, description="absent only while being verified")
    rounding: float | None = Field(
        default=None,
        ge=0,
        description="|difference| / max|logit| of torch itself, in float32 against float64",
    )
    mixed: Mixed
    precision: Precision = Field(
        default="fp32", description="fp16: convolutions in 16 bits; inputs and outputs are the same"
    )
    drift: Drift | None = Field(default=None, description="of fp16 against fp32, on photos")
    exporter: dict[str, str] = Field(description="versions of what made the artifact")
    licence: Licence

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not {"logits", "probabilities"} <= set(self.outputs):
            raise ValueError("outputs must have logits and probabilities")
        if ("cam" in self.outputs) != (self.map_stride is not None):
            raise ValueError("map_stride belongs to the output cam, and only to it")
        side = self.preprocessing.crop
        if side is not None and not self.limits.allow(side, side):
            raise ValueError(
                f"the network does not take a crop of {side}×{side}: its sides are multiples of "
                f"{self.limits.multiple}, from {self.limits.min_height}×{self.limits.min_width} up"
            )
        return self

    @classmethod
    def load(cls, path: Path) -> "Card":
        """Read `card.json`; raises CardError when it is missing, foreign or of another format."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as exc:
            raise CardError(f"{path} does not exist: is this an artifact folder?") from exc
        except (OSError, ValueError) as exc:
            raise CardError(f"{path} cannot be read as JSON: {exc}") from exc
        found = raw.get("format") if isinstance(raw, dict) else None
        if found != FORMAT:
            raise CardError(
                f"{path} has format {found!r}; this anypool reads format {FORMAT}. "
                "Export the model again, or use the anypool that made it."
            )
        try:
            return cls.model_validate(raw)
        except ValidationError as exc:
            raise CardError(f"{path} is not a valid card: {exc}") from exc

    def save(self, path: Path) -> None:
        """Write the card as indented JSON."""
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
