"""From a request's images to their outcomes, whatever the protocol; counted on the way."""

import time
from collections.abc import Sequence

from fastapi import Request

from service.api.deps import Service, client
from service.api.disconnect import unless_gone
from service.classify import Options, Picture, Raster
from service.engine import Engine
from service.errors import AnypoolError
from service.facts import Facts, longest
from service.outcome import Outcome


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
    facts: Facts = request.state.facts
    facts.images = len(pictures)
    begun = time.monotonic()
    try:
        found = await unless_gone(
            request, parts.classifier.classify(engine, pictures, options, await client(request))
        )
    except AnypoolError as exc:
        parts.metrics.rejected(engine.card.name, exc, len(pictures))
        parts.statistics.refused(model, time.monotonic() - begun)
        raise
    facts.outcomes, facts.longest = found, longest(found)
    for outcome in found:
        parts.metrics.image(engine.card.name, outcome)
    parts.statistics.answered(model, found, time.monotonic() - begun)
    return found


def engine_of(request: Request, parts: Service, name: str | None, version: str | None) -> Engine:
    """The engine that a request asks for, noted for its log line. Raises NotReady, NotFound, …"""
    parts.ensure_ready()
    engine = parts.store.get(name, version)
    facts: Facts = request.state.facts
    facts.model, facts.version = engine.card.name, str(engine.card.version)
    return engine
