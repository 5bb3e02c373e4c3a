"""Raises the rate until the objective breaks; loaded beside tests/load/locustfile.py."""

import time

from locust import LoadTestShape
from locust.runners import MasterRunner

from tests.load.harness import Harness
from tests.load.steps import SHARE, Climb, late, within

_REPORT_S = 4.0  # workers report every three


class Steps(LoadTestShape):
    """Steps of --step-s; between two everything is answered first."""

    rate: int | None = None
    since = 0.0
    first = 0  # sample of the step
    draining = False

    def tick(self) -> tuple[int, float] | None:
        """Users, which are requests a second, and how many of them to start a second."""
        harness = self._harness
        if harness.climb is None:
            harness.climb = Climb(harness.settings.steps or 1)
            return self._begin(harness)
        assert self.rate is not None
        if not self.draining:
            if not self._over(harness):
                return self.rate, self.rate
            self.draining, self.since = True, time.monotonic()
        if harness.in_flight or time.monotonic() - self.since < self._least_drain_s:
            return 0, self.rate
        samples = harness.record.samples[self.first :]
        harness.climb.judge(self.rate, within(samples, harness.settings.objective_s))
        return self._begin(harness)

    @property
    def _harness(self) -> Harness:
        assert self.runner is not None
        found = self.runner.environment.harness  # type: ignore[attr-defined]
        assert isinstance(found, Harness)
        return found

    @property
    def _least_drain_s(self) -> float:
        return _REPORT_S if isinstance(self.runner, MasterRunner) else 0.0

    def _begin(self, harness: Harness) -> tuple[int, float] | None:
        assert harness.climb is not None
        self.rate, self.draining = harness.climb.next(), False
        self.since, self.first = time.monotonic(), len(harness.record.samples)
        return None if self.rate is None else (self.rate, self.rate)

    def _over(self, harness: Harness) -> bool:
        """The time is up, or so many are late that it cannot hold any more."""
        assert self.rate is not None
        wanted = harness.settings
        if time.monotonic() - self.since >= wanted.step_s:
            return True
        samples = harness.record.samples[self.first :]
        lost = late(samples, wanted.objective_s) + harness.overdue
        return lost > 2 * max(1.0, (1 - SHARE) * self.rate * wanted.step_s)
