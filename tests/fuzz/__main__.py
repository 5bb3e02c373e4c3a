"""Bad input, tried for as long as is wished: `python -m tests.fuzz --minutes 30`.

Every input that fails is saved in tests/fuzz/regressions, where tests/fuzz/test_fuzz.py tries it
again from then on. Ends with 1 if any did.
"""

import argparse
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.e2e.server import Server
from tests.fuzz.driver import ROOMY, TIGHT, Driver, Finding, Input, Limits
from tests.fuzz.strategies import KINDS

_ROUND = 40  # inputs of one kind, then of the next
_REPORT_S = 60.0
warnings.filterwarnings("ignore", module="PIL")  # of broken files
REGRESSIONS = Path(__file__).parent / "regressions"


class Campaign:
    """Two servers, one with small limits, and what became of the inputs so far."""

    def __init__(self, artifacts: Path, until: float) -> None:
        self._artifacts = artifacts
        self._until = until
        self.statuses: dict[str, Counter[int]] = {kind: Counter() for kind in KINDS}
        self.tried: Counter[str] = Counter()
        self.found: dict[str, Finding] = {}

    def run(self) -> None:
        """Until the time is up."""
        with ExitStack() as stack:
            self._drivers = {
                limits: stack.enter_context(_driver(self._artifacts, limits))
                for limits in (TIGHT, ROOMY)
            }
            reported = time.monotonic()
            while time.monotonic() < self._until:
                for kind in KINDS:
                    limits = ROOMY if kind != "framing" and random.random() < 0.3 else TIGHT
                    self._round(kind, self._drivers[limits])
                    if time.monotonic() - reported > _REPORT_S:
                        reported = time.monotonic()
                        print(self.summary(), flush=True)
            print(self.summary(), flush=True)

    def _round(self, kind: str, driver: Driver) -> None:
        @seed(random.getrandbits(64))
        @settings(
            max_examples=_ROUND,
            database=None,
            derandomize=False,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(KINDS[kind])
        def one(tried: Input) -> None:
            if time.monotonic() < self._until:
                self._try(driver, tried)

        one()

    def _try(self, driver: Driver, tried: Input) -> None:
        answers, finding = driver.try_(tried)
        self.tried[tried.kind] += 1
        self.statuses[tried.kind].update([answers[0].status if answers else 0])
        if finding is None:
            return
        known = self.found.get(finding.signature)
        if known is None:
            print(f"FAILED {finding.signature}\n       {finding.why[:300]}", flush=True)
        if known is None or len(tried.data) < len(known.input.data):
            self.found[finding.signature] = finding
            save(finding)

    def summary(self) -> str:
        """What was tried so far, as lines."""
        lines = [
            f"{kind:<10} {self.tried[kind]:>7}  "
            + " ".join(f"{status or 'none'}:{count}" for status, count in sorted(counts.items()))
            for kind, counts in self.statuses.items()
        ]
        for limits, driver in self._drivers.items():
            lines.append(
                f"server with {limits.body_mb:g} MB bodies: slowest {driver.slowest:.1f} s, peak "
                f"memory {driver.peak_mb:.0f} MB (may have {driver.most_mb:.0f})"
            )
        lines.append(f"{sum(self.tried.values())} inputs, {len(self.found)} findings")
        return "\n".join(lines)


def save(finding: Finding) -> None:
    """Keep the input; one file for each signature, the smallest."""
    name = f"{finding.input.kind}-{sha256(finding.signature.encode()).hexdigest()[:8]}.http"
    (REGRESSIONS / name).write_bytes(finding.input.data)


@contextmanager
def _driver(artifacts: Path, limits: Limits) -> Iterator[Driver]:
    with Server(artifacts, "--model", "seed_cnn", *limits.options()) as server:
        yield Driver(server, limits)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="for how long (default: 5)")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"),
                        help="with seed_cnn and efficientnet_lite0")  # fmt: skip
    options = parser.parse_args()
    campaign = Campaign(options.artifacts, time.monotonic() + 60 * options.minutes)
    campaign.run()
    for signature in campaign.found:
        print(f"failed: {signature}", file=sys.stderr)
    return 1 if campaign.found else 0


if __name__ == "__main__":
    sys.exit(main())
