"""`anypool compare`: the same network with other poolings, on labelled photos of several sizes."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError
from tqdm import tqdm

from export.artifact import next_version
from export.description import Changes, describe
from export.errors import ExportError
from export.pipeline import Progress, export
from models import registry
from models.card import Card, CardError
from models.pool import POOLS
from models.swap import Swap

Table = dict[str, list[float]]  # accuracy by pooling, one for each size


class Truth(BaseModel):
    """A photo, relative to its manifest, and the class indices that count as right."""

    file: Path
    truth: list[int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command; called when `compare` is the command that was asked for."""
    parser.add_argument("network", nargs="?", default="efficientnet_lite0", metavar="NAME",
                        help="network to put the poolings into (default: %(default)s)")  # fmt: skip
    parser.add_argument("--pools", default="avg,max,gem,mixed,spp", metavar="POOL,…",
                        help=f"of: {', '.join(POOLS)} (default: %(default)s)")  # fmt: skip
    parser.add_argument("--sizes", default="224,320,640,1024", metavar="PIXELS,…",
                        help="longest sides to resize to (default: %(default)s)")  # fmt: skip
    parser.add_argument("--truth", type=Path, required=True, metavar="FILE",
                        help='JSON list of {"file": "panda.webp", "truth": [388]}: photos beside '
                        "it, and the class indices that count as right")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("build/compare"), metavar="DIR",
                        help="where artifacts and the plot go; artifacts that are there "
                        "already are used again (default: %(default)s)")  # fmt: skip
    parser.add_argument("--no-plot", action="store_true",
                        help="only the table: needs no matplotlib")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Compare; 0 done, 1 when an export or a photo failed, 2 used wrongly."""
    try:
        pools = [Swap.parse(name, []) for name in options.pools.split(",")]
        sizes = [int(size) for size in options.sizes.split(",")]
        if min(sizes) < 1:
            raise ValueError("sizes are pixels, 1 or more")
        photos = TypeAdapter(list[Truth]).validate_json(options.truth.read_bytes())
        if not photos:
            raise ValueError(f"{options.truth} lists no photos")
        registry.get(options.network)
    except (ValidationError, OSError) as exc:
        print(f"anypool compare: {options.truth} cannot be used: {exc}", file=sys.stderr)
        return 2
    except ValueError as exc:
        print(f"anypool compare: {exc}", file=sys.stderr)
        return 2
    if not options.no_plot and find_spec("matplotlib") is None:
        print("anypool compare: the plot needs the extra plot: pip install 'anypool[plot]'; "
              "or say --no-plot", file=sys.stderr)  # fmt: skip
        return 2
    try:
        table = _measure(options.network, pools, sizes, options.truth.parent, photos, options.out)
    except (ExportError, CardError, _ClassifyError) as exc:
        print(f"anypool compare: {exc}", file=sys.stderr)
        return 1
    print(_text(table, sizes, len(photos)))
    if not options.no_plot:
        file = options.out / f"{options.network}.png"
        _plot(table, sizes, f"{options.network}, {len(photos)} photos", file)
        print(file)
    return 0


class _ClassifyError(Exception):
    """Photos that could not be classified, and why."""


def _measure(
    network: str,
    pools: Sequence[Swap],
    sizes: Sequence[int],
    folder: Path,
    photos: Sequence[Truth],
    out: Path,
) -> Table:
    table: Table = {}
    with tqdm(total=len(pools) * (1 + len(sizes)), unit="step", disable=None) as bar:
        for swap in pools:
            bar.set_description(f"{swap.pool}, export")
            model = _artifact(network, swap, out)
            bar.update()
            table[swap.pool] = []
            for size in sizes:
                bar.set_description(f"{swap.pool} at {size}")
                table[swap.pool].append(_accuracy(out, model, folder, photos, size))
                bar.update()
    return table


def _artifact(network: str, swap: Swap, out: Path) -> str:
    """The name of the network with that pooling in the store `out`, exported if need be."""
    changes = Changes(swap=swap)
    wanted = describe(network, changes)
    newest = out / wanted.name / str(next_version(out, wanted.name) - 1) / "card.json"
    if not newest.exists() or Card.load(newest).pooling != wanted.pooling:
        quiet = Progress(step=lambda _: None, case=lambda _: None)
        export(network, out, quiet, changes=changes)
    return wanted.name


def _accuracy(out: Path, model: str, folder: Path, photos: Sequence[Truth], size: int) -> float:
    """The part of the photos whose most probable class is right, through `anypool classify`."""
    command = [sys.executable, "-P", "-m", "service.cli", "classify", "--json", "--top-k=1"]
    command += [f"--artifacts={out}", f"--model={model}", "--resize=fit", f"--size={size}"]
    command += [str(folder / photo.file) for photo in photos]
    roomy = {"ANYPOOL_MAX_SIDE": str(size), "ANYPOOL_MAX_MEGAPIXELS": str(size * size / 1e6 + 1)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | roomy
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for answer in answers:
        if "error" in answer:
            error = answer["error"]
            raise _ClassifyError(f"{answer['name']}: {error['type']}: {error['detail']}")
    if done.returncode != 0:
        raise _ClassifyError(done.stderr.strip())
    best = [answer["predictions"][0]["index"] for answer in answers]
    right = [index in photo.truth for index, photo in zip(best, photos, strict=True)]
    return sum(right) / len(right)


def _text(table: Table, sizes: Sequence[int], photos: int) -> str:
    width = max(map(len, table))
    rows = [f"{f'of {photos}':{width}}" + "".join(f"{size:>7}" for size in sizes)]
    rows += [
        f"{pool:{width}}" + "".join(f"{accuracy:7.3f}" for accuracy in accuracies)
        for pool, accuracies in table.items()
    ]
    return "\n".join(rows)


def _plot(table: Table, sizes: Sequence[int], title: str, file: Path) -> None:
    from matplotlib.figure import Figure  # an extra, and slow to import

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for pool, accuracies in table.items():
        axes.plot(sizes, accuracies, marker="o", label=pool)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    axes.set_xlabel("longest side, pixels")
    axes.set_ylabel("top-1 accuracy")
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=150)
