"""What the routes work with."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import Request

from service.classify import Classifier
from service.errors import Draining, NotReady
from service.keys import Client, Keys
from service.metrics import Metrics
from service.scheduler import Scheduler
from service.settings import Settings
from service.shares import Shares
from service.statistics import Statistics
from service.store import Store

if TYPE_CHECKING:
    from service.traces import Traces


@dataclass(slots=True)
class Service:
    """All parts of a running service, joined in app.py."""

    settings: Settings
    store: Store
    scheduler: Scheduler
    classifier: Classifier
    metrics: Metrics
    statistics: Statistics
    bodies: Shares  # encoded bytes of requests that are not answered yet
    keys: Keys | None = None  # None: whoever asks is answered
    traces: "Traces | None" = None
    active: int = 0  # requests being answered
    draining: bool = False
    problem: str | None = None  # why loading failed

    def ensure_ready(self) -> None:
        """Raise Draining or NotReady unless images can be classified now."""
        if self.draining:
            raise Draining("the service is shutting down; send the request to another one")
        if not self.store.ready:
            if self.problem is not None:
                raise NotReady(f"no model could be loaded: {self.problem}", retry_after=30)
            raise NotReady("the model is being loaded; try again in a second")
        if self.scheduler.lost:
            raise NotReady("a worker hangs, and the service restarts; try again", retry_after=5)


async def service(request: Request) -> Service:
    """The parts, for a route."""
    parts: Service = request.app.state.service
    return parts


async def client(request: Request) -> Client | None:
    """Whose key came with the request; None when there are no keys."""
    found: Client | None = request.state.client
    return found
