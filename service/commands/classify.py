"""`anypool classify`"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from models.card import CardError
from service.app import create_classifier, create_scheduler
from service.classify import Classifier, Options, Picture
from service.engine import Engine
from service.errors import AnypoolError, BadParameter
from service.failures import EngineError
from service.folders import StoreError, check_inside, default_model, find
from service.outcome import Outcome
from service.settings import Settings

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic",
             ".heif"}  # fmt: skip
_AT_ONCE = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH",
                        help="image files, and folders to search for them")  # fmt: skip
    parser.add_argument("--artifacts", type=Path, default=Settings().artifacts, metavar="DIR",
                        help="store (default: %(default)s)")  # fmt: skip
    parser.add_argument("--model", help="name of the model (default: the store's default)")
    parser.add_argument("--top-k", type=int,
                        help="(default: 5; 100 with --threshold)")  # fmt: skip
    parser.add_argument("--threshold", type=_probability, metavar="T",
                        help="all classes at least that probable, of a model whose classes do not "
                        "exclude each other")  # fmt: skip
    parser.add_argument("--resize", choices=("fit", "limit", "native"),
                        help="(default: as the model's card says)")  # fmt: skip
    parser.add_argument("--size", type=int, help="longest side in pixels, for fit and limit; "
                        "shortest where the card says short")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object a file")


def run(options: argparse.Namespace) -> int:
    """Classify; 0 when every file was, 1 when some were not."""
    files = list(_files(options.paths))
    missing = [path for path in options.paths if not path.exists()]
    if missing or not files:
        what = ", ".join(str(path) for path in missing) or "no image files in these folders"
        print(f"anypool classify: not found: {what}", file=sys.stderr)
        return 2
    asked = Options(
        top_k=None if options.top_k is None else max(1, options.top_k),
        policy=options.resize,
        size=options.size,
        threshold=options.threshold,
    )
    settings = Settings(artifacts=options.artifacts, model=options.model)
    try:
        found = find(settings.artifacts)
        versions = found[default_model(sorted(found), settings.model, settings.artifacts)]
        check_inside(settings.artifacts, versions[max(versions)])
        engine = Engine(versions[max(versions)], settings.provider)
        return asyncio.run(_classify(settings, engine, files, asked, options.json))
    except (StoreError, CardError, EngineError, AnypoolError) as exc:
        print(f"anypool classify: {exc}", file=sys.stderr)
        return 2 if isinstance(exc, BadParameter) else 1


def _probability(text: str) -> float:
    if not 0 <= (value := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES)
        elif path.exists():
            yield path


async def _classify(
    settings: Settings, engine: Engine, files: list[Path], options: Options, as_json: bool
) -> int:
    scheduler = create_scheduler(settings)
    classifier = create_classifier(settings, scheduler)
    failed = 0
    with tqdm(total=len(files), unit="image", disable=None) as bar:
        for first in range(0, len(files), _AT_ONCE):
            for outcome in await _chunk(
                classifier, engine, files[first : first + _AT_ONCE], options
            ):
                failed += outcome.error is not None
                bar.write(_json(outcome) if as_json else _line(outcome), file=sys.stdout)
                bar.update()
    scheduler.close()
    return 1 if failed else 0


async def _chunk(
    classifier: Classifier, engine: Engine, files: list[Path], options: Options
) -> list[Outcome]:
    pictures = [Picture(str(path), path.read_bytes()) for path in files]
    return await classifier.classify(engine, pictures, options)


def _line(outcome: Outcome) -> str:
    if outcome.result is None:
        return f"{outcome.name}: {outcome.error}"
    best = ", ".join(f"{p.label} {p.probability:.3f}" for p in outcome.result.predictions)
    return f"{outcome.name}: {best or 'no class'}"


def _json(outcome: Outcome) -> str:
    if outcome.result is None:
        assert outcome.error is not None
        error = {"type": outcome.error.type, "detail": outcome.error.detail}
        return json.dumps({"name": outcome.name, "error": error})
    result = outcome.result
    return json.dumps(
        {
            "name": outcome.name,
            "input": {"width": result.source.width, "height": result.source.height},
            "used": {"width": result.used.width, "height": result.used.height},
            "resize": result.policy,
            "predictions": [
                {"index": p.index, "id": p.id, "label": p.label, "probability": p.probability}
                for p in result.predictions
            ],
        }
    )
