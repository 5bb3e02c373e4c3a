"""What 16 bits do to the numbers between layers: how large they get, what rounding them changes.

ONNX Runtime's CPU provider computes those of a network in fp16 in 32 bits, and rounds but the
weights: what it answers tells neither. So the network in 32 bits is asked how large its numbers
get, and the reference implementation of ONNX, which rounds each, runs the one in 16 bits.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from export.errors import ExportError
from export.rewrite.halves import LARGEST, halved
from models.card import Card, Drift, SizeLimits

Batch = NDArray[np.uint8]  # (n, h, w, c)
_ROOM = 4  # other photos may bring larger numbers than those that were tried
# The reference implementation takes 50 times as long: small images, and the middle of some photos.
_SMALL, _CUTS, _SIDE = 16_384, 8, 96  # pixels of a run, photos, pixels a side


def measure(whole: Path, half: Path, seen: Path, found: Drift) -> Drift:
    """What was found, and of the numbers between layers; raises ExportError if they are too large.

    whole, half: the artifact in 32 bits and in 16
    seen: a folder with an npy file of each photo, as the network gets it
    """
    card = Card.load(half / "card.json")
    exact, rough = (onnx.load(folder / "model.onnx") for folder in (whole, half))
    with np.load(whole / "golden.npz", allow_pickle=False) as arrays:
        golden = [arrays[name] for name in sorted(arrays) if name.startswith("pixels_")]
    photos = sorted(seen.glob("*.npy"))
    tried = (np.load(photo)[None] for photo in photos)
    peak = largest(exact, rough, (images for some in (golden, tried) for images in some))
    few = [np.load(photo) for photo in photos[:: -(-len(photos) // _CUTS)]]
    small = [images for images in golden if images[..., 0].size <= _SMALL]
    rounded, unmeasured = distance(
        exact, rough, [*small, *(_middle(photo, card.limits)[None] for photo in few)]
    )
    return found.model_copy(update={"peak": peak, "rounded": rounded, "unmeasured": unmeasured})


def largest(exact: onnx.ModelProto, rough: onnx.ModelProto, batches: Iterable[Batch]) -> float:
    """The largest number that 16 bits have to hold; raises ExportError where one is too large.

    exact, rough: the network in 32 bits, and what became of it
    """
    layers = halved(exact, rough)
    if not layers:
        return 0.0
    session = _session(_with_peaks(exact, layers))
    peaks = np.zeros(len(layers))
    for images in batches:
        got = session.run([f"{name}_peak" for name in layers], _feed(session, images))
        peaks = np.maximum(peaks, np.array(got))  # a NaN stays
    worst = int(peaks.argmax())  # a NaN, if there is one
    name, peak = list(layers)[worst], float(peaks[worst])
    if not peak <= LARGEST / _ROOM:
        raise ExportError(
            f"{layers[name]} {name} gives numbers up to {peak:.4g}; fp16 holds {LARGEST:.0f}, and "
            f"a {_ROOM}th of that is allowed, since other photos may give larger ones: keep fp32"
        )
    return peak


def distance(
    exact: onnx.ModelProto, rough: onnx.ModelProto, batches: Sequence[Batch]
) -> tuple[float | None, str | None]:
    """The largest |difference| / max|logit| with every number rounded, or why it is not known."""
    session = _session(exact)
    logits = exact.graph.output[0].name
    worst = 0.0
    try:
        reference = ReferenceEvaluator(rough)
        for images in batches:
            feed = _feed(session, images)
            (want,) = session.run([logits], feed)
            with np.errstate(all="ignore"):  # infinities are found below
                (got,) = reference.run([logits], feed)
            apart = float(np.abs(got - want).max() / (np.abs(want).max() or 1))
            worst = max(worst, apart if np.isfinite(apart) else np.inf)
    except Exception as exc:  # it lacks operators, and says so in many ways
        return None, f"ONNX's reference implementation: {type(exc).__name__}: {exc}"[:300]
    return worst, None


def _with_peaks(model: onnx.ModelProto, layers: Iterable[str]) -> onnx.ModelProto:
    """A copy that also gives the largest |number| of each layer, and no map, which would be big."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for name in layers:
        made.graph.node.append(helper.make_node("Abs", [name], [f"{name}_abs"]))
        made.graph.node.append(
            helper.make_node("ReduceMax", [f"{name}_abs"], [f"{name}_peak"], keepdims=0)
        )
        peak = helper.make_tensor_value_info(f"{name}_peak", TensorProto.FLOAT, [])
        made.graph.output.append(peak)
    return made


def _session(model: onnx.ModelProto) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # shapes vary
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _feed(session: Any, images: Batch) -> dict[str, NDArray[Any]]:
    feed: dict[str, NDArray[Any]] = {"pixels": images}
    if "classes" in {value.name for value in session.get_inputs()}:
        feed["classes"] = np.full((len(images), 1), -1, np.int64)
    return feed


def _middle(photo: NDArray[np.uint8], limits: SizeLimits) -> NDArray[np.uint8]:
    """Of an image (h, w, c) as much as is small, in sides that the network takes."""
    sides = (max(least, _SIDE // limits.multiple * limits.multiple) for least in limits.smallest())
    height, width = (min(side, whole) for side, whole in zip(sides, photo.shape, strict=False))
    top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 2
    return photo[top : top + height, left : left + width]
