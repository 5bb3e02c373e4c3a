"""Step 1, in a process of its own: run the network in torch and write down what it does.

Imports torch and models only. It leaves behind

    program.pt2   the exported program, from uint8 pixels to logits and all else that is served
    golden.npz    what torch itself answers, over a grid of sizes
    limits.json   the smallest sides that the network takes, found by trying

or refused.txt, which says what to change. It runs apart because building a network runs its
author's code.
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
from models.registry import UnknownNetworkError
from models.swap import Swap, SwapError
from models.weights import WeightsError

OUTPUTS = ("logits", "probabilities", "embedding", "cam", "cam_classes")  # of Served, in order
EXAMPLE = (2, 61, 83)  # batch, height, width: odd, not square, not divisible, so that nothing hides
REFUSED = "refused.txt"
_ROOMY = (320, 320)  # height and width at which another pooling is tried on
_SIDES = (64, 128, 256, 512)  # where probing starts: the first that works
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)  # all divide the sides above
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


@torch.library.custom_op("anypool::chosen_classes", mutates_args=())
def chosen_classes(probabilities: Tensor, classes: Tensor) -> Tensor:
    """Classes (n, m), -1-j replaced by the j-th most probable one, of probabilities (n, k).

    One operator, since only the graph can say how many need ranking: to sort a thousand classes
    that nobody asked for takes as long as a twentieth of a small image.
    """
    _, ranking = torch.sort(probabilities, stable=True, dim=1, descending=True)  # (n, k)
    ranked = ranking.gather(1, (-1 - classes).clamp(min=0))  # (n, m)
    return torch.where(classes < 0, ranked, classes)


@chosen_classes.register_fake
def _(probabilities: Tensor, classes: Tensor) -> Tensor:
    return torch.empty_like(classes)


class KeepAdaptivePools(TorchFunctionMode):
    """While active, modules and calls of adaptive pooling become `anypool::adaptive_pool2d`."""

    # These hand out indices, whoever asks for them: return_indices=True ends here.
    _WITH_INDICES = (F.adaptive_max_pool2d_with_indices, torch._C._nn.adaptive_max_pool2d)

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
            return adaptive_pool2d(_input(args, kwargs), _output_size(args, kwargs), "max")
        if func in self._WITH_INDICES:
            raise CaptureError(
                "adaptive max pooling with return_indices=True cannot be exported: "
                "take the values alone, F.adaptive_max_pool2d(x, output_size)"
            )
        return func(*args, **kwargs)


def _input(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    x: Tensor = args[0] if args else kwargs["input"]
    if x.dim() != 4:
        raise CaptureError(
            f"an adaptive pooling gets {x.dim()} dimensions; reshape its input to (n, c, h, w)"
        )
    return x


def _output_size(args: Sequence[Any], kwargs: dict[str, Any]) -> list[int]:
    size = args[1] if len(args) > 1 else kwargs["output_size"]
    sizes = [size, size] if size is None or isinstance(size, int | torch.SymInt) else list(size)
    if any(isinstance(out, torch.SymInt) for out in sizes):
        raise CaptureError(
            "an adaptive pooling takes its output size from the input's size; "
            "give it a fixed size, or None for a side that is to stay as it is"
        )
    if any(out is not None and out < 1 for out in sizes):
        raise CaptureError(
            f"an adaptive pooling has output size {size}; each side must be 1 or more"
        )
    return [0 if out is None else int(out) for out in sizes]


class Served(nn.Module):
    """The network as it is served: normalisation in front, activation behind.

    pixels uint8 (n, h, w, c) to logits (n, k), probabilities (n, k), embedding (n, f); and where
    the network explains itself, with classes int64 (n, m), also cam (n, m, h', w'), maps of those
    classes, and cam_classes (n, m), which they are: class -1-j is the j-th most probable one.
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

    def normalised(self, pixels: Tensor) -> Tensor:
        """What the network gets: uint8 (n, h, w, c) to float32 (n, c, h, w)."""
        x = pixels.permute(0, 3, 1, 2).to(torch.float32)  # (n, c, h, w)
        return (x - self.mean) / self.std

    def forward(self, pixels: Tensor, classes: Tensor | None = None) -> tuple[Tensor, ...]:
        x = self.normalised(pixels)  # (n, c, h, w)
        if classes is None or not self.network.explains:
            embedding = self.network.embed(x)  # (n, f)
            logits: Tensor = self.network.head(embedding)  # (n, k)
            return logits, self.activation(logits), embedding
        features = self.network.backbone(x)  # (n, f, h', w')
        embedding = self.network.pooled(features)  # (n, f)
        logits = self.network.head(embedding)  # (n, k)
        probabilities = self.activation(logits)  # (n, k)
        chosen = chosen_classes(probabilities, classes)  # (n, m)
        maps = self.network.class_maps(features, chosen)  # (n, m, h', w')
        return logits, probabilities, embedding, maps, chosen


def export_program(
    module: nn.Module, pixels: Tensor, classes: Tensor | None = None
) -> torch.export.ExportedProgram:
    """Capture `module` with dynamic batch, height and width (dimensions 0, 1, 2 of `pixels`).

    classes: a second input, of which both dimensions are dynamic. Raises CaptureError.
    """
    inputs = (pixels,) if classes is None else (pixels, classes)
    axes = (range(3), range(2))
    dynamic = tuple(
        dict.fromkeys(axis, torch.export.Dim.DYNAMIC) for axis, _ in zip(axes, inputs, strict=False)
    )
    try:
        with KeepAdaptivePools(), torch.no_grad():
            return torch.export.export(module, inputs, dynamic_shapes=dynamic, strict=False)
    except CaptureError:
        raise
    except Exception as exc:  # torch raises what it likes, ours wrapped in it as well
        ours = _find_capture_error(exc)
        if ours is not None:
            raise ours from exc
        raise CaptureError(
            f"torch.export cannot keep batch, height and width dynamic: {_brief(exc)}"
        ) from exc


def _find_capture_error(exc: BaseException | None) -> CaptureError | None:
    while exc is not None and not isinstance(exc, CaptureError):
        exc = exc.__cause__ or exc.__context__
    return exc


def _brief(exc: BaseException) -> str:
    """Type and first lines: torch appends pages of graphs and traces to some messages."""
    return f"{type(exc).__name__}: " + "\n".join(str(exc).strip().splitlines()[:5])


def probe_limits(works: Callable[[int, int], bool]) -> SizeLimits:
    """The smallest sides for which `works(height, width)`, and what they must be divisible by.

    Raises CaptureError when no size up to 512 works, or only one does.
    """
    side = next((side for side in _SIDES if works(side, side)), None)
    if side is None:
        raise CaptureError(f"the network fails at every size tried: {_SIDES}")
    multiple = next((m for m in _MULTIPLES if works(side + m, side + m)), None)
    if multiple is None:
        raise CaptureError(
            f"the network takes {side}×{side} but nothing a little larger: "
            "pool to a fixed size before the head, so that it takes images of any size"
        )
    height = next(h for h in count(multiple, multiple) if works(h, side))
    width = next(w for w in count(multiple, multiple) if works(side, w))
    while not works(height, width):  # each side alone may be smaller than both together
        height, width = height + multiple, width + multiple
    return SizeLimits(min_height=height, min_width=width, multiple=multiple)


def grid(limits: SizeLimits) -> list[tuple[int, int, int]]:
    """The sizes (batch, height, width) at which ONNX Runtime must equal torch.

    Smallest, next to smallest, odd, prime, square, portrait, landscape, 1:16, beyond 1024, and
    larger than the example on both sides.
    """
    h, w = limits.smallest()
    m = limits.multiple
    wanted = [
        (1, h, w), (3, h, w), (2, h, w + 1), (2, h + 1, w), (1, h + 1, w + 2),
        (2, 37, 53), (1, 53, 37), (3, 61, 61), (1, 64, 64), (1, 97, 131), (1, 131, 97),
        (2, 3 * h + 95, 3 * w + 129),
        (2, 128, 128), (1, 127, 255), (1, 224, 224), (1, 333, 190), (1, 190, 333),
        (1, h, 16 * w), (1, 16 * h, w), (1, 33, 1031), (1, 1031, 33),
    ]  # fmt: skip
    sizes = [(n, _round_up(max(y, h), m), _round_up(max(x, w), m)) for n, y, x in wanted]
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
    """What torch answers over the grid: arrays `pixels_000`, `logits_000`, … for golden.npz.

    Maps are those of the most probable class and of the last.

    Raises CaptureError when the network fails at a size that its limits allow.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for index, (n, h, w) in enumerate(grid(limits)):
        pixels = content(index, n, h, w, channels)
        try:
            with torch.no_grad():
                own = served.network(served.normalised(torch.from_numpy(pixels)))  # (n, k)
                last = torch.full((n, 1), own.shape[1] - 1)
                classes = torch.cat([own.argmax(1, keepdim=True), last], 1)  # (n, 2)
                answers = served(torch.from_numpy(pixels), classes)
            _check_forward(own, answers[0])
            if served.network.explains:
                _check_maps(served.network.head, *answers)
        except CaptureError:
            raise
        except Exception as exc:  # the author's code may raise what it likes
            raise CaptureError(f"the network fails at {n}×{h}×{w}: {_brief(exc)}") from exc
        arrays[f"pixels_{index:03d}"] = pixels
        for name, answer in zip(OUTPUTS, answers, strict=False):
            arrays[f"{name}_{index:03d}"] = answer.numpy()
    return arrays


def _check_forward(own: Tensor, logits: Tensor) -> None:
    """Raise CaptureError unless the network's own forward gives the logits that are served."""
    if own.shape != logits.shape or _off(own, logits):
        raise CaptureError(
            "forward gives other logits than head(embed(x)), which is what is served: "
            "put all that a PoolingClassifier does into backbone, pool and head"
        )


def _check_maps(
    head: nn.Module, logits: Tensor, _: Tensor, __: Tensor, maps: Tensor, classes: Tensor
) -> None:
    """Raise CaptureError unless the means of the maps and the biases are the logits."""
    means = maps.mean((2, 3))  # (n, m)
    if isinstance(head, nn.Linear) and head.bias is not None:
        means = means + head.bias.detach()[classes]
    if _off(means, logits.gather(1, classes)):
        raise CaptureError(
            "class activation maps do not average to their logits: "
            "the pooling's method maps does not belong to its forward"
        )


def _off(got: Tensor, want: Tensor) -> bool:
    """Whether they differ by more than rounding; what is no number always does."""
    return not bool((got - want).abs().max() <= 1e-4 * want.abs().max().clamp(min=1))


def find_limits(served: Served, channels: int) -> SizeLimits:
    """Run the network at small sizes until its smallest is known; raises CaptureError."""
    problems: list[str] = []

    def works(height: int, width: int) -> bool:
        pixels = torch.from_numpy(content(0, 1, height, width, channels))
        try:
            with torch.no_grad():
                logits = served(pixels)[0]
        except Exception as exc:  # "kernel size can't be greater than actual input size", …
            problems.append(_brief(exc))
            return False
        return bool(torch.isfinite(logits).all())  # the mean of an empty map is NaN, no error

    try:
        return probe_limits(works)
    except CaptureError as exc:
        said = f". It says: {problems[-1]}" if problems else ": its logits are not finite"
        raise CaptureError(f"{exc}{said}") from exc


def example_size(limits: SizeLimits) -> tuple[int, int, int]:
    """EXAMPLE, or what comes next that is legal, larger than the smallest size and not square.

    Thrice the smallest: torch.export takes a map's side for fixed when the example makes it 1.
    """
    (h, w), m = limits.smallest(), limits.multiple
    height = _round_up(max(EXAMPLE[1], 3 * h + m), m)
    width = _round_up(max(EXAMPLE[2], 3 * w + 2 * m), m)
    return EXAMPLE[0], height, width + m if width == height else width


def _round_up(number: int, multiple: int) -> int:
    return number + -number % multiple


def capture(name: str, out: Path, weights: Path | None = None, swap: Swap | None = None) -> None:
    """Write program.pt2, golden.npz and limits.json of a registered network into `out`.

    swap: a pooling to put in the place of the network's own.
    Raises CaptureError, WeightsError, UnknownNetworkError, SwapError.
    """
    network = registry.get(name)
    channels = network.preprocessing.channels
    classifier = registry.build(name, weights)
    if swap is not None:
        classifier = swap.apply(classifier, torch.zeros((1, channels, *_ROOMY)))
    served = Served(classifier, network.preprocessing).eval()
    limits = find_limits(served, channels)
    example = content(0, *example_size(limits), channels)
    classes = (
        torch.tensor([[0, -1, -2]]).repeat(len(example), 1) if served.network.explains else None
    )
    program = export_program(served, torch.from_numpy(example), classes)
    torch.export.save(program, out / "program.pt2")
    np.savez_compressed(
        out / "golden.npz", allow_pickle=False, **references(served, channels, limits)
    )
    (out / "limits.json").write_text(limits.model_dump_json())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--import", dest="modules", action="append", default=[])
    parser.add_argument("--pool")
    parser.add_argument("--pool-arg", dest="pool_arguments", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    try:
        for module in options.modules:
            registry.import_networks(module)
        swap = Swap.parse(options.pool, options.pool_arguments) if options.pool else None
        capture(options.network, options.out, options.weights, swap)
    except (CaptureError, WeightsError, UnknownNetworkError, SwapError) as exc:
        (options.out / REFUSED).write_text(str(exc), encoding="utf-8")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
