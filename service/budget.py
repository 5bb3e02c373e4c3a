"""How many pixels a client may have classified in a while: a bucket that refills steadily."""

import math
import time
from collections.abc import Callable

from service.errors import RateLimited, TooManyPixels
from service.workers import Number

_ROUNDING_S = 1e-6


class Budget:
    """`pixels_per_s` for ever, and up to `burst_pixels` at once."""

    def __init__(
        self,
        pixels_per_s: float,
        burst_pixels: float,
        clock: Callable[[], float] = time.monotonic,
        full_at: Number | None = None,
    ) -> None:
        """full_at: when all that was spent will have come back, kept with other workers."""
        self._rate = pixels_per_s
        self._burst = burst_pixels
        self._clock = clock
        self._full_at = full_at or Number()

    def spend(self, pixels: int) -> None:
        """Take `pixels` all at once or not at all.

        Raises RateLimited, whose `retry_after` is when they will be there, and TooManyPixels when
        they never will.
        """
        if pixels > self._burst:
            raise TooManyPixels(
                f"the request's images have {pixels / 1e6:.1f} megapixels together; your key may "
                f"spend {self._burst / 1e6:g} at once. Send fewer or smaller images at once"
            )
        with self._full_at as kept:
            now = self._clock()
            full_at = max(kept.value, now) + pixels / self._rate
            short = full_at - now - self._burst / self._rate  # seconds until there is enough
            if short <= _ROUNDING_S:
                kept.value = full_at
                return
        wait = math.ceil(short)
        raise RateLimited(
            f"your key may spend {self._rate / 1e6:g} megapixels a second, "
            f"{self._burst / 1e6:g} at once; this request's {pixels / 1e6:.1f} are there "
            f"in {wait} s",
            wait,
        )
