"""Work on bytes, off the event loop where that pays."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_QUICK_BYTES = 16_000  # at worst, a PNG full of compressed texts, 30 ms


async def parsed(work: Callable[[], T], size: int) -> T:
    """The result of `work`, which parses `size` bytes: at once if few, since a thread would take
    longer than the parsing; otherwise on a thread. Raises what `work` raises."""
    return work() if size <= _QUICK_BYTES else await asyncio.to_thread(work)
