"""Class activation maps as clients get them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from service.scores import Maps

Form = Literal["png", "array"]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """How much each place adds to one class's logit, at the resolution of the features.

    png: grey, base64; 0 and less is black, `highest` white
    array: rows of the values themselves
    """

    index: int
    width: int
    height: int
    highest: float
    png: str | None = None
    array: list[list[float]] | None = None


def heat_maps(maps: Maps, classes: Sequence[int], form: Form) -> list[HeatMap]:
    """The maps of `classes`, in that order; raises KeyError for one that was not computed."""
    at = {index: row for row, index in enumerate(maps.classes.tolist())}
    return [_heat_map(index, maps.values[at[index]], form) for index in classes]


def _heat_map(index: int, values: np.ndarray, form: Form) -> HeatMap:
    height, width = values.shape
    highest = float(values.max())
    png = _png(values, highest) if form == "png" else None
    array = values.tolist() if form == "array" else None
    return HeatMap(index, width, height, highest, png, array)


def _png(values: np.ndarray, highest: float) -> str:
    scaled = values / highest if highest > 0 else np.zeros_like(values)  # (h, w)
    grey = np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey, "L").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
