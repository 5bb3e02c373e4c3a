"""What clients of REST v1 send and get."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from models.card import Card
from service.tuning import Tuning

_INDICES = r"^[0-9]{1,9}(,[0-9]{1,9})*$"  # \d would be digits of all scripts


class ClassifyQuery(BaseModel):
    """How the images are to be classified."""

    model_config = ConfigDict(extra="forbid")

    top_k: int | None = Field(
        None,
        ge=1,
        le=100,
        description="classes to return, the most probable first (default: 5; 100 with threshold)",
    )
    resize: Literal["fit", "limit", "native", "model"] = Field(
        "model",
        description="fit: the longest side becomes `size`, up or down; limit: down only; "
        "native: untouched; model: what the model's card says, which may also be short (the "
        "shortest side becomes `size`) or crop (that, then a square from the centre)",
    )
    size: int | None = Field(
        None,
        ge=1,
        description="longest side in pixels, shortest where the model's own resize is short "
        "(default: the card's); not with native, nor where it is crop",
    )
    timeout_ms: int | None = Field(
        None, ge=1, le=3_600_000, description="images not begun by then are answered 504"
    )
    classes: str | None = Field(
        None,
        pattern=_INDICES,
        description="answer only these classes, for example 281,282",
    )
    min_probability: float | None = Field(
        None, ge=0, le=1, description="leave out less probable classes"
    )
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="all classes at least that probable; only where classes do not exclude each "
        "other (the card's activation is sigmoid)",
    )
    embedding: bool = Field(False, description="also return the pooled vector")
    cam: Literal["png", "array"] | None = Field(
        None,
        description="also return class activation maps: what each place adds to a class's logit, "
        "as grey PNG or as numbers",
    )
    cam_classes: str | None = Field(
        None,
        pattern=_INDICES,
        description="whose maps, at most 100 classes (default: those of the predictions)",
    )


class SizeBody(BaseModel):
    """Sides in pixels."""

    width: int
    height: int


class PredictionBody(BaseModel):
    """One class; `index` and `id` are unique, `label` need not be."""

    index: int
    id: str
    label: str
    probability: float


class MapBody(BaseModel):
    """One class's activation map, at the resolution of the features.

    png: base64, grey, 0 and less black, `max` white; array: rows of the values themselves.
    """

    index: int
    width: int
    height: int
    max: float
    png: str | None = None
    array: list[list[float]] | None = None


class ProblemBody(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str


class ResultBody(BaseModel):
    """One image's result, or its error."""

    name: str | None
    input: SizeBody | None = None
    used: SizeBody | None = None
    resize: str | None = None
    predictions: list[PredictionBody] | None = None
    embedding: list[float] | None = None
    cam: list[MapBody] | None = None
    error: ProblemBody | None = None


class ClassifyAnswer(BaseModel):
    """One result or one error for each image, in the order sent."""

    model: str
    version: str
    request_id: str
    results: list[ResultBody]


class LimitsBody(BaseModel):
    """Limits in force, in bytes, pixels and counts."""

    max_body_bytes: int
    max_images: int
    max_source_pixels: int
    max_source_side: int
    max_aspect: float
    max_pixels: int
    max_side: int
    queue_pixels: int
    deadline_ms: int


_LITE0: JsonDict = {
    "name": "efficientnet_lite0",
    "version": "1",
    "default": True,
    "provider": "CPUExecutionProvider",
    "classes": 1000,
}


class ModelSummary(BaseModel):
    """A loaded model version."""

    name: str
    version: str
    default: bool
    provider: str
    classes: int


class ModelList(BaseModel):
    """All loaded model versions, the default first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"models": [_LITE0]}]})

    models: list[ModelSummary]


class ModelBody(BaseModel):
    """A model: its card and the limits in force."""

    name: str
    versions: list[str]
    provider: str
    devices: list[str]
    tuning: Tuning | None = Field(description="what tuning.json has changed, if it counts here")
    card: Card
    limits: LimitsBody
