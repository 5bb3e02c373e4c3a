"""What the routes work with."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from fastapi import Request

from service.classify import Classifier
from service.errors import Draining, NotReady, Unavailable
from service.keys import Client, Keys
from service.metrics import Metrics
from service.scheduler import Scheduler
from service.settings import Settings
from service.shares import Shares
from service.statistics import Statistics
from service.store import Store
from service.work import lost
from service.workers import Place

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
    place: Place | None = None  # under a supervisor
    traces: "Traces | None" = None
    active: int = 0  # requests being answered
    draining: bool = False
    drain_begun: float = 0.0  # on the monotonic clock
    problem: str | None = None  # why loading failed
    # One thread for all that changes the store: those that wait for each other hold up nobody else.
    _changing: ThreadPoolExecutor = field(
        default_factory=partial(ThreadPoolExecutor, 1), init=False
    )

    async def with_store(self, change: Callable[[], None]) -> None:
        """Run a change of the store off the event loop; raises what it raises, and Draining."""
        changing = asyncio.get_running_loop().run_in_executor(self._changing, change)
        try:
            await changing
        except asyncio.CancelledError:
            if changing.cancelled() and self.draining:
                raise _draining() from None
            raise

    def close_store(self) -> None:
        """Give up what is being loaded, and what waits to be."""
        self.store.close()
        self._changing.shutdown(wait=False, cancel_futures=True)

    def is_ready(self) -> bool:
        """Whether images can be classified now."""
        try:
            self.ensure_ready()
        except Unavailable:
            return False
        return True

    def ensure_ready(self) -> None:
        """Raise Draining or NotReady unless images can be classified now."""
        if self.scheduler.broken:
            raise lost(", ".join(self.scheduler.broken))
        if self.draining:
            raise _draining()
        if not self.store.ready:
            if self.problem is not None:
                raise NotReady(f"no model could be loaded: {self.problem}", retry_after=30)
            raise NotReady("the model is being loaded; try again in a second")
        if self.scheduler.lost:
            raise NotReady("a worker hangs, and the service restarts; try again", retry_after=5)


def _draining() -> Draining:
    return Draining("the service is shutting down; send the request to another one")


async def service(request: Request) -> Service:
    """The parts, for a route."""
    parts: Service = request.app.state.service
    return parts


async def client(request: Request) -> Client | None:
    """Whose key came with the request; None when there are no keys."""
    found: Client | None = request.state.client
    return found
