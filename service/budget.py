"""How many pixels a client may have classified in a while: a bucket that refills steadily."""

import math
import time
from collections.abc import Callable

from service.errors import RateLimited, TooManyPixels

_ROUNDING_S = 1e-6


class Budget:
    """`pixels_per_s` for ever, and up to `burst_pixels` at once."""

    def __init__(
        self,
        pixels_per_s: float,
        burst_pixels: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = pixels_per_s
        self._burst = burst_pixels
        self._clock = clock
        self._full_at = -math.inf  # when all that was spent will have come back

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
        now = self._clock()
        full_at = max(self._full_at, now) + pixels / self._rate
        short = full_at - now - self._burst / self._rate  # seconds until there is enough
        if short > _ROUNDING_S:
            wait = math.ceil(short)
            raise RateLimited(
                f"your key may spend {self._rate / 1e6:g} megapixels a second, "
                f"{self._burst / 1e6:g} at once; this request's {pixels / 1e6:.1f} are there "
                f"in {wait} s",
                wait,
            )
        self._full_at = full_at
