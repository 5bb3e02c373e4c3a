"""Load test of a service: `make load`, or `python -m tests.load --help`.

Without --host it starts the service itself, on a free port of 127.0.0.1, and ends it afterwards.
What this does not know goes to Locust and to tests/load/locustfile.py.
"""

import argparse
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.e2e.server import Server

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def locust(host: str, out: str, *arguments: str, steps: bool = False) -> list[str]:
    """The command of a run without the web page, whose figures go to files."""
    files = ["locustfile.py", "stepfile.py"] if steps else ["locustfile.py"]
    named = ",".join(str(HERE / file) for file in files)
    return [
        sys.executable, "-P", "-m", "locust", "-f", named, "--headless",
        "--only-summary", "--loglevel", "WARNING", "--json-file", f"{out}/locust",
        "--host", host, "--out", out, *arguments,
    ]  # fmt: skip


def environment() -> dict[str, str]:
    """In which such a command finds this package, wherever it is started."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run(command: Sequence[str]) -> int:
    """Its exit code. Interrupted, it is waited for: it checks and reports what there is."""
    with subprocess.Popen(command, env=environment()) as running:
        try:
            return running.wait()
        except KeyboardInterrupt:
            return running.wait()


def arrangement(options: argparse.Namespace) -> list[str]:
    """Users, pace and length of the run."""
    if options.steps:
        return ["--steps", str(options.steps), "--pace", "1"]
    length = ["--run-time", f"{round(60 * options.minutes)}s"]
    if options.users:
        users, more = options.users, ["--loop", "closed"]
    else:
        users = math.ceil(options.rate)
        more = ["--pace", str(options.rate / users)]
    return ["--users", str(users), "--spawn-rate", str(users), *length, *more]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 1 if an answer was wrong or the objective missed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.load", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--host", help="address of the service, else it is started here")
    parser.add_argument("--rate", type=float, default=10, help="open loop: requests a second")
    parser.add_argument("--users", type=int, help="closed loop instead: so many clients")
    parser.add_argument("--steps", type=int, help="raise the rate, from that on, until it breaks")
    parser.add_argument("--minutes", type=float, default=1, help="not of steps")
    parser.add_argument("--out", default="build/load", help="folder of the report")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    options, others = parser.parse_known_args(arguments)
    with ExitStack() as stack:
        host = options.host or stack.enter_context(Server(options.artifacts)).url
        more = [*arrangement(options), *others]
        command = locust(host, options.out, *more, steps=bool(options.steps))
        return run(command)


if __name__ == "__main__":
    sys.exit(main())
