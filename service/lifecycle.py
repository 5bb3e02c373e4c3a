"""From start to end: loading, what is watched meanwhile, draining."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import FrameType

from service.api.deps import Service
from service.failures import DeviceLost
from service.folders import StoreError
from service.workers import Place

logger = logging.getLogger(__name__)

_WATCH_S = 1.0
_LOOK_S = 0.02
_HANG_S = 3.0  # for a run that was told to stop; then the process is replaced
_HUNG = 70  # exit code
_IDLE_S = 5.0  # without work; then memory that large images took is given back


@asynccontextmanager
async def lifespan(parts: Service) -> AsyncIterator[None]:
    """Load, and watch while the block listens; in the end let go."""
    loading = asyncio.create_task(_load(parts))
    watches = [_end_with_parent(parts.place), _end_hung(parts), _tidy_when_idle(parts)]
    if parts.settings.workers > 1:
        watches.append(_publish(parts))
    if parts.settings.watch_s:
        watches.append(_follow_the_disk(parts))
    watching = [asyncio.create_task(watch) for watch in watches]
    _drain_on_signal(parts)
    if parts.place is not None and not parts.place.first:
        await _ready(parts)
    try:
        yield
    finally:
        loading.cancel()
        for task in watching:
            task.cancel()
        parts.scheduler.close()
        parts.close_store()
        parts.statistics.publish()
        parts.metrics.close()
        await _send_traces(parts)


async def _send_traces(parts: Service) -> None:
    if parts.traces is not None:
        await asyncio.to_thread(parts.traces.close)


async def _load(parts: Service) -> None:
    try:
        await parts.with_store(parts.store.load)
    except StoreError as exc:
        parts.problem = str(exc)
        logger.error("not ready: %s", exc)
        return
    except DeviceLost as exc:
        parts.problem = f"a GPU is lost, and the service restarts: {exc}"
        logger.critical("not ready, replacing the process: %s", exc)
        await asyncio.sleep(_HANG_S)  # so that it can be read why
        os._exit(_HUNG)
    except Exception:
        parts.problem = "an error that nobody foresaw; the service's log has it"
        logger.exception("not ready")
        return
    logger.info("ready")


async def _ready(parts: Service) -> None:
    """Return when images can be classified: until then other workers take all requests, or the
    socket keeps them. One that is alone and cannot load must say so instead."""
    while not (parts.is_ready() or parts.draining):
        await asyncio.sleep(_LOOK_S)
        if parts.problem is not None:
            if parts.settings.workers == 1:
                return
            parts.problem = None
            await asyncio.sleep(_WATCH_S)
            await _load(parts)


async def _publish(parts: Service) -> None:
    """Keep the other workers posted: whoever is asked answers for all."""
    while True:
        parts.metrics.refresh()
        parts.statistics.publish()
        await asyncio.sleep(_WATCH_S)


async def _follow_the_disk(parts: Service) -> None:
    while True:
        await asyncio.sleep(parts.settings.watch_s)
        if parts.draining:
            return
        try:
            await parts.with_store(parts.store.refresh)
        except Exception:  # whatever lies on the disk, the next look may find it mended
            logger.exception("the store could not be looked at")


async def _end_with_parent(place: Place | None) -> None:
    """Stop this worker when its supervisor is gone: nobody would ever stop it."""
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(_WATCH_S)
    logger.warning("the supervisor is gone; stopping")
    if place is not None:
        place.remove()
    os.kill(os.getpid(), signal.SIGTERM)


async def _end_hung(parts: Service) -> None:
    """End this process when a worker hangs for good, or a GPU is lost: the supervisor replaces it.

    What other workers still do is answered first. A thread that hangs would keep the process from
    ending by itself; and CUDA keeps a GPU's error for as long as the process lives.
    """
    since = time.monotonic()
    while not parts.scheduler.broken and time.monotonic() - since < _HANG_S:
        await asyncio.sleep(_WATCH_S)
        if not parts.scheduler.lost:
            since = time.monotonic()
    if lost := parts.scheduler.broken:
        logger.critical("%s lost; replacing the process", ", ".join(lost))
    else:
        logger.critical("%d workers hang; replacing the process", parts.scheduler.lost)
    parts.draining = True
    await _answered(parts)
    await _send_traces(parts)
    os._exit(_HUNG)


def _drain_on_signal(parts: Service) -> None:
    """On SIGTERM and SIGINT first finish what was accepted, then let the server stop.

    While draining the server still listens, so that new requests get a clear 503 instead of a
    connection that nobody answers. A second signal stops at once. A worker that is to be replaced
    stops listening at once: the others take what comes.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # an embedded app, a test client: signals are not ours
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        stop = signal.getsignal(signum)  # uvicorn's own handler, installed just before
        if callable(stop):
            signal.signal(signum, partial(_on_signal, parts, loop, stop))


def _on_signal(
    parts: Service,
    loop: asyncio.AbstractEventLoop,
    stop: Callable[[int, FrameType | None], object],
    signum: int,
    frame: FrameType | None,
) -> None:
    replaced = signum == signal.SIGTERM and parts.place is not None and not parts.place.ends
    if parts.draining or replaced:
        stop(signum, frame)
    else:
        parts.draining = True
        loop.call_soon_threadsafe(lambda: loop.create_task(_drain(parts, partial(stop, signum))))


async def _drain(parts: Service, stop: Callable[[FrameType | None], object]) -> None:
    logger.info("draining: %d requests are being answered", parts.active)
    await _answered(parts)
    stop(None)


async def _tidy_when_idle(parts: Service) -> None:
    since = time.monotonic()
    while True:
        await asyncio.sleep(_WATCH_S)
        if not parts.scheduler.idle:
            since = time.monotonic()
        elif time.monotonic() - since > _IDLE_S:
            await _tidy(parts)


async def _tidy(parts: Service) -> None:
    """Apart from the loop above, where `engine` would live on and with it an unloaded one."""
    for engine in parts.store:
        await asyncio.to_thread(engine.give_back_memory)


async def _answered(parts: Service) -> None:
    """Return when all requests are answered, or the time for that is over."""
    parts.close_store()  # nobody waits for what is still being loaded
    try:
        async with asyncio.timeout(parts.settings.drain_s):
            while parts.active:
                await asyncio.sleep(0.02)
    except TimeoutError:
        logger.error(
            "%d requests were not answered within %g s", parts.active, parts.settings.drain_s
        )
