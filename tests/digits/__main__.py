"""Train, export and serve one CNN for each pooling, and count what the service gets right.

Everything is real: trained weights, `anypool export`, an `anypool serve` process, PNG files over
HTTP. Beside it stands what torch says of the same images, and what the stock exporter's graph says.
Ends with 1 unless the service is right as often as torch, give or take one image, at every size.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from models.pool import POOLS
from tests.digits import data, table
from tests.digits.answers import ask
from tests.digits.artifact import export
from tests.digits.cnn import name_of
from tests.digits.table import Comparison
from tests.digits.train import train
from tests.e2e.server import Server

# Height, width; 28×28 is the stock exporter's example, the last is larger than any trained.
SIZES = ((14, 14), (20, 20), (28, 28), (37, 37), (48, 48), (20, 37), (45, 24), (64, 64))
EPOCHS = 30


def main() -> int:
    options = _options()
    begun = time.monotonic()
    digits, held_out = data.load()
    sets = [held_out.at(height, width) for height, width in SIZES]
    comparisons = []
    for pool in options.pools:
        start = time.monotonic()
        network = train(pool, digits, options.epochs)
        trained = time.monotonic()
        store = export(network, pool, options.out)
        exported = time.monotonic()
        comparisons.append(Comparison.of(pool, network, sets))
        refused = comparisons[-1].refused
        print(f"{pool:<18} trained in {trained - start:.0f} s, exported in "
              f"{exported - trained:.0f} s; stock exporter: "
              f"{refused or 'a graph'}", flush=True)  # fmt: skip
    print(_serve(store, comparisons), flush=True)
    text = table.markdown(comparisons)
    (options.out / "table.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\n{len(held_out)} digits held out of {len(held_out) + len(digits)}; "
          f"{time.monotonic() - begun:.0f} s in all", flush=True)  # fmt: skip
    others = [comparison.pool for comparison in comparisons if not comparison.served_as_trained]
    if others:
        print(f"the service is not right as often as torch: {', '.join(others)}", file=sys.stderr)
    return 1 if others else 0


def _serve(store: Path, comparisons: Sequence[Comparison]) -> str:
    """Ask the service for its part of each comparison; how many it answered as torch did."""
    model = name_of(comparisons[0].pool)
    with Server(store, "--model", model, "--batching", "mixed") as server:
        start = time.monotonic()
        for comparison in comparisons:
            comparison.by_service = ask(server.url, comparison.pool, comparison.sets)
        seconds = time.monotonic() - start
        runs = _runs(server.url)
    images = sum(len(digits) for comparison in comparisons for digits in comparison.sets)
    other = sum(comparison.other_classes for comparison in comparisons)
    difference = max(comparison.difference for comparison in comparisons)
    return (
        f"served {images} images in {seconds:.0f} s ({runs}); {other} of them as another class "
        f"than torch; probabilities differ by at most {difference:.0e}"
    )


def _runs(url: str) -> str:
    """How many runs the service made, by the company that images had in them."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    counts: dict[str, int] = {}
    for line in lines:
        if line.startswith("anypool_runs_total{"):
            kind = line.split('kind="')[1].split('"')[0]
            counts[kind] = counts.get(kind, 0) + int(float(line.split()[-1]))
    return ", ".join(f"{count} runs {kind}" for kind, count in counts.items() if count)


def _options() -> argparse.Namespace:
    def pools(text: str) -> list[str]:
        chosen = text.split(",")
        unknown = [name for name in chosen if name not in POOLS]
        if unknown:
            raise argparse.ArgumentTypeError(f"no such pooling: {', '.join(unknown)}")
        return chosen

    parser = argparse.ArgumentParser(
        prog="python -m tests.digits", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--pools", type=pools, default=list(POOLS), metavar="POOL,…",
                        help=f"some of: {', '.join(POOLS)} (default: all)")  # fmt: skip
    parser.add_argument("--epochs", type=int, default=EPOCHS, metavar="N",
                        help=f"how long each is trained (default: {EPOCHS})")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("build/digits"), metavar="DIR",
                        help="weights, artifacts and table.md (default: build/digits)")  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
