"""`anypool export`: from a network's name to a verified artifact."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from export.description import Changes, DescriptionError, describe, parse_numbers
from export.errors import ExportError, VersionExistsError
from export.pipeline import Progress, VerificationError, export
from export.precision import find_photos
from export.recipe import NEEDS_TRUST, kind_of
from export.verify import Case
from models import registry
from models.labels import read_labels
from models.pool import POOLS
from models.swap import Swap, SwapError

_ROWS, _WIDTH = 12, 200  # of the table of what failed
_TRUST = """load a saved program (.pt2). It is code, not weights: to load one can run anything its \
maker put in, so only say this of a file whose maker you know"""
_EPILOG = """\
examples:
  anypool export efficientnet_lite0
  anypool export net.py:build --weights net.safetensors --labels labels.txt
  anypool export net.py:build --resize crop:256:224 --filter bilinear      as torchvision evaluates
  anypool export tags.py:TagNet --activation sigmoid --mean 0.5 --std 0.5  several labels an image
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command; called when `export` is the command that was asked for."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    known = ", ".join(registry.names())
    parser.add_argument("network", metavar="NETWORK",
                        help="net.py:build, a function or class in a Python file that gives a "
                        f"torch.nn.Module; or one of: {known}; or one of --import; or a saved "
                        "program, net.pt2")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("artifacts"), metavar="DIR",
                        help="store to write to (default: artifacts)")  # fmt: skip
    parser.add_argument("--name", metavar="NAME",
                        help="of the artifact (default: as the network or file)")  # fmt: skip
    parser.add_argument("--version", type=int, metavar="N",
                        help="version number (default: one more than the newest)")  # fmt: skip
    parser.add_argument("--weights", type=Path, metavar="FILE",
                        help="state dict for this architecture, .pt, .pth or .safetensors, "
                        "instead of those that come with it; no code in it is run")  # fmt: skip
    parser.add_argument("--labels", type=Path, metavar="FILE",
                        help="text, a line for each class in order: its name, or its id, a tab and "
                        "its name (default: numbers)")  # fmt: skip
    served = parser.add_argument_group("how images reach the network, and what its outputs are",
                                       "For a file or program the defaults are --channels 3 "
                                       "--resize fit:320\n--filter bicubic --activation softmax, "
                                       "and mean and std of ImageNet.")  # fmt: skip
    served.add_argument("--channels", type=int, metavar="N", help="3 for RGB, 1 for grey")
    served.add_argument("--mean", metavar="N,…",
                        help="for each channel, in parts of white: 0.485,0.456,0.406 "
                        "or 127/255")  # fmt: skip
    served.add_argument("--std", metavar="N,…",
                        help="likewise; the network gets (pixel/255 - mean) / std")  # fmt: skip
    served.add_argument("--resize", metavar="POLICY",
                        help="fit:320 (longest side), limit:640 (the same, down only), short:256 "
                        "(shortest side), crop:256:224 (shortest side, then a square from the "
                        "centre, to the pixel as torchvision's presets), or native")  # fmt: skip
    served.add_argument("--filter", choices=("bicubic", "bilinear"), help="to resize with")
    served.add_argument("--activation", choices=("softmax", "sigmoid", "none"),
                        help="softmax: one label an image; sigmoid: any number of labels, each "
                        "probability on its own; none: it ends in one already")  # fmt: skip
    more = parser.add_argument_group("more")
    more.add_argument("--pool", metavar="POOL",
                      help=f"another pooling, put in without training: {', '.join(POOLS)}; "
                      "the artifact is then called NAME-POOL")  # fmt: skip
    more.add_argument("--pool-arg", dest="pool_arguments", metavar="ARG=VALUE", action="append",
                      default=[], help="an argument of that pooling, such as p=3")  # fmt: skip
    more.add_argument("--precision", choices=("fp32", "fp16"), default="fp32",
                      help="fp16: convolutions in 16 bits, for GPUs; answers change a little, and "
                      "nothing is written where classes do; needs --photos")  # fmt: skip
    more.add_argument("--photos", type=Path, metavar="DIR",
                      help="photos such as it will see, to tell what fp16 changes")  # fmt: skip
    more.add_argument("--import", dest="modules", metavar="MODULE", action="append", default=[],
                      help="Python module, in PYTHONPATH, that registers networks of your own; "
                      "see models/registry.py")  # fmt: skip
    more.add_argument("--trust", action="store_true", help=_TRUST)


def run(options: argparse.Namespace) -> int:
    """Export; 0 when the artifact was written, 1 when it was not, 2 when used wrongly."""
    try:
        for module in options.modules:
            registry.import_networks(module)
        changes = _changes(options)
        described = describe(options.network, changes)
        if options.version is not None and options.version < 1:
            raise DescriptionError("--version must be a positive integer")
        if kind_of(options.network) == "program" and not options.trust:
            raise DescriptionError(NEEDS_TRUST.format(options.network))
        if options.precision == "fp16" and options.photos is None:
            raise DescriptionError("--precision fp16 needs --photos DIR, to tell what it changes")
        photos = find_photos(options.photos) if options.precision == "fp16" else ()
    except ExportError as exc:
        print(f"anypool export: {exc}", file=sys.stderr)
        return 2
    except ValueError as exc:  # UnknownNetworkError, SwapError, DescriptionError, LabelsError
        print(f"anypool export: {exc}", file=sys.stderr)
        return 2
    name = described.name
    if kind_of(options.network) != "registered":
        print(f"{name}  images: {described.preprocessing.words()}; {described.activation}",
              file=sys.stderr)  # fmt: skip
    bar = tqdm(
        total=6 if options.precision == "fp16" else 5,
        desc=name,
        bar_format="{desc}{bar} {elapsed}",
        disable=None,  # no bar where no terminal is
    )
    sizes = 0

    def step(what: str) -> None:
        bar.write(f"{name}  {what}", file=sys.stderr)
        bar.update()

    def case(result: Case) -> None:
        nonlocal sizes
        sizes += 1
        bar.set_description(f"{name} {sizes} sizes, last {result.size}")

    try:
        with bar:
            folder = export(
                options.network,
                options.out,
                Progress(step, case),
                version=options.version,
                changes=changes,
                modules=options.modules,
                trust=options.trust,
                photos=photos,
            )
    except VerificationError as exc:
        print(f"\nnot written: {exc}\n{_table(exc.cases)}", file=sys.stderr)
        if exc.drift is not None:
            print(f"layer by layer: {exc.drift}", file=sys.stderr)
        for decision in exc.decisions:
            print(f"forward decides by the size, and the graph keeps one answer: {decision}. "
                  "Reckon with the size instead of asking for it", file=sys.stderr)  # fmt: skip
        return 1
    except VersionExistsError as exc:
        print(f"anypool export: {exc}", file=sys.stderr)
        return 2
    except ExportError as exc:
        print(f"\nnot written: {exc}", file=sys.stderr)
        return 1
    print(folder)
    return 0


def _changes(options: argparse.Namespace) -> Changes:
    return Changes(
        name=options.name,
        weights=options.weights,
        swap=_swap(options),
        labels=None if options.labels is None else read_labels(options.labels),
        channels=options.channels,
        mean=None if options.mean is None else parse_numbers(options.mean),
        std=None if options.std is None else parse_numbers(options.std),
        resize=options.resize,
        filter=options.filter,
        activation=options.activation,
        precision=options.precision,
    )


def _swap(options: argparse.Namespace) -> Swap | None:
    if options.pool is None:
        if options.pool_arguments:
            raise SwapError("--pool-arg needs --pool")
        return None
    return Swap.parse(options.pool, options.pool_arguments)


def _table(cases: list[Case]) -> str:
    failed = [case for case in cases if not case.ok]
    rows = [f"{'n×h×w':>14}  {'error':>9}  {'allowed':>9}  problem"]
    rows += [
        f"{case.size:>14}  {case.error:9.2e}  {case.tolerance:9.2e}  "
        f"{' '.join(str(case.problem).split())[:_WIDTH]}"
        for case in failed[:_ROWS]
    ]
    more = len(failed) - _ROWS
    return "\n".join([*rows, f"{f'and {more} more':>14}"] if more > 0 else rows)
