"""The capacity of a service for each mix: `python -m tests.load.table`."""

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.e2e.server import Server
from tests.load.__main__ import locust, run

# Name, first rate, options.
_NATIVE = ["--resize", "native"]
ROWS = (
    ("thumbs", 30, ["--mix", "thumbs"]),
    ("thumbs, native", 60, ["--mix", "thumbs", *_NATIVE]),
    ("thumbs, native, multipart of 16", 8,
     ["--mix", "thumbs", *_NATIVE, "--form", "multipart", "--together", "16"]),
    ("thumbs, OIP of 4", 8, ["--mix", "thumbs", "--form", "oip", "--together", "4"]),
    ("web", 30, ["--mix", "web"]),
    ("web, native", 8, ["--mix", "web", *_NATIVE]),
    ("phone", 15, ["--mix", "phone"]),
    ("mixed", 30, ["--mix", "mixed"]),
)  # fmt: skip


def main() -> int:
    """Print a table for the README; 1 if an answer was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", help="address of the service, else it is started here")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--objective-ms", default="1000")
    parser.add_argument("--step-s", default="15", help="length of a step")
    parser.add_argument("--out", type=Path, default=Path("build/load/table"))
    options = parser.parse_args()
    lines, wrong = ["| mix | requests/s | images/s |", "|---|---|---|"], 0
    with ExitStack() as stack:
        host = options.host or stack.enter_context(Server(options.artifacts)).url
        for name, first, more in ROWS:
            out = options.out / name.replace(", ", "-").replace(" ", "-")
            steps = ["--steps", str(first), "--step-s", options.step_s]
            steps += ["--objective-ms", options.objective_ms]
            run(locust(host, str(out), *more, *steps, steps=True))
            report = json.loads((out / "report.json").read_text(encoding="utf-8"))
            rate, images = report["capacity"], report["settings"]["together"]
            wrong += report["wrong"] + report["unchecked"]
            lines.append(f"| {name} | {rate} | {rate * images} |")
    table = "\n".join(lines)
    (options.out / "table.md").write_text(table + "\n", encoding="utf-8")
    print(f"\n99 % within {options.objective_ms} ms, wrong answers: {wrong}\n\n{table}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
