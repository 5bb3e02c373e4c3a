"""Half an hour at 70 % of capacity: does memory grow, do answers slow down, is any wrong?

`make soak MINUTES=30`. It starts the service, measures the capacity, then sends pictures of
thousands of sizes. Ends with 1 if the worker's resident memory grows by 1 MB a minute or more after
the warm-up, if the median latency of the last third is more than DRIFT times that of the first, or
if an answer was wrong or missing. The machine must be otherwise idle: 70 % of what it could do
before is too much when it can do half of that now.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.e2e.server import Server
from tests.load.__main__ import environment, locust, run
from tests.load.charts import lines
from tests.load.overload import resident_mb

LOAD = 0.7  # of the capacity
SLOPE_MB, DRIFT = 1.0, 1.3
WARM_UP = 0.2  # of the time
_SAMPLE_S = 2.0
_PICTURES = 4_000
# As sent, but the largest shrunk: so that most shapes differ, and all are small beside the arena.
_SENT = ("--mix", "web", "--resize", "limit:640", "--objective-ms", "2000")

Memory = Sequence[tuple[float, float]]  # seconds since the begin, 10^6 bytes


@dataclass(frozen=True, slots=True)
class Soak:
    """What was found."""

    minutes: float
    capacity: int
    rate: float
    slope_mb_min: float
    memory_mb: Memory
    drift: float
    load: dict[str, Any]  # the report of the run

    @property
    def passed(self) -> bool:
        """Whether all hold."""
        bad = self.load["wrong"] + self.load["unchecked"] + self.load["failed"]
        return self.slope_mb_min < SLOPE_MB and self.drift <= DRIFT and bad == 0

    def text(self) -> str:
        """For a terminal."""
        first, last = self.memory_mb[0][1], self.memory_mb[-1][1]
        return (
            f"{self.minutes:g} minutes at {self.rate:.1f} requests/s, {LOAD:.0%} of "
            f"{self.capacity}: {self.load['requests']} requests, {self.load['refused']} refused, "
            f"{self.load['failed']} failed\n"
            f"memory {first:.0f} MB at first, {last:.0f} MB at last; after the warm-up "
            f"{self.slope_mb_min:+.2f} MB/min (limit {SLOPE_MB:g})\n"
            f"median latency, last third against first: {self.drift:.2f} (limit {DRIFT:g})\n"
            f"answers checked {self.load['checked']}, wrong {self.load['wrong']}, "
            f"not checked {self.load['unchecked']}\n{'passed' if self.passed else 'FAILED'}"
        )


def slope(memory: Memory) -> float:
    """10^6 bytes a minute, by least squares over what comes after the warm-up."""
    end = memory[-1][0]
    settled = [(at / 60, mb) for at, mb in memory if at >= WARM_UP * end]
    minutes, mb = zip(*settled, strict=True)
    per_minute: float = statistics.linear_regression(minutes, mb).slope
    return per_minute


def drift(timeline: Sequence[dict[str, Any]]) -> float:
    """Median latency in the last third over that in the first third, after the warm-up."""
    medians: list[float] = [
        moment["p50_ms"]["all"] for moment in timeline if "all" in moment["p50_ms"]
    ]
    settled = medians[round(WARM_UP * len(medians)) :]
    third = max(1, len(settled) // 3)
    return statistics.median(settled[-third:]) / statistics.median(settled[:third])


def watched(command: Sequence[str], pid: int) -> list[tuple[float, float]]:
    """Run it; resident memory of that process meanwhile, by time.time()."""
    memory = []
    with subprocess.Popen(command, env=environment()) as running:
        while running.poll() is None:
            memory.append((time.time(), resident_mb(pid)[0]))
            time.sleep(_SAMPLE_S)
    return memory


def soak(artifacts: Path, minutes: float, out: Path, step_s: float, pictures: int) -> Soak:
    """Find the capacity, then hold 70 % of it."""
    with Server(artifacts) as server:
        steps = ("--steps", "8", "--step-s", str(step_s))
        run(locust(server.url, str(out / "capacity"), *_SENT, *steps, steps=True))
        capacity = int(_report(out / "capacity")["capacity"])
        rate = LOAD * max(capacity, 1)
        users = max(1, round(rate))
        more = ["--users", str(users), "--spawn-rate", str(users), "--pace", str(rate / users)]
        more += ["--run-time", f"{round(60 * minutes)}s", "--count", str(pictures)]
        (worker,) = server.workers()
        command = locust(server.url, str(out), *_SENT, *more)
        memory = watched(command, worker)
        assert server.workers() == [worker], "the worker was replaced meanwhile"
    report = _report(out)
    begun, seconds = report["begun"], report["seconds"]  # pictures are made before, checked after
    during = [(at - begun, mb) for at, mb in memory if 0 <= at - begun <= seconds]
    timeline = report["timeline"]
    return Soak(minutes, capacity, rate, slope(during), during, drift(timeline), report)


def _report(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it, write the report; 1 if something does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--step-s", type=float, default=15, help="length of a step to capacity")
    parser.add_argument("--pictures", type=int, default=_PICTURES, help="of as many sizes")
    parser.add_argument("--out", type=Path, default=Path("build/soak"))
    options = parser.parse_args(arguments)
    out: Path = options.out
    found = soak(options.artifacts, options.minutes, out, options.step_s, options.pictures)
    whole = {**asdict(found), "passed": found.passed}
    (out / "soak.json").write_text(json.dumps(whole, indent=1), encoding="utf-8")
    chart = lines("Resident memory of the worker", "MB", {"resident": found.memory_mb})
    page = (out / "report.html").read_text(encoding="utf-8")
    said = f"<h2>Soak</h2><pre>{found.text()}</pre>{chart}</body>"
    (out / "report.html").write_text(page.replace("</body>", said), encoding="utf-8")
    print(f"{found.text()}\n\n{out}/report.html and soak.json")
    return 0 if found.passed else 1


if __name__ == "__main__":
    sys.exit(main())
