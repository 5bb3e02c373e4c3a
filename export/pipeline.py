"""START HERE. One export from top to bottom: capture, lower, rewrite, check, verify, publish."""

import platform
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed
from math import isfinite, prod, sqrt
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch

from export.activations import measure
from export.artifact import free_version, publish
from export.capture import FOUND, REFUSED
from export.check import check
from export.description import Changes, Description, describe
from export.errors import ExportError
from export.lower import to_onnx
from export.precision import accept, drift, halve
from export.recipe import Found, Recipe
from export.rewrite.cells import expand_cells
from export.rewrite.dimensions import name_dimensions
from export.rewrite.optional import make_maps_optional
from export.rewrite.ragged import make_ragged
from export.served import OUTPUTS as SERVED
from export.verify import Case, verify
from models import registry
from models.card import Card, Mixed, Output, Parity, SizeLimits

_AS_IT_IS = Changes()
# A network that enlarges rounding cannot be nearer to torch than torch is to itself: so many times
# its own distance from float64 are allowed as well, up to so many times what others may differ.
_OWN_ROUNDING, _AT_MOST = 4, 3
OUTPUTS: tuple[Output, ...] = ("logits", "probabilities", "embedding", "cam")

# Allowed |difference| / max|logit|. 1e-4 would hide a wrong adaptive window, so the CPU gets 2e-5;
# CUDA sums in another order (fp32 without TF32), and gets 1e-4 until it has been measured.
TOLERANCES = {"CPUExecutionProvider": 2e-5, "CUDAExecutionProvider": 1e-4}
# The same for an image in company against itself alone: only the order of sums may differ.
IN_COMPANY = {"CPUExecutionProvider": 1e-5, "CUDAExecutionProvider": 1e-4}


class VerificationError(ExportError):
    """ONNX Runtime and torch disagree; `cases` has every size that was compared.

    decisions: what forward decides by the size, otherwise at those that failed than for the example
    drift: where they part, layer by layer, and whose fault it is; None where that was not found
    """

    def __init__(
        self, cases: list[Case], decisions: Mapping[str, list[str]], drift: str | None = None
    ) -> None:
        super().__init__(f"{sum(not case.ok for case in cases)} of {len(cases)} comparisons failed")
        self.cases = cases
        sizes = [case.size for case in cases if not case.ok]
        told = (decision for size in sizes for decision in decisions.get(size, ()))
        self.decisions = list(dict.fromkeys(told))
        self.drift = drift


@dataclass(frozen=True, slots=True)
class Progress:
    """Told what is going on: `step` when one begins, `case` for each size that was verified."""

    step: Callable[[str], None]
    case: Callable[[Case], None]


def export(
    origin: str,
    root: Path,
    progress: Progress,
    *,
    version: int | None = None,
    changes: Changes = _AS_IT_IS,
    modules: Sequence[str] = (),
    trust: bool = False,
    photos: Sequence[Path] = (),
) -> Path:
    """Export a network into root/name/version and return that folder.

    origin: the name of a registered network, net.py:build, or a saved program (.pt2)
    changes: what is to be otherwise than the network's own description
    modules: to import first, since they register more networks
    trust: load a saved program, which may run code
    photos: for a network in fp16, to see what that changes

    Everything happens in a temporary folder under `root`; if anything fails, nothing is left.
    Raises UnknownNetworkError, DescriptionError, ExportError, VerificationError.
    """
    for module in modules:
        registry.import_networks(module)
    network = describe(origin, changes)
    version = free_version(root, network.name, version)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".export-", ignore_cleanup_errors=True) as t:
        draft = Path(t) / "artifact"
        draft.mkdir()

        progress.step("capture: torch runs the network over a grid of sizes")
        captured = _capture(_recipe(origin, network, changes, modules, trust=trust), Path(t))
        found = Found.model_validate_json((captured / FOUND).read_bytes())

        progress.step("lower: the program becomes an ONNX graph")
        program = torch.export.load(captured / "program.pt2")
        inputs = ("pixels", "classes")[: len(program.graph_signature.user_inputs)]
        model = to_onnx(program, SERVED[: len(program.graph_signature.user_outputs)], inputs)
        name_dimensions(model)

        progress.step("rewrite: exact poolings; a second graph for images of different sizes")
        channels = network.preprocessing.channels
        explains = "classes" in inputs
        proto, ragged, refused = _rewrite(model, channels, found.limits.multiple, explains=explains)

        progress.step("check: valid, standard operators, nothing baked, one file")
        check(proto, channels, explains=explains)
        onnx.save(proto, draft / "model.onnx")
        if ragged is not None:
            onnx.save(ragged, draft / "ragged.onnx")

        progress.step("verify: ONNX Runtime against torch, and in company against alone")
        (captured / "golden.npz").rename(draft / "golden.npz")
        mixed = Mixed(
            supported=refused is None,
            reason=refused,
            tolerances=allowed(IN_COMPANY, found.rounding),
        )
        card = _card(network, version, found, mixed, proto, _map_stride(draft / "golden.npz"))
        card.save(draft / "card.json")
        cases = verify(draft, progress.case)
        if ragged is not None and (differs := only_in_mixed_batches(cases)) is not None:
            (draft / "ragged.onnx").unlink()
            mixed = mixed.model_copy(update={"supported": False, "reason": differs})
            card = card.model_copy(update={"mixed": mixed})
            cases = [case for case in cases if case.kind != "mixed"]
        if not cases or not all(case.ok for case in cases):
            raise VerificationError(cases, found.decisions, _drift(captured, draft, cases))
        _with_parity(card, cases).save(draft / "card.json")

        if changes.precision == "fp16":
            progress.step("halve: convolutions in 16 bits, verified again, and tried on photos")
            _halve(draft, Path(t) / "whole", photos, progress)
        return publish(draft, root, network.name, version)


def _halve(draft: Path, whole: Path, photos: Sequence[Path], progress: Progress) -> None:
    """Put a verified artifact into 16 bits; whole: where to keep it as it was, for comparison."""
    card = halve(draft, whole)
    cases = verify(draft, progress.case)
    if not all(case.ok for case in cases):
        raise VerificationError(cases, {})
    seen = whole.with_name("seen")
    seen.mkdir()
    found = measure(whole, draft, seen, drift(whole, draft, photos, seen))
    accept(found, _with_parity(card, cases)).save(draft / "card.json")


def _recipe(
    origin: str, network: Description, changes: Changes, modules: Sequence[str], *, trust: bool
) -> Recipe:
    swap = changes.swap
    return Recipe(
        origin=origin,
        preprocessing=network.preprocessing,
        activation=network.activation,
        modules=tuple(modules),
        weights=changes.weights,
        pool=None if swap is None else swap.pool,
        pool_arguments=()
        if swap is None
        else tuple(f"{name}={value}" for name, value in swap.arguments.items()),
        trust=trust,
    )


def _rewrite(
    model: ir.Model, channels: int, multiple: int, *, explains: bool
) -> tuple[onnx.ModelProto, onnx.ModelProto | None, str | None]:
    """The plain graph, the ragged one, and if there is none, why."""
    ragged = ir.from_proto(ir.to_proto(model))
    expand_cells(model)
    make_maps_optional(model)
    plain = ir.to_proto(model)
    try:
        make_ragged(ragged, multiple)
        make_maps_optional(ragged)
        mixed = ir.to_proto(ragged)
        check(mixed, channels, explains=explains, ragged=True)
    except ExportError as exc:  # Unsupported, or a graph that is not what it should be
        return plain, None, str(exc)
    return plain, mixed, None


def _capture(recipe: Recipe, out: Path) -> Path:
    (out / "recipe.json").write_text(recipe.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-P", "-m", "export.capture", str(out / "recipe.json"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if (refused := out / REFUSED).exists():
        raise ExportError(refused.read_text(encoding="utf-8"))
    if done.returncode != 0:
        how = f"exit code {done.returncode}"
        if done.returncode < 0:
            how = f"{signal.Signals(-done.returncode).name}; was memory short?"
        said = done.stderr.strip()[-2000:]
        raise ExportError(f"capturing {recipe.origin} ended with {how}\n{said}")
    return out


def _card(
    network: Description,
    version: int,
    found: Found,
    mixed: Mixed,
    model: onnx.ModelProto,
    map_stride: int | None,
) -> Card:
    widths = {v.name: v.type.tensor_type.shape.dim[1].dim_value for v in model.graph.output}
    crop = network.preprocessing.crop
    if crop is not None and not found.limits.allow(crop, crop):
        raise ExportError(_no_crop(crop, found.limits))
    return Card(
        name=network.name,
        version=version,
        labels=network.labels_of(widths["logits"]),
        preprocessing=network.preprocessing,
        activation=network.activation,
        limits=found.limits,
        pooling=network.pooling or found.pooling or "as its author wrote it",
        outputs=tuple(output for output in OUTPUTS if output in widths),
        embedding_size=widths.get("embedding"),
        map_stride=map_stride,
        tolerances=allowed(TOLERANCES, found.rounding),
        rounding=found.rounding,
        mixed=mixed,
        exporter={
            "python": platform.python_version(),
            **{p: installed(p) for p in ("anypool", "torch", "onnx", "onnxscript", "onnxruntime")},
        },
        licence=network.licence,
    )


def only_in_mixed_batches(cases: Sequence[Case]) -> str | None:
    """Why the ragged graph must not be used, if that is all that failed; None otherwise."""
    failed = [case for case in cases if not case.ok]
    if not failed or any(case.kind != "mixed" for case in failed):
        return None
    worst = max(failed, key=lambda case: case.error)
    return f"{worst.size}: {worst.problem}; {len(failed)} of {len(cases)} comparisons failed"


def _drift(captured: Path, draft: Path, cases: Sequence[Case]) -> str | None:
    """Where torch and ONNX Runtime part, on the smallest image on which they do."""
    sizes = [case for case in cases if case.kind == "size"]
    failed = [
        (prod(map(int, case.size.split("×"))), number)
        for number, case in enumerate(sizes)
        if not case.ok and isfinite(case.error)
    ]
    if not failed:
        return None
    files = (captured / "program.pt2", draft / "model.onnx", draft / "golden.npz")
    case = [*map(str, files), f"{min(failed)[1]:03d}"]
    command = [sys.executable, "-P", "-m", "export.drift", *case]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def allowed(usual: Mapping[str, float], rounding: float) -> dict[str, float]:
    """The tolerances for a network whose own rounding is that."""
    return {
        provider: max(tolerance, min(_OWN_ROUNDING * rounding, _AT_MOST * tolerance))
        for provider, tolerance in usual.items()
    }


def _no_crop(side: int, limits: SizeLimits) -> str:
    smallest, m = max(limits.smallest()), limits.multiple
    lower = max(smallest, side // m * m)
    return (
        f"the network does not take a crop of {side}×{side}: it takes {smallest} and more, "
        f"in multiples of {m}. Crop to {lower} or {max(smallest, lower + m)}"
    )


def _map_stride(golden: Path) -> int | None:
    """Image pixels a side to one place of a class activation map, on the largest image."""
    with np.load(golden, allow_pickle=False) as arrays:
        names = [name.removeprefix("cam_") for name in arrays if re.fullmatch(r"cam_\d+", name)]
        sizes = [(arrays[f"pixels_{n}"].shape[1:3], arrays[f"cam_{n}"].shape[2:]) for n in names]
    if not sizes:
        return None
    (h, w), (rows, columns) = max(sizes, key=lambda size: prod(size[0]))
    return max(1, int(sqrt(h * w / (rows * columns))))


def _with_parity(card: Card, cases: list[Case]) -> Card:
    sizes = [case for case in cases if case.kind == "size"]
    company = [case for case in cases if case.kind != "size"]
    mixed = card.mixed.model_copy(
        update={"parity": _parity(company, "each image alone") if company else None}
    )
    parity = _parity(sizes, f"torch {torch.__version__}")
    return card.model_copy(update={"parity": parity, "mixed": mixed})


def _parity(cases: list[Case], reference: str) -> Parity:
    worst = max(cases, key=lambda case: case.error)
    return Parity(
        reference=reference,
        provider=worst.provider,
        cases=len(cases),
        worst=worst.error,
        worst_case=worst.size,
    )
