"""`anypool tune`"""

import argparse
import os
import sys
from pathlib import Path

from models.card import Card, CardError
from service.failures import EngineError
from service.folders import StoreError, check_inside
from service.sessions import Gpu, Provider
from service.settings import Settings, granted_cores
from service.speed import Speed
from service.trials import Row, Size, Way, compare, knobs, usual_sizes
from service.tuning import FILE, Tuning, host


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.add_argument("artifact", type=Path, help="artifact folder: the one with card.json in it")
    parser.add_argument("--provider", choices=("auto", "cpu", "cuda"),
                        help="(default: as for serve)")  # fmt: skip
    parser.add_argument("--devices", metavar="N,…",
                        help="numbers of the GPUs (default: as for serve)")  # fmt: skip
    parser.add_argument("--sizes", type=_sizes, metavar="HxW,…",
                        help="of the images, as the network gets them, such as 64x48,320x213 "
                        "(default: what its resize policy makes of usual photos)")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=1.0,
                        help="of each measurement (default: %(default)s)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5,
                        help="of which the median counts (default: %(default)s)")  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="FILE",
                        help=f"(default: the artifact's {FILE}, which serve reads)")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Measure, print a table, and write down what was best."""
    path = options.output or options.artifact / FILE
    try:
        if not os.access(path.parent, os.W_OK):  # better now than after all the measuring
            raise PermissionError(f"{path.parent} cannot be written to; choose another --output")
        given = {name: getattr(options, name) for name in ("provider", "devices")}
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
        tuning = _tune(options, settings.provider, Gpu(settings.numbers_of_devices))
        path.write_text(tuning.model_dump_json(indent=1, exclude_none=True) + "\n", "utf-8")
    except (StoreError, CardError, EngineError, OSError, ValueError) as exc:
        print(f"anypool tune: {exc}", file=sys.stderr)
        return 1
    print(path)
    return 0


def _tune(options: argparse.Namespace, provider: Provider, gpu: Gpu) -> Tuning:
    check_inside(options.artifact, options.artifact)
    card, cores = Card.load(options.artifact / "card.json"), granted_cores()
    here = host(options.artifact, provider, gpu)
    sizes: list[Size] = options.sizes or usual_sizes(card)
    for height, width in sizes:
        if not card.limits.allow(height, width):
            raise ValueError(f"--sizes: the network does not take {height}×{width}")
    on_gpu = here.provider == "cuda"
    tried = knobs(card, on_gpu, cores, sizes)
    measure = Speed(options.artifact, provider, gpu, sizes, options.seconds)
    print(f"{here.device}, {cores} cores, ONNX Runtime {here.onnxruntime}; images/s, "
          f"median of {options.rounds} rounds (slowest, fastest)")  # fmt: skip
    best = Way(cores, batching="auto" if card.mixed.supported else "equal")
    fastest = 0.0
    for chosen, rows in compare(best, tried, measure, max(1, options.rounds)):
        best, fastest = chosen, next(row.median for row in rows if row.chosen)
        for row in rows:
            print(_line(row), flush=True)
    return Tuning(
        host=here,
        images_per_s=round(fastest, 1),
        sizes=tuple(sizes),
        **{knob: getattr(best, knob) for knob, _ in tried},
    )


def _line(row: Row) -> str:
    mark = "*" if row.chosen else " "
    return (
        f"{mark} {row.knob:16} {row.median:9.1f} ({row.slowest:.1f}, {row.fastest:.1f})"
        f"  {row.value}"
    )


def _sizes(text: str) -> list[Size]:
    try:
        pairs = [part.split("x") for part in text.split(",")]
        return [(int(height), int(width)) for height, width in pairs]
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 64x48,320x213") from exc
