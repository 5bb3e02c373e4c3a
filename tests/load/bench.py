"""Images a second over HTTP, beside the same work done bare: `make bench`.

Bare is two threads that share one ONNX Runtime session in one process, decode and run over the same
files, no HTTP. The client runs on the same cores. Rounds are interleaved, medians are printed, and
the ratio is the median of the rounds' ratios.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from service.engine import Engine
from service.images import Pixels, SourceLimits, allowed_formats, decode, read_header
from service.resize import InferenceLimits, Resize, used_size
from tests.e2e.server import Server
from tests.load import images
from tests.load.client import PATH, request
from tests.load.compare import Aim, Way, over_http, rates, show, threads

SOURCE = SourceLimits(50_000_000, 16_384, 100)
INFERENCE = InferenceLimits(2_048, 2_100_000)
NATIVE = Resize("native", None)
FIT = "/v1/classify?top_k=1"


def bare(engine: Engine, files: Sequence[bytes], resize: Resize = NATIVE) -> Way:
    """Two threads do what the service does, without the service."""

    def one(data: bytes) -> None:
        header = read_header(data, SOURCE, allowed_formats())
        used = used_size(header.size, resize, engine.card.limits, INFERENCE)
        engine.run([decode(data, header, used, engine.card.preprocessing)])

    return threads(one, files, 2)


def decoded_fully(engine: Engine, files: Sequence[bytes], size: int) -> Way:
    """Two threads decode whole images, then resize them, then run: the usual loop."""

    def one(data: bytes) -> None:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        scale = size / max(image.size)
        small = image.resize((round(image.width * scale), round(image.height * scale)))
        pixels: Pixels = np.asarray(small)
        engine.run([pixels])

    return threads(one, files, 2)


def served(
    url: str, files: Sequence[bytes], together: int = 1, clients: int = 8, path: str = PATH
) -> Way:
    """So many images in a request."""
    sets = (files[first : first + together] for first in range(0, len(files), together))
    return over_http(url, [request(some, path) for some in sets], together, clients)


def against_bare(artifacts: Path) -> bool:
    """HTTP beside bare: web sizes, small ones, phone photos."""
    engine = Engine(artifacts / "efficientnet_lite0" / "1", "cpu")
    web, small = images.web(120), images.boxes(640, 32, 160)
    photos = images.phones(6)
    with Server(artifacts, "--model", "efficientnet_lite0") as server:
        ways = {
            "bare, 2 threads": bare(engine, web),
            "HTTP, 1 client": served(server.url, web, clients=1),
            "HTTP, 8 clients": served(server.url, web),
        }
        title = "web sizes, 158-1024 px, native, one a request"
        held = show(title, rates(ways), {"HTTP, 8 clients": Aim(0.95, 0.95)})
        ways = {
            "bare, 2 threads": bare(engine, small),
            "HTTP, 8 clients, 1 a request": served(server.url, small),
            "HTTP, 8 clients, 16 a request": served(server.url, small, together=16),
        }
        aims = {
            "HTTP, 8 clients, 1 a request": Aim(0.65, 0.54),
            "HTTP, 8 clients, 16 a request": Aim(0.9, 0.76),
        }
        held &= show("small, 32-160 px, native", rates(ways), aims)
        ways = {
            "bare, full decode, 2 threads": decoded_fully(engine, photos, 320),
            "HTTP, 8 clients": served(server.url, photos, path=FIT),
        }
        title = "12-megapixel baseline JPEG, fit 320"
        return held & show(title, rates(ways), {"HTTP, 8 clients": Aim(2.5, 4.07)})


def mixed_against_equal(artifacts: Path, model: str, aim: Aim) -> bool:
    """Thumbnails in mixed batches beside batches of equal size."""
    thumbnails = images.boxes(1280, 32, 64)
    path = f"/v1/models/{model}/classify?resize=native&top_k=1"
    with (
        Server(artifacts, "--batching", "equal", "--model", model) as equal,
        Server(artifacts, "--batching", "auto", "--model", model) as auto,
        Server(artifacts, "--batching", "mixed", "--model", model) as mixed,
    ):
        servers = {"equal": equal, "auto": auto, "mixed": mixed}
        ways = {
            name: served(server.url, thumbnails, together=16, path=path)
            for name, server in servers.items()
        }
        title = f"{model}: thumbnails, 32-64 px, 8 clients, 16 a request, by --batching"
        return show(title, rates(ways), {"auto": aim})


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    options = parser.parse_args()
    held = [
        against_bare(options.artifacts),
        mixed_against_equal(options.artifacts, "efficientnet_lite0", Aim(0.95, 1.2)),
        mixed_against_equal(options.artifacts, "resnet18", Aim(1.1, 1.03)),
    ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
