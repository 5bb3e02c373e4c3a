"""`anypool export`: from a network's name to a verified artifact."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from export.errors import ExportError, VersionExistsError
from export.pipeline import Progress, VerificationError, export
from export.verify import Case
from models import registry
from models.pool import POOLS
from models.swap import Swap, SwapError


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
    parser.add_argument("--pool", metavar="POOL",
                        help=f"another pooling, put in without training: {', '.join(POOLS)}; "
                        "the artifact is then called NAME-POOL")  # fmt: skip
    parser.add_argument("--pool-arg", dest="pool_arguments", metavar="ARG=VALUE", action="append",
                        default=[], help="an argument of that pooling, such as p=3")  # fmt: skip
    parser.add_argument("--name", metavar="NAME", dest="rename",
                        help="what to call the artifact (default: as the network)")  # fmt: skip
    parser.add_argument("--import", dest="modules", metavar="MODULE", action="append", default=[],
                        help="Python module, in PYTHONPATH, that registers networks of your own; "
                        "see models/registry.py")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Export; 0 when the artifact was written, 1 when it was not, 2 for a wrong name or version."""
    try:
        for module in options.modules:
            registry.import_networks(module)
        registry.get(options.network)
        swap = _swap(options)
        suffix = "" if swap is None else f"-{swap.pool}"
        registry.check_name(options.rename or options.network + suffix)
    except ValueError as exc:  # UnknownNetworkError, SwapError, or a name that is none
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
                swap=swap,
                rename=options.rename,
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


def _swap(options: argparse.Namespace) -> Swap | None:
    if options.pool is None:
        if options.pool_arguments:
            raise SwapError("--pool-arg needs --pool")
        return None
    return Swap.parse(options.pool, options.pool_arguments)


def _table(cases: list[Case]) -> str:
    rows = [f"{'n×h×w':>14}  {'error':>9}  {'allowed':>9}  problem"]
    rows += [
        f"{case.size:>14}  {case.error:9.2e}  {case.tolerance:9.2e}  {case.problem}"
        for case in cases
        if not case.ok
    ]
    return "\n".join(rows)
