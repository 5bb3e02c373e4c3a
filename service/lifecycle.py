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
_RETRY_S = 5.0  # between two attempts of one of several workers to load
_ONCE_S = 1.0  # signals that come together are one: of a terminal, and then of the supervisor
_PATIENCE_S = 10.0  # without anybody to answer; Kubernetes gives a pod up after 30
_HANG_S = 3.0  # for a run that was told to stop; then the process is replaced
_HUNG = 70  # exit code
_IDLE_S = 5.0  # without work; then memory that large images took is given back


@asynccontextmanager
async def lifespan(parts: Service) -> AsyncIterator[None]:
    """Load, and watch while the block listens; in the end let go."""
    loading = asyncio.create_task(_keep_loading(parts))
    watches = [_end_with_parent(parts.place), _end_hung(parts), _tidy_when_idle(parts)]
    if parts.settings.workers > 1:
        watches.append(_publish(parts))
    if parts.settings.watch_s:
        watches.append(_follow_the_disk(parts))
    watching = [asyncio.create_task(watch) for watch in watches]
    _drain_on_signal(parts)
    await _time_to_listen(parts)
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


async def _keep_loading(parts: Service) -> None:
    """One of several workers tries again: it would be the one that never answers."""
    await _load(parts)
    while parts.settings.workers > 1 and parts.problem is not None:
        await asyncio.sleep(_RETRY_S)
        await _load(parts, again=True)


async def _load(parts: Service, *, again: bool = False) -> None:
    try:
        await parts.with_store(partial(parts.store.load, again=again))
        parts.problem = None
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


async def _time_to_listen(parts: Service) -> None:
    """Return when this worker should: until then other workers take who comes, or the socket keeps
    them. Where nobody else serves that must not last: somebody has to say what is wrong."""
    listen = "at-once" if parts.place is None else parts.place.listen
    give_up = time.monotonic() + _PATIENCE_S
    while listen != "at-once" and not (parts.is_ready() or parts.draining):
        if listen == "soon" and (parts.problem is not None or time.monotonic() > give_up):
            return
        await asyncio.sleep(_LOOK_S)


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
        place.folder.remove()
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
        elif parts.settings.workers > 1:
            break
    if lost := parts.scheduler.broken:
        logger.critical("%s lost; replacing the process", ", ".join(lost))
    else:
        logger.critical("%d workers hang; replacing the process", parts.scheduler.lost)
    if parts.settings.workers > 1 and parts.place is not None:
        parts.place.folder.replace(os.getpid())  # the others take who comes, from now on
        os.kill(os.getpid(), signal.SIGTERM)
        return
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
    replaced = parts.place is not None and parts.place.folder.is_replaced(os.getpid())
    if parts.draining and time.monotonic() - parts.drain_begun < _ONCE_S:
        return
    if parts.draining or replaced:
        stop(signum, frame)
    else:
        parts.draining, parts.drain_begun = True, time.monotonic()
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
