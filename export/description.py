"""What an artifact's card will say of a network: its own description, and what the user changes."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from export.errors import ExportError
from export.recipe import kind_of
from models import registry
from models.card import Activation, Label, Licence, Precision, Preprocessing
from models.labels import numbered
from models.swap import Swap

# Of ImageNet, as torchvision's presets have them, in parts of white.
_MEAN = {1: (0.0,), 3: (0.485, 0.456, 0.406)}
_STD = {1: (1.0,), 3: (0.229, 0.224, 0.225)}
_WHITE = 255
_USUAL_SIZE = 320
_MOST = 2.5  # means and deviations of more than this are no parts of white


class DescriptionError(ValueError):
    """Something asked for that cannot be; the message says what can."""


@dataclass(frozen=True, slots=True)
class Description:
    """A network as its card will tell it; labels and pooling are None until they are found."""

    name: str
    labels: tuple[Label, ...] | None
    preprocessing: Preprocessing
    activation: Activation
    pooling: str | None
    licence: Licence

    def labels_of(self, classes: int) -> tuple[Label, ...]:
        """The labels of so many classes; raises ExportError when they are others."""
        labels = numbered(classes) if self.labels is None else self.labels
        if len(labels) != classes:
            raise ExportError(f"{classes} logits but {len(labels)} labels")
        return labels


@dataclass(frozen=True, slots=True)
class Changes:
    """What a user wants otherwise than the network's own description; None leaves it.

    mean, std: a number a channel, in parts of white, as torchvision counts; resize: see
    parse_resize
    """

    name: str | None = None
    weights: Path | None = None
    swap: Swap | None = None
    labels: tuple[Label, ...] | None = None
    channels: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    resize: str | None = None
    filter: str | None = None
    activation: Activation | None = None
    precision: Precision = "fp32"


def describe(origin: str, changes: Changes) -> Description:
    """What the card will say. Raises DescriptionError, UnknownNetworkError."""
    described = _own(origin)
    if changes.weights is not None:
        described = replace(described, licence=_foreign(changes.weights))
    if (swap := changes.swap) is not None:
        notice = f"{described.licence.notice} Changed by anypool: pooling is now {swap}."
        described = replace(
            described,
            name=f"{described.name}-{swap.pool}",
            pooling=f"{swap}, put in without training, for: {described.pooling}",
            licence=described.licence.model_copy(update={"notice": notice}),
        )
    if changes.precision != "fp32":
        notice = f"{described.licence.notice} Changed by anypool: convolutions in 16 bits."
        described = replace(
            described,
            name=f"{described.name}-{changes.precision}",
            licence=described.licence.model_copy(update={"notice": notice}),
        )
    described = replace(
        described,
        name=changes.name or described.name,
        labels=changes.labels or described.labels,
        preprocessing=_preprocessing(described.preprocessing, changes),
        activation=changes.activation or described.activation,
    )
    try:
        registry.check_name(described.name)
    except ValueError as exc:
        raise DescriptionError(f"{exc}; choose one with --name") from exc
    return described


def parse_numbers(text: str) -> tuple[float, ...]:
    """Numbers with commas between them, each as 0.5 or as 127/255; raises DescriptionError."""
    try:
        numbers = tuple(_number(part) for part in text.split(","))
    except (ValueError, ZeroDivisionError) as exc:
        raise DescriptionError(
            f"{text!r}: write a number a channel, such as 0.485,0.456,0.406 or 127/255"
        ) from exc
    if any(abs(number) > _MOST for number in numbers):
        raise DescriptionError(
            f"{text}: means and deviations count in parts of white, 0 to 1, as in torchvision; "
            f"write {'/255,'.join(text.split(','))}/255 if yours count to 255"
        )
    return numbers


def parse_resize(text: str) -> dict[str, Any]:
    """fit:320, limit:640, short:256, crop:256:224 or native, as fields of Preprocessing.

    Raises DescriptionError.
    """
    match = re.fullmatch(r"(fit|limit|short):(\d+)|(crop):(\d+):(\d+)|native", text)
    if match is None:
        raise DescriptionError(
            f"{text!r}: write fit:320 (longest side), limit:640 (the same, down only), short:256 "
            "(shortest side), crop:256:224 (shortest side, then a square from the centre) or native"
        )
    policy, size, cropping, shortest, side = match.groups()
    if cropping:
        return {"policy": "crop", "size": int(shortest), "crop": int(side)}
    return {"policy": policy or "native", "size": int(size) if size else None, "crop": None}


def _number(text: str) -> float:
    numerator, _, denominator = text.partition("/")
    return float(numerator) / float(denominator or 1)


def _own(origin: str) -> Description:
    """What is known without the user: of a registered network much, of a file next to nothing."""
    kind = kind_of(origin)
    if kind == "registered":
        network = registry.get(origin)
        return Description(
            network.name,
            network.labels(),
            network.preprocessing,
            network.activation,
            network.pooling,
            network.licence,
        )
    path = Path(origin if kind == "program" else origin.rpartition(":")[0])
    if kind == "file" and path.suffix != ".py":
        raise DescriptionError(f"{origin}: say what builds the network, as in {origin}:build")
    if not path.is_file():
        raise DescriptionError(f"{path} does not exist")
    return Description(
        name=path.stem.lower(),
        labels=None,
        preprocessing=_scaled(3, _MEAN[3], _STD[3], policy="fit", size=_USUAL_SIZE),
        activation="softmax",
        pooling=None,
        licence=Licence(name="unknown", notice=f"Made from {path.name}: ask whoever wrote it."),
    )


def _preprocessing(own: Preprocessing, changes: Changes) -> Preprocessing:
    fields = own.model_dump()
    channels = own.channels if changes.channels is None else changes.channels
    if channels not in _MEAN:
        raise DescriptionError(f"--channels {channels}: images have 1 (grey) or 3 (RGB)")
    if channels != own.channels:
        fields |= _scaled(channels, _MEAN[channels], _STD[channels], policy="native").model_dump(
            include={"channels", "mean", "std"}
        )
    for name, given in (("mean", changes.mean), ("std", changes.std)):
        if given is not None:
            fields[name] = tuple(number * _WHITE for number in _each(given, channels))
    if changes.resize is not None:
        fields |= parse_resize(changes.resize)
    if changes.filter is not None:
        fields["filter"] = changes.filter
    try:
        return Preprocessing.model_validate(fields)
    except ValidationError as exc:
        said = "; ".join(str(error["msg"]) for error in exc.errors())
        raise DescriptionError(said.removeprefix("Value error, ")) from exc


def _each(numbers: Sequence[float], channels: int) -> Sequence[float]:
    """One number for each channel; one alone is that of all."""
    return tuple(numbers) * channels if len(numbers) == 1 else numbers


def _scaled(
    channels: int, mean: Sequence[float], std: Sequence[float], **rest: Any
) -> Preprocessing:
    scaled = {
        "mean": tuple(number * _WHITE for number in mean),
        "std": tuple(number * _WHITE for number in std),
    }
    return Preprocessing.model_validate({"channels": channels, **scaled, **rest})


def _foreign(weights: Path) -> Licence:
    try:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as exc:
        raise DescriptionError(f"cannot read weights {weights}: {exc}") from exc
    return Licence(
        name="unknown",
        notice=f"Weights read from {weights.name}, SHA-256 {digest}: ask whoever made them.",
    )
