"""Step 4: the engine that will serve, in a process of its own, against what torch answered.

A process of its own, since ONNX Runtime can die (SIGFPE) on a map that is too small for a pooling:
that must fail the export, not end it.
"""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison: error is |difference| / max|logit|, and must not exceed tolerance.

    kind: "size" against torch; for images of one run against alone "company" where they are of one
    size, "mixed" where not
    """

    kind: str
    size: str
    error: float
    tolerance: float
    provider: str
    problem: str | None

    @property
    def ok(self) -> bool:
        return self.problem is None


def verify(artifact: Path, on_case: Callable[[Case], None]) -> list[Case]:
    """Run `anypool verify --json` on an artifact folder; one Case for each size, in order.

    A crash of ONNX Runtime becomes a Case with a problem, so this never raises for the network.
    """
    command = [sys.executable, "-P", "-m", "service.cli", "verify", str(artifact), "--json"]
    cases: list[Case] = []
    with (
        tempfile.TemporaryFile("w+", errors="replace") as stderr,  # a full pipe would stop it
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            cases.append(Case(**json.loads(line)))
            on_case(cases[-1])
        process.wait()
        stderr.seek(0)
        errors = stderr.read()
    if process.returncode < 0 or (process.returncode and all(case.ok for case in cases)):
        how = _how_it_ended(process.returncode)
        problem = f"{how} after {len(cases)} comparisons. {errors.strip()[-500:]}"
        cases.append(Case("size", "the next one", 0.0, 0.0, "", problem))
        on_case(cases[-1])
    return cases


def _how_it_ended(code: int) -> str:
    if code < 0:
        return f"ONNX Runtime was killed by {signal.Signals(-code).name}"
    return f"verification ended with exit code {code}"
