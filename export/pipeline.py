"""START HERE. One export from top to bottom: capture, lower, rewrite, check, verify, publish."""

import hashlib
import platform
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version as installed
from math import prod, sqrt
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch

from export.artifact import free_version, publish
from export.capture import OUTPUTS as SERVED
from export.capture import REFUSED
from export.check import check
from export.errors import ExportError
from export.lower import to_onnx
from export.rewrite.cells import expand_cells
from export.rewrite.dimensions import name_dimensions
from export.rewrite.optional import make_maps_optional
from export.rewrite.ragged import make_ragged
from export.verify import Case, verify
from models import registry
from models.card import Card, Licence, Mixed, Output, Parity, SizeLimits
from models.registry import Network
from models.swap import Swap

OUTPUTS: tuple[Output, ...] = ("logits", "probabilities", "embedding", "cam")

# Allowed |difference| / max|logit|. 1e-4 would hide a wrong adaptive window, so the CPU gets 2e-5;
# CUDA sums in another order (fp32 without TF32), and gets 1e-4 until it has been measured.
TOLERANCES = {"CPUExecutionProvider": 2e-5, "CUDAExecutionProvider": 1e-4}
# The same for an image in company against itself alone: only the order of sums may differ.
IN_COMPANY = {"CPUExecutionProvider": 1e-5, "CUDAExecutionProvider": 1e-4}


class VerificationError(ExportError):
    """ONNX Runtime and torch disagree; `cases` has every size that was compared."""

    def __init__(self, cases: list[Case]) -> None:
        super().__init__(f"{sum(not case.ok for case in cases)} of {len(cases)} comparisons failed")
        self.cases = cases


@dataclass(frozen=True, slots=True)
class Progress:
    """Told what is going on: `step` when one begins, `case` for each size that was verified."""

    step: Callable[[str], None]
    case: Callable[[Case], None]


def export(
    name: str,
    root: Path,
    progress: Progress,
    *,
    version: int | None = None,
    weights: Path | None = None,
    modules: Sequence[str] = (),
    swap: Swap | None = None,
    rename: str | None = None,
) -> Path:
    """Export the registered network `name` into root/name/version and return that folder.

    Everything happens in a temporary folder under `root`; if anything fails, nothing is left.
    modules: to import first, since they register more networks.
    swap: a pooling for the place of the network's own; rename: what to call the artifact.
    Raises UnknownNetworkError, ExportError, VerificationError.
    """
    for module in modules:
        registry.import_networks(module)
    network = as_exported(registry.get(name), weights, swap, rename)
    version = free_version(root, network.name, version)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".export-", ignore_cleanup_errors=True) as t:
        draft = Path(t) / "artifact"
        draft.mkdir()

        progress.step("capture: torch runs the network over a grid of sizes")
        captured = _capture(name, weights, modules, swap, Path(t))

        progress.step("lower: the program becomes an ONNX graph")
        program = torch.export.load(captured / "program.pt2")
        inputs = ("pixels", "classes")[: len(program.graph_signature.user_inputs)]
        model = to_onnx(program, SERVED[: len(program.graph_signature.user_outputs)], inputs)
        name_dimensions(model)

        progress.step("rewrite: exact poolings; a second graph for images of different sizes")
        channels = network.preprocessing.channels
        explains = "classes" in inputs
        proto, ragged, refused = _rewrite(model, channels, explains=explains)

        progress.step("check: valid, standard operators, nothing baked, one file")
        check(proto, channels, explains=explains)
        onnx.save(proto, draft / "model.onnx")
        if ragged is not None:
            onnx.save(ragged, draft / "ragged.onnx")

        progress.step("verify: ONNX Runtime against torch, and in company against alone")
        limits = SizeLimits.model_validate_json((captured / "limits.json").read_text())
        (captured / "golden.npz").rename(draft / "golden.npz")
        mixed = Mixed(supported=refused is None, reason=refused, tolerances=IN_COMPANY)
        card = _card(network, version, limits, mixed, proto, _map_stride(draft / "golden.npz"))
        card.save(draft / "card.json")
        cases = verify(draft, progress.case)
        if not cases or not all(case.ok for case in cases):
            raise VerificationError(cases)
        _with_parity(card, cases).save(draft / "card.json")
        return publish(draft, root, network.name, version)


def as_exported(
    network: Network, weights: Path | None, swap: Swap | None, rename: str | None
) -> Network:
    """The network as its card will tell it."""
    if weights is not None:
        network = replace(network, licence=_foreign(weights))
    if swap is not None:
        notice = f"{network.licence.notice} Changed by anypool: pooling is now {swap}."
        network = replace(
            network,
            name=f"{network.name}-{swap.pool}",
            pooling=f"{swap}, put in without training, for: {network.pooling}",
            licence=network.licence.model_copy(update={"notice": notice}),
        )
    return network if rename is None else replace(network, name=rename)


def _rewrite(
    model: ir.Model, channels: int, *, explains: bool
) -> tuple[onnx.ModelProto, onnx.ModelProto | None, str | None]:
    """The plain graph, the ragged one, and if there is none, why."""
    ragged = ir.from_proto(ir.to_proto(model))
    expand_cells(model)
    make_maps_optional(model)
    plain = ir.to_proto(model)
    try:
        make_ragged(ragged)
        make_maps_optional(ragged)
        mixed = ir.to_proto(ragged)
        check(mixed, channels, explains=explains, ragged=True)
    except ExportError as exc:  # Unsupported, or a graph that is not what it should be
        return plain, None, str(exc)
    return plain, mixed, None


def _capture(
    name: str, weights: Path | None, modules: Sequence[str], swap: Swap | None, out: Path
) -> Path:
    command = [sys.executable, "-P", "-m", "export.capture", "--network", name, "--out", str(out)]
    command += [f"--import={module}" for module in modules]
    if weights is not None:
        command += [f"--weights={weights}"]
    if swap is not None:
        command += [f"--pool={swap.pool}"]
        command += [f"--pool-arg={name}={value}" for name, value in swap.arguments.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if (refused := out / REFUSED).exists():
        raise ExportError(refused.read_text(encoding="utf-8"))
    if done.returncode != 0:
        how = f"exit code {done.returncode}"
        if done.returncode < 0:
            how = f"{signal.Signals(-done.returncode).name}; was memory short?"
        raise ExportError(f"capturing {name} ended with {how}\n{done.stderr.strip()[-2000:]}")
    return out


def _foreign(weights: Path) -> Licence:
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return Licence(
        name="unknown",
        notice=f"Weights read from {weights.name}, SHA-256 {digest}: ask whoever made them.",
    )


def _card(
    network: Network,
    version: int,
    limits: SizeLimits,
    mixed: Mixed,
    model: onnx.ModelProto,
    map_stride: int | None,
) -> Card:
    widths = {v.name: v.type.tensor_type.shape.dim[1].dim_value for v in model.graph.output}
    labels = network.labels()
    if widths["logits"] != len(labels):
        raise ExportError(f"{widths['logits']} logits but {len(labels)} labels")
    return Card(
        name=network.name,
        version=version,
        labels=labels,
        preprocessing=network.preprocessing,
        activation="softmax",
        limits=limits,
        pooling=network.pooling,
        outputs=tuple(output for output in OUTPUTS if output in widths),
        embedding_size=widths["embedding"],
        map_stride=map_stride,
        tolerances=TOLERANCES,
        mixed=mixed,
        exporter={
            "python": platform.python_version(),
            **{p: installed(p) for p in ("anypool", "torch", "onnx", "onnxscript", "onnxruntime")},
        },
        licence=network.licence,
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
    company = [case for case in cases if case.kind == "company"]
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
