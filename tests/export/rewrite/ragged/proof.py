"""The proof that company changes nothing: images on a shared canvas against each one alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.capture import export_program
from export.lower import to_onnx
from export.rewrite.cells import expand_cells
from export.rewrite.dimensions import name_dimensions
from export.rewrite.ragged import make_ragged
from export.sizes import EXAMPLE, content, round_up
from tests.export.lowering import session

TOLERANCE = 1e-5  # of max|logit of the image|
CONTROL = 1e-2  # what leaving the masks out must at least cost


class Net(nn.Module):
    """Pixels (n, h, w, c), uint8 or float, normalised, through `body` to logits (n, k)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, pixels: Tensor) -> Tensor:
        x = (pixels.permute(0, 3, 1, 2).to(torch.float32) - 100.0) / 50.0  # (n, c, h, w)
        logits: Tensor = self.body(x)
        return logits


@dataclass(frozen=True, slots=True)
class Pair:
    """The plain and the ragged graph of one network."""

    plain: onnx.ModelProto
    ragged: onnx.ModelProto
    masks: int


@dataclass(frozen=True, slots=True)
class Errors:
    """The largest error of the ragged graph, and of the plain graph on the same canvases."""

    ragged: float
    control: float


def pair(
    body: nn.Module,
    dtype: torch.dtype = torch.uint8,
    channels: int = 3,
    multiple: int = 1,
    promised: int | None = None,
) -> Pair:
    """Export once, make both graphs; raises Unsupported.

    multiple: of the example's sides, and of all sides, unless other ones are promised
    """
    n, h, w = EXAMPLE[0], *(round_up(side, multiple) for side in EXAMPLE[1:])
    program, _ = export_program(Net(body).eval(), torch.zeros((n, h, w, channels), dtype=dtype))
    marked = to_onnx(program, ["logits"])
    name_dimensions(marked)
    proto = ir.to_proto(marked)
    plain, ragged = ir.from_proto(proto), ir.from_proto(proto)
    expand_cells(plain)
    masks = make_ragged(ragged, promised or multiple)
    both = Pair(ir.to_proto(plain), ir.to_proto(ragged), masks)
    onnx.checker.check_model(both.ragged, full_check=True)
    return both


def mixes(rng: np.random.Generator, smallest: tuple[int, int], rounds: int) -> list[list[Any]]:
    """Lists of (h, w): the smallest, 1:16, odd and random sizes in changing company."""
    h, w = smallest
    special = [(h, w), (h, w + 1), (h + 1, w), (h, 16 * w), (16 * h, w), (2 * h + 1, 3 * w + 2)]
    special = [(min(y, 200), min(x, 200)) for y, x in special]
    lists = []
    for index in range(rounds):
        chosen = [special[index % len(special)]]
        for _ in range(int(rng.integers(1, 5))):
            chosen.append((int(rng.integers(h, h + 60)), int(rng.integers(w, w + 60))))
        lists.append(chosen)
    return lists


def prove(
    both: Pair,
    smallest: tuple[int, int] = (9, 9),
    poisons: Sequence[float | str] = ("random", 255),
    *,
    rounds: int = 8,
    dtype: Any = np.uint8,
    channels: int = 3,
    multiple: int = 1,
) -> Errors:
    """Run mixed batches on canvases full of poison, and compare every image with itself alone."""
    rng = np.random.default_rng(0)
    plain, ragged = session(both.plain), session(both.ragged)
    worst = control = 0.0
    for index, mix in enumerate(mixes(rng, smallest, rounds)):
        sizes = [(round_up(h, multiple), round_up(w, multiple)) for h, w in mix]
        pictures = [content(index * 10 + i, 1, h, w, channels)[0] for i, (h, w) in enumerate(sizes)]
        margin_h, margin_w = int(rng.integers(0, 70)), int(rng.integers(0, 70))
        height = round_up(max(h for h, _ in sizes) + margin_h, multiple)
        width = round_up(max(w for _, w in sizes) + margin_w, multiple)
        shape = (len(sizes), height, width, channels)
        canvas = _poisoned(rng, shape, poisons[index % len(poisons)]).astype(dtype)
        padded = np.zeros(shape, dtype)
        for target in (canvas, padded):
            for place, picture in zip(target, pictures, strict=True):
                place[: picture.shape[0], : picture.shape[1]] = picture
        feed = {"pixels": canvas, "sizes": np.array(sizes, np.int64)}
        together = ragged.run(["logits"], feed)[0]
        unmasked = plain.run(["logits"], {"pixels": padded})[0]
        for i, picture in enumerate(pictures):
            alone = plain.run(["logits"], {"pixels": picture[None].astype(dtype)})[0][0]
            worst = max(worst, _distance(together[i], alone))
            control = max(control, _distance(unmasked[i], alone))
    return Errors(worst, control)


def _poisoned(
    rng: np.random.Generator, shape: tuple[int, ...], poison: float | str
) -> NDArray[Any]:
    if poison == "random":
        return rng.integers(0, 256, shape)
    return np.full(shape, poison)


def _distance(got: NDArray[Any], want: NDArray[Any]) -> float:
    largest, difference = float(np.abs(want).max()), float(np.abs(got - want).max())
    relative = difference / largest if largest else difference
    return relative if np.isfinite(relative) else float("inf")
