"""`anypool export`: from a network's name to a verified artifact."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from export.errors import ExportError
from export.pipeline import Progress, VerificationError, export
from export.verify import Case
from models import registry
from models.weights import WeightsError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command; called when `export` is the command that was asked for."""
    parser.add_argument("network", metavar="NAME", help=f"one of: {', '.join(registry.names())}")
    parser.add_argument("--out", type=Path, default=Path("artifacts"), metavar="DIR",
                        help="store to write to (default: artifacts)")  # fmt: skip
    parser.add_argument("--version", type=int, metavar="N",
                        help="version number (default: one more than the newest)")  # fmt: skip
    parser.add_argument("--weights", type=Path, metavar="FILE",
                        help="state dict for this architecture, .pt, .pth or .safetensors, "
                        "instead of the weights that come with it")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Export; 0 when the artifact was written, 1 when it was not, 2 for a wrong name or version."""
    if options.network not in registry.names():
        print(f"no network is named {options.network!r}; there are: {', '.join(registry.names())}",
              file=sys.stderr)  # fmt: skip
        return 2
    if options.version is not None and options.version < 1:
        print("--version must be a positive integer", file=sys.stderr)
        return 2
    bar = tqdm(total=5, desc=options.network, unit="step", bar_format="{desc}: {bar} {elapsed}")
    sizes = 0

    def step(what: str) -> None:
        bar.write(f"{options.network}  {what}", file=sys.stderr)
        bar.update()

    def case(result: Case) -> None:
        nonlocal sizes
        sizes += 1
        bar.set_description(f"{options.network} {sizes} sizes, last {result.size}")

    try:
        with bar:
            folder = export(
                options.network,
                options.out,
                Progress(step, case),
                version=options.version,
                weights=options.weights,
            )
    except VerificationError as exc:
        print(f"\nnot written: {exc}\n{_table(exc.cases)}", file=sys.stderr)
        return 1
    except (ExportError, WeightsError) as exc:
        print(f"\nnot written: {exc}", file=sys.stderr)
        return 1
    print(folder)
    return 0


def _table(cases: list[Case]) -> str:
    rows = [f"{'n×h×w':>14}  {'error':>9}  {'allowed':>9}  problem"]
    rows += [
        f"{case.size:>14}  {case.error:9.2e}  {case.tolerance:9.2e}  {case.problem}"
        for case in cases
        if not case.ok
    ]
    return "\n".join(rows)
