"""Put the table that the tests have made into the README: `python -m tests.e2e.faults`."""

import sys

from tests.e2e.faults.table import README, Fault, into, read, table


def main() -> int:
    rows = read()
    if missing := [fault for fault in Fault if fault not in rows]:
        print(f"run them first: {', '.join(missing)}", file=sys.stderr)
        return 1
    README.write_text(into(README.read_text(encoding="utf-8"), table(rows)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
