"""Every status of the contract, provoked; after each, a good request is answered right."""

import base64
import io
import json
import shutil
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.conftest import photo
from tests.e2e.server import Serve, Served, Server
from tests.versions import make_blind


@pytest.fixture(scope="module")
def strict(serve: Serve, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with a small queue, and a network that takes multiples of 8 from 16 pixels up."""
    root = tmp_path_factory.mktemp("strict")
    shutil.copytree(store / "seed_cnn", root / "seed_cnn")
    shutil.copytree(store / "seed_cnn", root / "picky")
    path = root / "picky" / "1" / "card.json"
    card = json.loads(path.read_text())
    card |= {"name": "picky", "limits": {"min_height": 16, "min_width": 16, "multiple": 8}}
    path.write_text(json.dumps(card))
    options = ["--model", "seed_cnn", "--queue-megapixels", "3", "--max-body-mb", "1"]
    with serve(root, *options) as running:
        yield running


def png(width: int, height: int, mode: str = "L") -> bytes:
    out = io.BytesIO()
    Image.new(mode, (width, height)).save(out, "PNG")
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    )  # fmt: skip


def noise(width: int, height: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "BMP")
    return out.getvalue()


def check_problem(answer: httpx.Response, status: int, kind: str, *said: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["type"].endswith(f"/{kind}")
    assert problem["status"] == status
    assert problem["title"]
    for words in said:
        assert words in problem["detail"]
    return problem


def check_alive(url: str) -> None:
    """A good request is answered, and right."""
    answer = httpx.post(
        f"{url.rstrip('/')}/v1/classify?top_k=100", content=photo("goldfish").data, timeout=60
    ).raise_for_status()
    predictions = answer.json()["results"][0]["predictions"]
    if len(predictions) == 100:
        assert predictions[0]["label"] == "goldfish"
    else:
        assert sum(p["probability"] for p in predictions) == pytest.approx(1, abs=1e-5)


MISNAMED = b'--xx\r\nContent-Disposition: form-data; name="file"\r\n\r\nab\r\n--xx--\r\n'
MULTIPART = {"Content-Type": "multipart/form-data; boundary=xx"}
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("content", "headers", "said"),
    [
        (b"--xx\r\nrubbish", MULTIPART, "malformed multipart"),
        (b"--xx\r\nContent-Disposition: form-data; name=files\r\n\r\nab", MULTIPART, "ends before"),
        (b"--xx--\r\n", MULTIPART, ""),
        (b"whatever", {"Content-Type": "multipart/form-data"}, "boundary"),
        (MISNAMED, MULTIPART, "must be named 'files'"),
        (b"{", JSON, "JSON should be"),
        (b'{"images": [{"file": "x"}]}', JSON, "images.0"),
        (b'{"images": [{"data": "!!!"}]}', JSON, "images.0.data is not base64"),
        (b'{"images": []}', JSON, "no image"),
        (b"", {}, "empty"),
    ],
)  # fmt: skip
def test_400_bad_request(
    client: httpx.Client, content: bytes, headers: dict[str, str], said: str
) -> None:
    answer = client.post("/v1/classify", content=content, headers=headers)
    check_problem(answer, 400, "bad-request", said)
    check_alive(str(client.base_url))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/models/nobody/classify", "there are: efficientnet_lite0, seed_cnn"),
        ("/v1/models/seed_cnn/versions/7/classify", "it has: 1"),
        ("/v1/models/seed_cnn/versions/01/classify", "it has: 1"),
        ("/v1/models/seed_cnn/versions/new/classify", "it has: 1"),
        ("/v1/classify/", "/docs"),
        ("/v1/nothing", "/docs"),
    ],
)
def test_404_not_found(client: httpx.Client, path: str, said: str) -> None:
    check_problem(client.post(path, content=b"x"), 404, "not-found", said)
    check_alive(str(client.base_url))


def test_405_method_not_allowed(client: httpx.Client) -> None:
    check_problem(client.delete("/v1/classify"), 405, "method-not-allowed")
    check_alive(str(client.base_url))


def test_413_body_too_large(strict: Served) -> None:
    declared = httpx.post(f"{strict.url}/v1/classify", content=b"x" * 3_000_000, timeout=60)
    streamed = httpx.post(
        f"{strict.url}/v1/classify", content=iter([b"x" * 100_000] * 30), timeout=60
    )
    for answer in (declared, streamed):
        check_problem(answer, 413, "body-too-large", "1 MB")
    check_alive(strict.url)


def test_413_too_many_images(client: httpx.Client) -> None:
    files = [("files", ("a.png", png(8, 8)))] * 65
    check_problem(client.post("/v1/classify", files=files), 413, "too-many-images", "64 images")
    body = {"images": [{"data": base64.b64encode(png(8, 8)).decode()}] * 65}
    check_problem(client.post("/v1/classify", json=body), 413, "too-many-images", "64 images")
    check_alive(str(client.base_url))


def test_64_images_in_one_request_are_fine(client: httpx.Client) -> None:
    files = [("files", ("a.png", png(8 + i, 8))) for i in range(64)]
    results = client.post("/v1/models/seed_cnn/classify", files=files).json()["results"]
    assert [r["input"]["width"] for r in results] == list(range(8, 72))


@pytest.mark.parametrize(
    ("data", "query", "said"),
    [
        (png_header(10_000, 9_000), "", "50 megapixels"),
        (png_header(17_000, 300), "", "16384 a side"),
        (png(2_000, 1_500), "?resize=native", "2.1 megapixels"),
        (png(3_000, 100), "?resize=native", "2048 a side"),
        (png(1_900, 1_600), "?resize=fit&size=2048", "2.1 megapixels"),
    ],
)
def test_413_too_many_pixels(client: httpx.Client, data: bytes, query: str, said: str) -> None:
    answer = client.post(f"/v1/classify{query}", content=data)
    check_problem(answer, 413, "too-many-pixels", said)
    check_alive(str(client.base_url))


def test_413_when_a_request_alone_exceeds_the_queue(strict: Served) -> None:
    files = [("files", ("a.png", png(1_400, 1_400)))] * 2
    answer = httpx.post(f"{strict.url}/v1/classify", files=files, timeout=60)
    check_problem(answer, 413, "too-many-pixels", "queue")
    check_alive(strict.url)


@pytest.mark.parametrize("data", [b"just some text", b"%PDF-1.7 rubbish", b"\x00" * 100])
def test_415_unsupported_format(client: httpx.Client, data: bytes) -> None:
    answer = client.post("/v1/classify", content=data)
    check_problem(answer, 415, "unsupported-format", "JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF")
    check_alive(str(client.base_url))


@pytest.mark.parametrize("size", [500, 20_000])
def test_422_undecodable_image(client: httpx.Client, size: int) -> None:
    answer = client.post("/v1/classify", content=photo("bee").data[:size])
    check_problem(answer, 422, "undecodable-image")
    check_alive(str(client.base_url))


def test_422_image_too_small(client: httpx.Client) -> None:
    answer = client.post("/v1/classify?resize=native", content=png(64, 31))
    check_problem(answer, 422, "image-too-small", "64×31", "32×32", "resize=fit")
    check_alive(str(client.base_url))


def test_the_smallest_images_are_scaled_up_by_default(client: httpx.Client) -> None:
    result = client.post("/v1/classify", content=png(1, 1)).json()["results"][0]
    assert result["used"] == {"width": 320, "height": 320}


def test_422_image_size_not_supported(strict: Served) -> None:
    url = f"{strict.url}/v1/models/picky/classify"
    answer = httpx.post(f"{url}?resize=native", content=png(24, 28), timeout=60)
    check_problem(answer, 422, "image-size-not-supported", "divisible by 8")
    used = httpx.post(f"{url}?resize=fit&size=28", content=png(24, 28), timeout=60).json()[
        "results"
    ][0]["used"]
    assert used == {"width": 24, "height": 32}
    check_alive(strict.url)


def test_422_bad_aspect(client: httpx.Client) -> None:
    answer = client.post("/v1/classify", content=png(1_010, 10))
    check_problem(answer, 422, "bad-aspect", "100 times")
    check_alive(str(client.base_url))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("top_k=0", "top_k"),
        ("top_k=101", "top_k"),
        ("top_k=many", "top_k"),
        ("resize=stretch", "resize"),
        ("size=0", "size"),
        ("size=2049", "2048"),
        ("resize=native&size=100", "size"),
        ("timeout_ms=0", "timeout_ms"),
        ("classes=1,x", "classes"),
        ("classes=1000", "classes=1000"),
        ("min_probability=2", "min_probability"),
        ("cam=jpg", "cam"),
        ("cam_classes=1", "cam=png or cam=array"),
        ("cam=png&cam_classes=1000", "cam_classes=1000"),
        (f"cam=png&cam_classes={','.join(map(str, range(101)))}", "at most 100"),
        (f"cam=png&classes={','.join(map(str, range(101)))}", "at most 100"),
        ("colour=blue", "colour"),
        ("top_k=1&top_k=2", "more than once"),
        ("classes=\u0663", "classes"),
    ],
)
def test_422_bad_parameter(client: httpx.Client, query: str, said: str) -> None:
    answer = client.post(f"/v1/classify?{query}", content=photo("cup").data)
    check_problem(answer, 422, "bad-parameter", said)
    check_alive(str(client.base_url))


def test_in_a_request_of_many_each_image_has_its_own_error(client: httpx.Client) -> None:
    good = photo("hammer").data
    files = [
        ("files", ("good.webp", good)),
        ("files", ("text.jpg", b"hello")),
        ("files", ("long.png", png(1_010, 10))),
        ("files", ("again.webp", good)),
    ]
    answer = client.post("/v1/classify", files=files)
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [r.get("error", {}).get("status") for r in results] == [None, 415, 422, None]
    assert results[0]["predictions"] == results[3]["predictions"]
    assert results[0]["predictions"][0]["label"] == "hammer"
    assert results[1]["error"]["type"].endswith("/unsupported-format")


def test_503_overloaded_at_once_and_whole_with_retry_after(strict: Served) -> None:
    data = noise(500, 330)
    big = {"content": data, "params": {"resize": "fit", "size": 1700}}  # 1.9 of 3 megapixels

    def post(_: int) -> httpx.Response:
        return httpx.post(f"{strict.url}/v1/classify", timeout=60, **big)  # type: ignore[arg-type]

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(post, range(24)))

    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            check_problem(answer, 503, "overloaded", "queue")
            assert int(answer.headers["retry-after"]) >= 1
    check_alive(strict.url)


def test_503_not_ready_says_why(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store / "seed_cnn", tmp_path / "seed_cnn")
    (tmp_path / "seed_cnn" / "1" / "model.onnx").write_bytes(b"not a model")
    with Server(tmp_path, wait=False) as broken:
        answer = httpx.get(f"{broken.url}/readyz")
        assert answer.status_code == 503
        answer = httpx.post(f"{broken.url}/v1/classify", content=png(8, 8))
        check_problem(answer, 503, "not-ready")
        assert int(answer.headers["retry-after"]) >= 1
        assert httpx.get(f"{broken.url}/healthz").status_code == 200


def test_504_deadline_exceeded_for_the_images_that_were_not_run(client: httpx.Client) -> None:
    files = [("files", (f"{i}.webp", photo("castle").data)) for i in range(16)]
    answer = client.post("/v1/classify?timeout_ms=40", files=files)
    assert answer.status_code == 200
    late = [r["error"]["status"] for r in answer.json()["results"] if "error" in r]
    assert late
    assert set(late) == {504}
    for _ in range(100):  # now and then a worker is free within the millisecond
        alone = client.post("/v1/classify?timeout_ms=1", content=photo("bee").data)
        if alone.status_code != 200:
            break
    check_problem(alone, 504, "deadline-exceeded")
    check_alive(str(client.base_url))


def test_probabilities_that_are_no_numbers_are_an_error_of_that_image_alone(
    store: Path, tmp_path: Path
) -> None:
    make_blind(store, tmp_path)
    out = io.BytesIO()
    Image.new("L", (64, 64), 255).save(out, "PNG")
    files = [("files", ("white.png", out.getvalue())), ("files", ("black.png", png(64, 64)))]
    with Server(tmp_path, "--cores", "1") as server:
        answer = httpx.post(f"{server.url}/v1/classify", files=files)
        alone = httpx.post(f"{server.url}/v1/classify", content=out.getvalue())
    white, black = answer.json()["results"]
    assert white["error"]["status"] == 500
    assert "NaN" in server.log
    assert black["predictions"]
    assert alone.status_code == 500
