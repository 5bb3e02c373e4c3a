"""`anypool verify`"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from models.card import CardError
from service.engine import Engine
from service.failures import EngineError
from service.golden import GoldenError, check


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.add_argument("artifact", type=Path, help="artifact folder: the one with card.json in it")
    parser.add_argument("--provider", choices=("auto", "cpu", "cuda"), default="auto",
                        help="execution provider to check on (default: auto)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object a size")


def run(options: argparse.Namespace) -> int:
    """Compare size by size with torch, and batches with their images alone; 0 if all agree."""
    failed = total = 0
    try:
        engine = Engine(options.artifact, options.provider, batching="mixed")
        for case in check(engine, options.artifact):
            total += 1
            failed += case.problem is not None
            if options.json:
                print(json.dumps(asdict(case)), flush=True)
            else:
                mark = case.problem or "ok"
                print(
                    f"{case.error:9.2e} of {case.tolerance:.0e}  {case.kind:7} {case.size}  {mark}"
                )
    except (CardError, EngineError, GoldenError) as exc:
        print(f"anypool verify: {exc}", file=sys.stderr)
        return 1
    if not options.json:
        print(f"{total - failed} of {total} comparisons agree on {engine.provider}")
        if engine.card.mixed.reason:
            print(f"images of different sizes run apart: {engine.card.mixed.reason}")
    return 1 if failed or not total else 0
