"""Exact in any company: whoever asks at the same time, each gets the answer he would get alone."""

import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import all_photos
from tests.e2e.server import Serve, Served


@pytest.fixture(scope="module")
def mixing(serve: Serve, store: Path) -> Iterator[Served]:
    """A service that mixes sizes; one core, so that images wait and meet."""
    with serve(store, "--batching", "mixed", "--cores", "1") as running:
        yield running


def picture(seed: int, width: int, height: int) -> bytes:
    """A cut from a real photo, as PNG."""
    photos = all_photos()
    photo = Image.open(photos[seed % len(photos)].path).convert("RGB").resize((400, 300))
    x, y = seed % (401 - width), seed % (301 - height)
    out = io.BytesIO()
    photo.crop((x, y, x + width, y + height)).save(out, "PNG")
    return out.getvalue()


def logits(answer: dict[str, Any]) -> list[np.ndarray]:
    """Log-probabilities of the most probable classes, by image."""
    return [
        np.log([p["probability"] for p in sorted(r["predictions"], key=lambda p: p["index"])])
        for r in answer["results"]
    ]


def mixed_runs(url: str) -> float:
    found = re.search(
        r'anypool_runs_total\{kind="mixed"\} (\S+)', httpx.get(f"{url}/metrics", timeout=60).text
    )
    assert found is not None
    return float(found[1])


sides = st.integers(32, 150)
requests = st.lists(
    st.lists(st.tuples(st.integers(0, 10_000), sides, sides), min_size=1, max_size=4),
    min_size=2,
    max_size=5,
)


@given(requests)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_mix_of_requests_answers_each_client_as_if_alone(
    mixing: Served, asked: list[list[tuple[int, int, int]]]
) -> None:
    url = f"{mixing.url}/v1/classify?resize=native&classes={','.join(map(str, range(0, 1000, 50)))}"

    def post(images: list[tuple[int, int, int]]) -> dict[str, Any]:
        files = [("files", ("x.png", picture(*image))) for image in images]
        answer = httpx.post(f"{url}&top_k=100", files=files, timeout=60).raise_for_status()
        body: dict[str, Any] = answer.json()
        return body

    with ThreadPoolExecutor(len(asked)) as clients:
        together = [logits(answer) for answer in clients.map(post, asked)]

    for images, answers in zip(asked, together, strict=True):
        for image, got in zip(images, answers, strict=True):
            (alone,) = logits(post([image]))
            # 1e-5 of the largest logit, which is below 30 here, and once more for the softmax's sum
            np.testing.assert_allclose(got, alone, rtol=0, atol=6e-4)


def test_images_of_different_sizes_really_shared_runs(mixing: Served) -> None:
    before = mixed_runs(mixing.url)
    files = [("files", ("x.png", picture(i, 40 + 3 * i, 90 - 2 * i))) for i in range(16)]
    answer = httpx.post(f"{mixing.url}/v1/classify?resize=native", files=files, timeout=60)
    assert answer.status_code == 200
    assert mixed_runs(mixing.url) > before


def test_a_portrait_and_a_landscape_of_equal_area_keep_their_own_answers(mixing: Served) -> None:
    url = f"{mixing.url}/v1/classify?resize=native&top_k=1"
    shapes = [(60, 120), (120, 60)] * 8
    files = [("files", ("x.png", picture(7 * i, *shape))) for i, shape in enumerate(shapes)]
    together = httpx.post(url, files=files, timeout=60).json()["results"]
    for (_, (_, data)), result in zip(files, together, strict=True):
        alone = httpx.post(url, content=data, timeout=60).json()["results"][0]
        assert result["predictions"][0]["index"] == alone["predictions"][0]["index"]
        assert result["predictions"][0]["probability"] == pytest.approx(
            alone["predictions"][0]["probability"], rel=1e-3
        )
