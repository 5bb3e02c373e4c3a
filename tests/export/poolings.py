"""Every pooling through the exporter: against torch, in company, and its class activation maps.

python -m tests.export.poolings    prints the table
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import nn

from export.capture import export_program
from export.check import check
from export.lower import to_onnx
from export.rewrite.cells import expand_cells
from export.rewrite.dimensions import name_dimensions
from export.rewrite.optional import make_maps_optional
from export.rewrite.ragged import make_ragged
from export.served import OUTPUTS, Served
from export.sizes import content, find_limits, grid
from models.card import Preprocessing
from models.classifier import PoolingClassifier
from models.pool import POOLS, Head
from models.pool.global_avg import GlobalAvgPool
from models.weights import seeded
from tests.export.lowering import session
from tests.export.rewrite.ragged.proof import mixes

FEATURES, CLASSES = 6, 5
COLOUR = Preprocessing(channels=3, mean=(100,) * 3, std=(50,) * 3, policy="native")
ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "adaptive_avg": [{"output_size": (2, 3)}, {"output_size": (1, 3)}, {"output_size": 1}],
    "adaptive_max": [{"output_size": (3, 2)}, {"output_size": (3, 1)}, {"output_size": 1}],
    "attention": [{"channels": FEATURES, "heads": 3}],
    "avg_window": [
        {"kernel_size": (2, 3), "stride": (2, 1), "padding": (1, 0)},
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
        {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
    ],
    "class_channel": [
        {"channels": FEATURES, "classes": CLASSES, "kind": kind} for kind in ("avg", "max")
    ],
    "fractional_max": [{"output_size": (3, 2), "kernel_size": (2, 3)}],
    "gated": [{"channels": FEATURES}],
    "gem": [{}, {"p": 2.5}],
    "log_sum_exp": [{}, {"r": 0.5}],
    "lp": [{}, {"p": 3}],
    "max_window": [
        {"kernel_size": (2, 3), "stride": (2, 1), "padding": (1, 0)},
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    ],
    "spp": [{"levels": (1, 2)}, {"kind": "avg", "levels": (1, 2)}],
    "strided_conv": [{"channels": FEATURES}],
}
WAYS = [(name, arguments) for name in POOLS for arguments in ARGUMENTS.get(name, [{}])]


@dataclass(frozen=True, slots=True)
class Row:
    """Largest errors, relative to the largest reference; of maps apart from the rest.

    plain, plain_maps: the plain graph against torch, over the grid of sizes
    ragged, ragged_maps: mixed batches against each image alone
    control, control_maps: the same batches without masks
    """

    plain: float
    plain_maps: float
    ragged: float
    ragged_maps: float
    control: float
    control_maps: float


def network(name: str, arguments: dict[str, Any]) -> PoolingClassifier:
    """A small classifier that ends in this pooling, its parameters all away from their defaults."""
    with seeded(7):
        pool = POOLS[name](**arguments)
        backbone: nn.Module = nn.Sequential(
            nn.Conv2d(3, FEATURES, 3, stride=2, padding=1), nn.Conv2d(FEATURES, FEATURES, 3, 1, 1)
        )
        if not isinstance(pool, Head):
            backbone, pool = nn.Sequential(backbone, pool), GlobalAvgPool()
        for parameter in pool.parameters():
            parameter.data += torch.rand_like(parameter)
        cells = pool.eval()(torch.zeros(1, FEATURES, 16, 16)).shape[2:].numel()
        head = nn.Linear(FEATURES * cells, CLASSES) if name != "class_channel" else nn.Identity()
        return PoolingClassifier(backbone, pool, head).eval()


def measure(name: str, arguments: dict[str, Any], rounds: int = 8) -> Row:
    """Export both graphs in this process and compare; raises ExportError."""
    served = Served(network(name, arguments), COLOUR).eval()
    limits = find_limits(served, 3)
    example = torch.from_numpy(content(0, 2, 61, 83, 3))
    program, _ = export_program(served, example, torch.tensor([[0, -1, -2]] * 2))
    marked = to_onnx(program, OUTPUTS, ("pixels", "classes"))
    name_dimensions(marked)
    ragged = ir.from_proto(ir.to_proto(marked))
    expand_cells(marked)
    make_ragged(ragged, limits.multiple)
    for model in (marked, ragged):
        make_maps_optional(model)
    protos = ir.to_proto(marked), ir.to_proto(ragged)
    check(protos[0], 3, explains=True)
    check(protos[1], 3, explains=True, ragged=True)
    plain, mixed = session(protos[0]), session(protos[1])

    against_torch = [0.0, 0.0]
    for index, (n, h, w) in enumerate(grid(limits)):
        if h * w > 60_000:
            continue
        pixels, classes = content(index, n, h, w, 3), np.array([[4, 0]] * n)
        with torch.no_grad():
            want = [y.numpy() for y in served(torch.from_numpy(pixels), torch.from_numpy(classes))]
        _worst(against_torch, _run(plain, pixels, classes), want)

    company, control = [0.0, 0.0], [0.0, 0.0]
    rng = np.random.default_rng(1)
    smallest = limits.smallest()[0] + 5, limits.smallest()[1] + 8
    for index, sizes in enumerate(mixes(rng, smallest, rounds)):
        pictures = [content(index * 10 + i, 1, h, w, 3)[0] for i, (h, w) in enumerate(sizes)]
        shape = (len(sizes), max(h for h, _ in sizes) + 9, max(w for _, w in sizes) + 4, 3)
        canvas, padded = rng.integers(0, 256, shape, np.uint8), np.zeros(shape, np.uint8)
        for target in (canvas, padded):
            for place, picture in zip(target, pictures, strict=True):
                place[: picture.shape[0], : picture.shape[1]] = picture
        classes = np.array([[-1 - index % CLASSES, 3]] * len(sizes))
        together = _run(mixed, canvas, classes, np.array(sizes, np.int64))
        unmasked = _run(plain, padded, classes)
        for i, picture in enumerate(pictures):
            alone = _run(plain, picture[None], classes[:1])
            h, w = alone[3].shape[2:]
            assert together[5][i].tolist() == [h, w]
            for errors, batch in ((company, together), (control, unmasked)):
                one = [y[i : i + 1] for y in batch[:5]]
                one[3] = one[3][:, :, :h, :w]
                if batch is together:
                    assert (one[4] == alone[4]).all()
                _worst(errors, one, alone)
    return Row(*against_torch, *company, *control)


def _run(
    runner: Any, pixels: NDArray[Any], classes: NDArray[Any], sizes: NDArray[Any] | None = None
) -> list[NDArray[Any]]:
    feed = {"pixels": pixels, "classes": classes}
    if sizes is not None:
        feed |= {"sizes": sizes}
    arrays: list[NDArray[Any]] = runner.run(None, feed)
    return arrays


def _worst(errors: list[float], got: Sequence[NDArray[Any]], want: Sequence[NDArray[Any]]) -> None:
    """Raise errors[0] to the largest of logits and embedding, errors[1] to that of the maps."""
    for place, index in ((0, 0), (0, 2), (1, 3)):
        assert got[index].shape == want[index].shape
        largest, off = np.abs(want[index]).max(), np.abs(got[index] - want[index]).max()
        error = float(off / largest) if largest else float(off)
        errors[place] = max(errors[place], error if np.isfinite(error) else float("inf"))


def main() -> None:
    print("pooling | over sizes | its maps | in company | its maps | without masks | its maps")
    print("|".join(["---"] * 7))
    for name, arguments in WAYS:
        row = measure(name, arguments)
        given = {key: value for key, value in arguments.items() if key != "channels"}
        errors = (row.plain, row.plain_maps, row.ragged, row.ragged_maps)
        what = f"{name} {given or ''}".strip()
        cells = [*(f"{error:.0e}" for error in errors), f"{row.control:.1f}"]
        print(" | ".join([what, *cells, f"{row.control_maps:.1f}"]), flush=True)


if __name__ == "__main__":
    main()
