"""How far two artifacts of one network agree on photos, as they are served.

`python -m service.agreement ONE OTHER SEEN PHOTO…` prints it as JSON.
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.card import Drift
from service.app import create_classifier, create_scheduler
from service.classify import Options, Picture
from service.engine import Engine
from service.images import Pixels
from service.scores import Scores
from service.settings import Settings


class _Keeping(Engine):
    """Writes each image that it runs (h, w, c) to the folder `seen`, as 00000.npy and on."""

    seen: Path

    def run(self, pictures: Sequence[Pixels], *others: Any, **named: Any) -> Scores:
        for picture in pictures:
            np.save(self.seen / f"{len(list(self.seen.iterdir())):05d}.npy", picture)
        return super().run(pictures, *others, **named)


def agreement(one: Path, other: Path, photos: Sequence[Path], seen: Path) -> Drift:
    """Of how many photos both give the same class, and the largest difference of probabilities.

    seen: an empty folder for the photos as the network gets them
    Raises CardError, EngineError, and what is wrong with a photo.
    """
    first, second = _Keeping(one, "cpu"), Engine(other, "cpu")
    first.seen = seen
    wanted, got = (asyncio.run(_probabilities(engine, photos)) for engine in (first, second))
    apart = np.abs(got - wanted).max(1)  # (n,)
    return Drift(
        photos=len(photos),
        agreement=float((got.argmax(1) == wanted.argmax(1)).mean()),
        worst=float(apart.max()),
        worst_photo=photos[int(apart.argmax())].name,
    )


async def _probabilities(engine: Engine, photos: Sequence[Path]) -> NDArray[np.float32]:
    """Of each photo (n, k), resized as the card says."""
    settings = Settings(provider="cpu")
    scheduler = create_scheduler(settings)
    classifier = create_classifier(settings, scheduler)
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
    first, second, seen, *files = map(Path, sys.argv[1:])
    sys.stdout.write(agreement(first, second, files, seen).model_dump_json() + "\n")
