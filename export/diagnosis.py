"""Why a network does not take another size, in words its author can act on. Imports torch only.

The network is run once at a size it takes and once at the other, and every layer's shapes are noted
on the way. The errors of networks that cannot be dynamic are told from here.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path
from traceback import extract_tb

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from export.errors import CaptureError

_TORCH = f"{Path(torch.__file__).parent}/"
_OURS = f"{Path(__file__).parent}/"
Shape = tuple[int, ...]


@dataclass(slots=True)
class Trace:
    """What happened in one run: shapes by layer, in order, and where it ended."""

    shapes: list[tuple[str, Shape, Shape]] = field(default_factory=list)  # layer, in, out
    open_: list[tuple[nn.Module, Shape]] = field(default_factory=list)  # layers being run
    error: Exception | None = None

    def map_before(self, layer: str) -> tuple[str, Shape] | None:
        """The layer that gave the last map (n, c, h, w) before `layer` was run, and the map."""
        found = None
        for name, _, shape in self.shapes:
            if name == layer:
                break
            if len(shape) == 4 and not layer.startswith(f"{name}."):
                found = name, shape
        return found


def explain(module: nn.Module, good: Tensor, bad: Tensor) -> str:
    """Sentences on why `module` takes `good` and not `bad`, images (n, h, w, c) in pixels."""
    names = {layer: name.removeprefix("network.") for name, layer in module.named_modules()}
    fine, broken = _run(module, good, names), _run(module, bad, names)
    size = "×".join(str(side) for side in bad.shape[1:3])
    if broken.error is None:
        return _folded(fine, broken, len(bad), size)
    if not broken.open_:
        return f"At {size} it says: {brief(broken.error)}"
    layer, got = broken.open_[-1]
    name = names.get(layer, "")
    who = (
        f"Layer {name}, {type(layer).__name__}"
        if name not in ("", "network")
        else (f"Forward of {type(layer).__name__}")
    )
    if isinstance(layer, nn.Linear):
        return _flattened(fine, name, layer, got, size)
    table = _table(layer, broken.error)
    if table is not None:
        usual = "×".join(str(side) for side in good.shape[1:3])
        return (
            f"{who} has a table of fixed size, {table}, that fits images of {usual} and not of "
            f"{size}: {brief(broken.error)}. Resize the table to the map in forward, for example "
            'F.interpolate(table, size=x.shape[2:], mode="bilinear"), and any size will do'
        )
    return f"{who}{source_of(broken.error)} fails at {size}: {brief(broken.error)}"


def _flattened(fine: Trace, name: str, layer: nn.Linear, got: Shape, size: str) -> str:
    before = fine.map_before(name)
    said = (
        f"Layer {name}, Linear of {layer.in_features} features, gets {got[-1]} from an image of "
        f"{size}: the map before it is flattened at whatever size it has. "
    )
    cells = None if before is None else _cells(before[1], layer.in_features)
    if before is None or cells is None:
        return said + "Pool to a fixed size before the flatten, with nn.AdaptiveAvgPool2d"
    grid = f"({cells[0]}, {cells[1]})"
    if before[1][2:] == cells:
        return said + (
            f"Put nn.AdaptiveAvgPool2d({grid}) between {before[0]} and the flatten: it changes "
            f"nothing where the map is {cells[0]}×{cells[1]} already, and takes any other"
        )
    return said + (
        f"Let nn.AdaptiveAvgPool2d({grid}) follow {before[0]}, in the place of the pooling with a "
        "fixed window: it is the same where the network works now, and takes any other size"
    )


def _cells(shape: Shape, features: int) -> tuple[int, int] | None:
    """The grid of cells that makes so many features of a map (n, c, h, w)."""
    _, channels, height, width = shape
    cells, rest = divmod(features, channels)
    if rest:
        return None
    if cells == height * width:
        return height, width
    side = isqrt(cells)
    return (side, side) if side * side == cells else None


def _folded(fine: Trace, broken: Trace, images: int, size: str) -> str:
    """Of a run that went through, but gave more answers than images, or numbers that are none."""
    found = next((s for s in broken.shapes if s[1] and s[1][0] != images and len(s[1]) == 2), None)
    if found is None:
        return f"At {size} its logits are not finite"
    before = fine.map_before(found[0])
    where = "" if before is None else f" behind {before[0]}"
    return (
        f"Layer {found[0]} gets {found[1][0]} rows of {found[1][1]} features from {images} image "
        f"of {size}: a view(-1, {found[1][1]}){where} takes places for images. Put "
        "nn.AdaptiveAvgPool2d(1) in the place of the pooling before it, and flatten with "
        "x.flatten(1)"
    )


def _table(layer: nn.Module, error: Exception) -> str | None:
    """The layer's own tensor that does not fit, by the numbers that torch complains of."""
    match = re.search(r"tensor a \((\d+)\) must match the size of tensor b \((\d+)\)", str(error))
    if match is None:
        return None
    sides = {int(number) for number in match.groups()}
    own = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
    for name, tensor in own:
        if tensor.dim() > 1 and sides & set(tensor.shape):
            return f"{name} {tuple(tensor.shape)}"
    return None


def source_of(error: Exception) -> str:
    """Where in the author's code an error was raised: " (net.py, line 7)", or nothing."""
    frames = [frame for frame in extract_tb(error.__traceback__) if theirs(frame.filename)]
    if not frames:
        return ""
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


def theirs(file: str) -> bool:
    """Whether a source file belongs to the author of the network, not to torch or us."""
    return not file.startswith((_TORCH, _OURS, "<"))


def brief(exc: BaseException) -> str:
    """Type and first lines: torch appends pages of graphs and traces to some messages."""
    return f"{type(exc).__name__}: " + "\n".join(str(exc).strip().splitlines()[:5])


def _run(module: nn.Module, pixels: Tensor, names: dict[nn.Module, str]) -> Trace:
    trace = Trace()
    with _watched(trace, names), torch.no_grad():
        try:
            module(pixels)
        except CaptureError:
            raise
        except Exception as exc:  # the author's code may raise what it likes
            trace.error = exc
    return trace


@contextmanager
def _watched(trace: Trace, names: dict[nn.Module, str]) -> Iterator[None]:
    def enter(layer: nn.Module, inputs: tuple[object, ...]) -> None:
        trace.open_.append((layer, _shape(inputs)))

    def leave(layer: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        _, shape = trace.open_.pop()
        trace.shapes.append((names.get(layer, ""), shape, _shape((output,))))

    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _shape(values: tuple[object, ...]) -> Shape:
    first = next((value for value in values if isinstance(value, Tensor)), None)
    return () if first is None else tuple(first.shape)
