"""`anypool export`: from a network's name to a verified artifact."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from export.errors import ExportError, VersionExistsError
from export.pipeline import Progress, VerificationError, export
from export.verify import Case
from models import registry
from models.registry import UnknownNetworkError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command; called when `export` is the command that was asked for."""
    known = ", ".join(registry.names())
    parser.add_argument("network", metavar="NAME", help=f"one of: {known}; or one of --import")
    parser.add_argument("--out", type=Path, default=Path("artifacts"), metavar="DIR",
                        help="store to write to (default: artifacts)")  # fmt: skip
    parser.add_argument("--version", type=int, metavar="N",
                        help="version number (default: one more than the newest)")  # fmt: skip
    parser.add_argument("--weights", type=Path, metavar="FILE",
                        help="state dict for this architecture, .pt, .pth or .safetensors, "
                        "instead of the weights that come with it")  # fmt: skip
    parser.add_argument("--import", dest="modules", metavar="MODULE", action="append", default=[],
                        help="Python module, in PYTHONPATH, that registers networks of your own; "
                        "see models/registry.py")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Export; 0 when the artifact was written, 1 when it was not, 2 for a wrong name or version."""
    try:
        for module in options.modules:
            registry.import_networks(module)
        registry.get(options.network)
    except UnknownNetworkError as exc:
        print(f"anypool export: {exc}", file=sys.stderr)
        return 2
    if options.version is not None and options.version < 1:
        print("anypool export: --version must be a positive integer", file=sys.stderr)
        return 2
    bar = tqdm(
        total=5,
        desc=options.network,
        bar_format="{desc}{bar} {elapsed}",
        disable=None,  # no bar where no terminal is
    )
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
                modules=options.modules,
            )
    except VerificationError as exc:
        print(f"\nnot written: {exc}\n{_table(exc.cases)}", file=sys.stderr)
        return 1
    except VersionExistsError as exc:
        print(f"anypool export: {exc}", file=sys.stderr)
        return 2
    except ExportError as exc:
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
