"""From a request's images to their outcomes, whatever the protocol; counted on the way."""

import time
from collections.abc import Sequence

from fastapi import Request

from service.api.deps import Service
from service.api.disconnect import unless_gone
from service.classify import Options, Outcome, Picture, Raster
from service.engine import Engine
from service.errors import AnypoolError


async def outcomes(
    request: Request,
    parts: Service,
    engine: Engine,
    pictures: Sequence[Picture | Raster],
    options: Options,
) -> list[Outcome]:
    """One outcome for each picture, in order; the work ends when the client goes away.

    Raises what `Classifier.classify` raises, and ClientDisconnect.
    """
    model = engine.card.name, engine.card.version
    begun = time.monotonic()
    try:
        found = await unless_gone(request, parts.classifier.classify(engine, pictures, options))
    except AnypoolError as exc:
        parts.metrics.rejected(engine.card.name, exc, len(pictures))
        parts.statistics.refused(model, time.monotonic() - begun)
        raise
    for outcome in found:
        parts.metrics.image(engine.card.name, outcome)
    parts.statistics.answered(model, found, time.monotonic() - begun)
    return found
