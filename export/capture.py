"""Step 1, in a process of its own: run the network in torch and write down what it does.

Imports torch and models only. It leaves behind

    program.pt2   the exported program, from uint8 pixels to logits, probabilities and embedding
    golden.npz    what torch itself answers, over a grid of sizes
    limits.json   the smallest sides that the network takes, found by trying

It runs apart because building a network runs its author's code.
"""

import argparse
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from models import registry
from models.card import Preprocessing, SizeLimits
from models.classifier import PoolingClassifier

EXAMPLE = (2, 61, 83)  # batch, height, width: odd, not square, not divisible, so that nothing hides
_SIDES = (64, 128, 256, 512)  # where probing starts: the first that works
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(1),
    "sigmoid": torch.sigmoid,
    "none": lambda logits: logits.clone(),
}


class CaptureError(ValueError):
    """The network cannot become an artifact; the message says why and what to change."""


@torch.library.custom_op("anypool::adaptive_pool2d", mutates_args=())
def adaptive_pool2d(x: Tensor, output_size: list[int], kind: str) -> Tensor:
    """Adaptive pooling as one operator: (n, c, h, w) to (n, c, oh, ow); a size of 0 keeps the side.

    torch.export specialises the poolings of torch on the example's size; it cannot see into this.
    """
    oh, ow = output_size
    size = (oh or x.shape[-2], ow or x.shape[-1])
    if kind == "average":
        return F.adaptive_avg_pool2d(x, size)
    pooled: Tensor = F.adaptive_max_pool2d(x, size)
    return pooled


@adaptive_pool2d.register_fake
def _(x: Tensor, output_size: list[int], kind: str) -> Tensor:
    sides = (out or side for out, side in zip(output_size, x.shape[-2:], strict=True))
    return x.new_empty([*x.shape[:-2], *sides])


class KeepAdaptivePools(TorchFunctionMode):
    """While active, modules and calls of adaptive pooling become `anypool::adaptive_pool2d`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.adaptive_avg_pool2d:
            return adaptive_pool2d(_input(args, kwargs), _output_size(args, kwargs), "average")
        if func is F.adaptive_max_pool2d:
            if kwargs.get("return_indices") or len(args) > 2:
                raise CaptureError(
                    "adaptive max pooling with return_indices=True cannot be exported: "
                    "take the values alone"
                )
            return adaptive_pool2d(_input(args, kwargs), _output_size(args, kwargs), "max")
        return func(*args, **kwargs)


def _input(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    x: Tensor = args[0] if args else kwargs["input"]
    return x


def _output_size(args: Sequence[Any], kwargs: dict[str, Any]) -> list[int]:
    size = args[1] if len(args) > 1 else kwargs["output_size"]
    sizes = [size, size] if size is None or isinstance(size, int) else list(size)
    if not all(out is None or type(out) is int for out in sizes):
        raise CaptureError(
            "an adaptive pooling takes its output size from the input's size; "
            "give it a fixed size, or None for a side that is to stay as it is"
        )
    return [out or 0 for out in sizes]


class Served(nn.Module):
    """The network as it is served: normalisation in front, activation behind.

    pixels uint8 (n, h, w, c) to logits (n, k), probabilities (n, k), embedding (n, f).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: PoolingClassifier, preprocessing: Preprocessing, activation: str = "softmax"
    ) -> None:
        super().__init__()
        self.network = network
        self.activation = _ACTIVATIONS[activation]
        self.register_buffer("mean", torch.tensor(preprocessing.mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).reshape(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = pixels.permute(0, 3, 1, 2).to(torch.float32)  # (n, c, h, w)
        x = (x - self.mean) / self.std  # (n, c, h, w)
        embedding = self.network.embed(x)  # (n, f)
        logits: Tensor = self.network.head(embedding)  # (n, k)
        return logits, self.activation(logits), embedding


def export_program(module: nn.Module, pixels: Tensor) -> torch.export.ExportedProgram:
    """Capture `module` with dynamic batch, height and width (dimensions 0, 1, 2 of `pixels`)."""
    dynamic = dict.fromkeys(range(3), torch.export.Dim.DYNAMIC)
    with KeepAdaptivePools(), torch.no_grad():
        return torch.export.export(module, (pixels,), dynamic_shapes=(dynamic,), strict=False)


def probe_limits(works: Callable[[int, int], bool]) -> SizeLimits:
    """The smallest sides for which `works(height, width)`, and what they must be divisible by.

    Raises CaptureError when no size up to 512 works.
    """
    side = next((side for side in _SIDES if works(side, side)), None)
    if side is None:
        raise CaptureError(f"the network fails at every size tried: {_SIDES}")
    multiple = next(m for m in (1, 2, 4, 8, 16, 32, 64) if works(side + m, side + m) or m == 64)
    height = next(h for h in count(multiple, multiple) if works(h, side))
    width = next(w for w in count(multiple, multiple) if works(side, w))
    while not works(height, width):  # each side alone may be smaller than both together
        height, width = height + multiple, width + multiple
    return SizeLimits(min_height=height, min_width=width, multiple=multiple)


def grid(limits: SizeLimits) -> list[tuple[int, int, int]]:
    """The sizes (batch, height, width) at which ONNX Runtime must equal torch.

    Smallest, next to smallest, odd, prime, square, portrait, landscape, 1:16, and beyond 1024.
    """
    h, w = limits.smallest()
    m = limits.multiple
    wanted = [
        (1, h, w), (3, h, w), (2, h, w + 1), (2, h + 1, w), (1, h + 1, w + 2),
        (2, 37, 53), (1, 53, 37), (3, 61, 61), (1, 64, 64), (2, 97, 131), (1, 131, 97),
        (2, 128, 128), (1, 127, 255), (1, 224, 224), (1, 333, 190), (1, 190, 333),
        (1, h, 16 * w), (1, 16 * h, w), (1, 33, 1031), (1, 1031, 33),
    ]  # fmt: skip
    sizes = [(n, -(-max(y, h) // m) * m, -(-max(x, w) // m) * m) for n, y, x in wanted]
    return list(dict.fromkeys(sizes))


def content(seed: int, n: int, h: int, w: int, c: int) -> NDArray[np.uint8]:
    """Random pixels (n, h, w, c) with structure: flat blocks under noise.

    Noise alone averages to the same grey in every window, and would hide windows that are off.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.arange(h) * 7 // max(h, 7), np.arange(w) * 7 // max(w, 7)
    blocks = rng.integers(16, 240, (n, 7, 7, c))[:, rows][:, :, columns]  # (n, h, w, c)
    return (blocks + rng.integers(-16, 16, (n, h, w, c))).astype(np.uint8)


def references(served: Served, channels: int, limits: SizeLimits) -> dict[str, NDArray[Any]]:
    """What torch answers over the grid: arrays `pixels_000`, `logits_000`, … for golden.npz."""
    arrays: dict[str, NDArray[Any]] = {}
    for index, (n, h, w) in enumerate(grid(limits)):
        pixels = content(index, n, h, w, channels)
        with torch.no_grad():
            logits, probabilities, embedding = served(torch.from_numpy(pixels))
        arrays |= {
            f"pixels_{index:03d}": pixels,
            f"logits_{index:03d}": logits.numpy(),
            f"probabilities_{index:03d}": probabilities.numpy(),
            f"embedding_{index:03d}": embedding.numpy(),
        }
    return arrays


def capture(name: str, out: Path, weights: Path | None = None) -> None:
    """Write program.pt2, golden.npz and limits.json of a registered network into `out`."""
    network = registry.get(name)
    channels = network.preprocessing.channels
    served = Served(registry.build(name, weights), network.preprocessing).eval()

    def works(height: int, width: int) -> bool:
        pixels = torch.zeros((1, height, width, channels), dtype=torch.uint8)
        try:
            with torch.no_grad():
                served(pixels)
        except RuntimeError:  # "kernel size can't be greater than actual input size", and the like
            return False
        return True

    limits = probe_limits(works)
    n, h, w = (max(a, b) for a, b in zip(EXAMPLE, (2, *limits.smallest()), strict=True))
    m = limits.multiple
    example = content(0, n, -(-h // m) * m, -(-w // m) * m, channels)
    program = export_program(served, torch.from_numpy(example))
    torch.export.save(program, out / "program.pt2")
    np.savez_compressed(
        out / "golden.npz", allow_pickle=False, **references(served, channels, limits)
    )
    (out / "limits.json").write_text(limits.model_dump_json())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    capture(options.network, options.out, options.weights)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
