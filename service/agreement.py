"""How far two artifacts of one network agree on photos, as they are served.

`python -m service.agreement ONE OTHER PHOTO…` prints it as JSON.
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.card import Drift
from service.app import create_classifier, create_scheduler
from service.classify import Options, Picture
from service.engine import Engine
from service.settings import Settings


def agreement(one: Path, other: Path, photos: Sequence[Path]) -> Drift:
    """Of how many photos both give the same class, and the largest difference of probabilities.

    Raises CardError, EngineError, and what is wrong with a photo.
    """
    wanted, got = (asyncio.run(_probabilities(folder, photos)) for folder in (one, other))
    apart = np.abs(got - wanted).max(1)  # (n,)
    return Drift(
        photos=len(photos),
        agreement=float((got.argmax(1) == wanted.argmax(1)).mean()),
        worst=float(apart.max()),
        worst_photo=photos[int(apart.argmax())].name,
    )


async def _probabilities(folder: Path, photos: Sequence[Path]) -> NDArray[np.float32]:
    """Of each photo (n, k), resized as the card says."""
    settings = Settings(provider="cpu")
    scheduler = create_scheduler(settings)
    engine, classifier = Engine(folder, "cpu"), create_classifier(settings, scheduler)
    rows = []
    for photo in photos:
        picture = Picture(photo.name, photo.read_bytes())
        (outcome,) = await classifier.classify(engine, [picture], Options())
        if outcome.result is None:
            raise SystemExit(f"{photo}: {outcome.error}")
        rows.append(outcome.result.scores.probabilities)
    scheduler.close()
    return np.concatenate(rows)


if __name__ == "__main__":
    first, second, *files = map(Path, sys.argv[1:])
    sys.stdout.write(agreement(first, second, files).model_dump_json() + "\n")
