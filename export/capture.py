"""Step 1, in a process of its own: run the network in torch and write down what it does.

Imports torch and models only. It leaves behind

    program.pt2   the exported program, from uint8 pixels to logits and all else that is served
    golden.npz    what torch itself answers, over a grid of sizes
    found.json    the smallest sides that the network takes, found by trying, and more; see Found

or refused.txt, which says what to change. It runs apart because building a network runs its
author's code, and with its author's import path.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.decisions import Decision, Size, Watch, explored, watched
from export.diagnosis import brief, explain, source_of
from export.errors import CaptureError
from export.origin import load
from export.pools import KeepPools
from export.recipe import Found, Recipe, kind_of
from export.refusals import check_logits, check_program, last_pooling
from export.rounding import rounding, settled
from export.served import OUTPUTS, Served
from export.shapes import ShortSizes, in_whole_numbers
from export.sizes import content, example_size, find_limits, grid, otherwise
from models.card import SizeLimits
from models.classifier import PoolingClassifier
from models.registry import UnknownNetworkError
from models.swap import SwapError
from models.weights import WeightsError

_ONLY_ITS_SIZES = (
    "A saved program takes the sizes it was saved for: save it with dynamic_shapes for batch, "
    "height and width"
)
REFUSED, FOUND = "refused.txt", "found.json"


def export_program(
    module: nn.Module, pixels: Tensor, classes: Tensor | None = None
) -> tuple[torch.export.ExportedProgram, list[Decision]]:
    """Capture `module` with dynamic batch, height and width (dimensions 0 to 2 of `pixels`).

    classes: a second input, of which both dimensions are dynamic. Also returns what forward
    decides by the size of its input. Raises CaptureError.
    """
    inputs = (pixels,) if classes is None else (pixels, classes)
    axes = (range(3), range(2))
    dynamic = tuple(
        dict.fromkeys(axis, torch.export.Dim.DYNAMIC) for axis, _ in zip(axes, inputs, strict=False)
    )
    try:
        with watched() as watch, ShortSizes(), KeepPools(), torch.no_grad():
            program = torch.export.export(module, inputs, dynamic_shapes=dynamic, strict=False)
    except CaptureError:
        raise
    except Exception as exc:  # torch raises what it likes, ours wrapped in it as well
        ours = _find_capture_error(exc)
        if ours is not None:
            raise ours from exc
        _check_numbers(watch, exc)
        decided = "; ".join(dict.fromkeys(where for where, _ in watch.conditions))
        place = source_of(exc) or (decided and f" (forward decides by a size in {decided})")
        raise CaptureError(
            f"torch.export cannot keep batch, height and width dynamic{place}: {brief(exc)}"
        ) from exc
    _check_numbers(watch)
    in_whole_numbers(program)
    n, h, w = pixels.shape[:3]
    return program, watch.decisions(_input(program), (n, h, w))


def _check_numbers(watch: Watch, cause: Exception | None = None) -> None:
    if watch.numbers:
        raise CaptureError(
            "forward makes a plain number of the image's size, and the graph would hold for that "
            f"size only ({'; '.join(dict.fromkeys(watch.numbers))}): leave out int(), len(), "
            "range() and numpy there; one can reckon with sizes from x.shape as they are"
        ) from cause


def _input(program: torch.export.ExportedProgram) -> Tensor:
    """The symbolic input `pixels`."""
    name = program.graph_signature.user_inputs[0]
    nodes = (node for node in program.graph.nodes if node.name == name)
    pixels: Tensor = next(nodes).meta["val"]
    return pixels


def _find_capture_error(exc: BaseException | None) -> CaptureError | None:
    while exc is not None and not isinstance(exc, CaptureError):
        exc = exc.__cause__ or exc.__context__
    return exc


def references(
    served: Served, channels: int, limits: SizeLimits, decisions: Sequence[Decision] = ()
) -> dict[str, NDArray[Any]]:
    """What torch answers over the grid of sizes: `pixels_000`, `logits_000`, … for golden.npz.

    Maps are those of the most probable class and of the last.

    Raises CaptureError when the network fails at a size that its limits allow.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for index, (n, h, w) in enumerate(grid(limits, decisions)):
        pixels = content(index, n, h, w, channels)
        try:
            with torch.no_grad():
                answers = _answers(served, torch.from_numpy(pixels))
        except CaptureError:
            raise
        except Exception as exc:  # the author's code may raise what it likes
            smallest = torch.from_numpy(content(0, 1, *limits.smallest(), channels))
            why = explain(served, smallest, torch.from_numpy(pixels))
            raise CaptureError(f"the network fails at {n}×{h}×{w}: {brief(exc)}. {why}") from exc
        arrays[f"pixels_{index:03d}"] = pixels
        for name, answer in zip(OUTPUTS, answers, strict=False):
            arrays[f"{name}_{index:03d}"] = answer.numpy()
    return arrays


def _answers(served: Served, pixels: Tensor) -> tuple[Tensor, ...]:
    """All outputs for `pixels` (n, h, w, c), checked against the network's own forward."""
    network = served.network
    if not isinstance(network, PoolingClassifier):
        answers: tuple[Tensor, ...] = served(pixels)
        return answers
    own = network(served.normalised(pixels))  # (n, k)
    last = torch.full((len(own), 1), own.shape[1] - 1)
    classes = torch.cat([own.argmax(1, keepdim=True), last], 1)  # (n, 2)
    answers = served(pixels, classes)
    _check_forward(own, answers[0])
    if served.explains:
        _check_maps(network.head, *answers)
    return answers


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


def capture(recipe: Recipe, out: Path) -> None:
    """Write program.pt2, golden.npz and found.json of a network into `out`.

    Raises CaptureError, WeightsError, UnknownNetworkError, SwapError.
    """
    channels = recipe.preprocessing.channels
    served = Served(load(recipe), recipe.preprocessing, recipe.activation)
    try:
        limits = settled(served, channels, find_limits(served, channels))
    except CaptureError as exc:
        if kind_of(recipe.origin) == "program":
            raise CaptureError(f"{exc}. {_ONLY_ITS_SIZES}") from exc
        raise
    example = torch.from_numpy(content(0, *example_size(limits), channels))
    served.find_last(example)
    classes = torch.tensor([[0, -1, -2]]).repeat(len(example), 1) if served.explains else None
    program, decisions = export_program(served, example, classes)
    check_program(program, recipe.activation)
    decisions = _explored(served, decisions, classes, channels, limits)
    arrays = references(served, channels, limits, decisions)
    logits = [torch.from_numpy(array) for name, array in arrays.items() if "logits" in name]
    check_logits(logits, recipe.activation)
    torch.export.save(program, out / "program.pt2")
    np.savez_compressed(out / "golden.npz", allow_pickle=False, **arrays)
    found = Found(
        limits=limits,
        rounding=rounding(served, [a for name, a in arrays.items() if "pixels" in name]),
        pooling=last_pooling(program),
        decisions=_otherwise(limits, decisions),
    )
    (out / FOUND).write_text(found.model_dump_json(), encoding="utf-8")


def _explored(
    served: Served,
    decisions: list[Decision],
    classes: Tensor | None,
    channels: int,
    limits: SizeLimits,
) -> list[Decision]:
    """What forward decides by the size, also where it takes another way than for the example."""
    sizes = grid(limits)

    def trace(size: Size) -> list[Decision]:
        pixels = torch.from_numpy(content(0, *size, channels))
        chosen = None if classes is None else classes[:1].repeat(len(pixels), 1)
        return export_program(served, pixels, chosen)[1]

    return explored(trace, decisions, lambda decision: otherwise(decision, sizes, limits))


def _otherwise(limits: SizeLimits, decisions: Sequence[Decision]) -> dict[str, list[str]]:
    """By size, what is decided otherwise there than for the example."""
    example = example_size(limits)
    return {
        "×".join(map(str, size)): told
        for size in grid(limits, decisions)
        if (told := [str(d) for d in decisions if d.takes(*size) != d.takes(*example)])
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipe", type=Path, help="JSON file, see export/recipe.py")
    parser.add_argument("out", type=Path, help="folder to write to")
    options = parser.parse_args()
    try:
        capture(Recipe.model_validate_json(options.recipe.read_bytes()), options.out)
    except (CaptureError, WeightsError, UnknownNetworkError, SwapError) as exc:
        (options.out / REFUSED).write_text(str(exc), encoding="utf-8")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
