"""Class activation maps over HTTP: what they show, whose they are, and in company."""

import base64
import io
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from models import registry
from tests.conftest import all_photos, anypool, photo
from tests.e2e.server import Server

PANDA = 388


def classify(client: httpx.Client, data: bytes, **query: Any) -> dict[str, Any]:
    answer = client.post("/v1/classify", content=data, params=query)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()["results"][0]
    return result


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_maps_of_the_predictions_come_as_png_at_the_resolution_of_the_features(
    client: httpx.Client,
) -> None:
    result = classify(client, photo("panda").data, cam="png", top_k=3)
    assert [m["index"] for m in result["cam"]] == [p["index"] for p in result["predictions"]]
    for heat_map in result["cam"]:
        assert set(heat_map) == {"index", "width", "height", "max", "png"}
        image = Image.open(io.BytesIO(base64.b64decode(heat_map["png"])))
        assert image.size == (heat_map["width"], heat_map["height"]) == (10, 6)  # of 320×213 / 32
        assert heat_map["max"] > 0
        assert np.asarray(image).max() == 255


def test_the_panda_is_where_the_map_says(client: httpx.Client) -> None:
    animal = Image.open(photo("panda").path).convert("RGB").resize((320, 213))
    meadow = Image.new("RGB", (320, 213), (90, 120, 60))
    for left, right, there in ((animal, meadow, "left"), (meadow, animal, "right")):
        both = Image.new("RGB", (640, 213))
        both.paste(left, (0, 0))
        both.paste(right, (320, 0))
        query = {"resize": "native", "cam": "array", "cam_classes": str(PANDA)}
        (heat_map,) = classify(client, png(both), **query)["cam"]
        values = np.array(heat_map["array"])  # (h, w)
        assert values.shape == (heat_map["height"], heat_map["width"]) == (6, 20)
        halves = {"left": values[:, :10].sum(), "right": values[:, 10:].sum()}
        assert max(halves, key=lambda side: halves[side]) == there
        assert values.max() == pytest.approx(heat_map["max"])


def test_the_mean_of_a_map_and_the_bias_are_the_logit(client: httpx.Client) -> None:
    bias = registry.build("efficientnet_lite0").state_dict()["head.bias"].numpy()
    for item in all_photos()[:4]:
        result = classify(client, item.data, cam="array", top_k=5)
        logits = {
            heat_map["index"]: np.mean(heat_map["array"]) + bias[heat_map["index"]]
            for heat_map in result["cam"]
        }
        for one, other in itertools.combinations(result["predictions"], 2):
            ratio = np.log(one["probability"]) - np.log(other["probability"])
            assert ratio == pytest.approx(logits[one["index"]] - logits[other["index"]], abs=1e-3)


def test_cam_classes_chooses_whose_maps_whatever_is_predicted(client: httpx.Client) -> None:
    result = classify(client, photo("panda").data, cam="array", cam_classes="7,388,7", top_k=1)
    assert [p["index"] for p in result["predictions"]] == [PANDA]
    assert [m["index"] for m in result["cam"]] == [7, PANDA]
    (own,) = classify(client, photo("panda").data, cam="array", top_k=1)["cam"]
    np.testing.assert_allclose(result["cam"][1]["array"], own["array"], atol=1e-4)


def test_only_predictions_that_are_answered_have_maps(client: httpx.Client) -> None:
    strict = classify(client, photo("panda").data, cam="png", min_probability=0.5)
    assert [m["index"] for m in strict["cam"]] == [PANDA]
    chosen = classify(client, photo("panda").data, cam="png", classes="5,388,9", top_k=2)
    assert [m["index"] for m in chosen["cam"]] == [p["index"] for p in chosen["predictions"]]
    assert len(chosen["cam"]) == 2


def test_nobody_gets_maps_who_did_not_ask(client: httpx.Client) -> None:
    assert "cam" not in classify(client, photo("panda").data)


def test_more_maps_than_there_are_classes_are_those_of_all(client: httpx.Client) -> None:
    url = "/v1/models/seed_cnn/classify?cam=png&top_k=50"
    answer = client.post(url, content=photo("bee").data)
    (result,) = answer.json()["results"]
    assert sorted(m["index"] for m in result["cam"]) == list(range(10))
    assert {(m["width"], m["height"]) for m in result["cam"]} == {(4, 4)}


def test_maps_that_would_fill_the_memory_are_refused_before_anything_is_decoded(
    client: httpx.Client,
) -> None:
    flat = png(Image.new("RGB", (720, 560)))
    files = [("files", (f"{index}.png", flat)) for index in range(64)]
    answer = client.post("/v1/classify?resize=native&cam=array&top_k=100", files=files)
    assert answer.status_code == 413
    assert answer.json()["type"].endswith("/too-many-pixels")
    assert "6400 class activation maps would have 2.1 million values" in answer.text
    assert "at most 0.5 and 20: ask for fewer classes" in answer.text
    few = client.post("/v1/classify?resize=native&cam=png&top_k=1", files=files[:2])
    assert [len(result["cam"]) for result in few.json()["results"]] == [1, 1]


@pytest.fixture(scope="module")
def mixing(store: Path) -> Iterator[Server]:
    """A server that mixes sizes; one core, so that images wait and meet."""
    with Server(store, "--batching", "mixed", "--cores", "1") as running:
        yield running


def test_in_company_each_image_keeps_its_own_maps_and_their_size(mixing: Server) -> None:
    sizes = [(64, 200), (200, 64), (33, 97), (96, 96), (150, 120), (64, 200)]
    photos = [Image.open(item.path).convert("RGB") for item in all_photos()]
    images = [png(p.resize(size)) for p, size in zip(photos, sizes * 2, strict=False)]
    queries = ["&cam=array&cam_classes=1,2,3", "&cam=array&top_k=2", ""]
    url = f"{mixing.url}/v1/classify?resize=native"

    def ask(query: str) -> list[dict[str, Any]]:
        files = [("files", ("x.png", image)) for image in images]
        answer = httpx.post(url + query, files=files, timeout=120).raise_for_status()
        results: list[dict[str, Any]] = answer.json()["results"]
        return results

    with ThreadPoolExecutor(len(queries)) as clients:
        together = list(clients.map(ask, queries))

    for query, results in zip(queries, together, strict=True):
        for image, size, result in zip(images, sizes * 2, results, strict=False):
            if not query:
                assert "cam" not in result
                continue
            (alone,) = httpx.post(url + query, content=image, timeout=60).json()["results"]
            assert [m["index"] for m in result["cam"]] == [m["index"] for m in alone["cam"]]
            for mine, other in zip(result["cam"], alone["cam"], strict=True):
                assert (mine["width"], mine["height"]) == tuple(side // 32 for side in size)
                values, expected = np.array(mine["array"]), np.array(other["array"])
                np.testing.assert_allclose(values, expected, atol=1e-4 * np.abs(expected).max())


def test_a_network_whose_head_is_not_linear_says_that_it_has_no_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    own = ("--import", "tests.export.own_networks", "--out", tmp_path)
    done = anypool("export", "hidden_layer", *own)
    assert done.returncode == 0, done.stderr
    with Server(tmp_path) as running:
        url = f"{running.url}/v1/classify"
        refused = httpx.post(f"{url}?cam=png", content=photo("bee").data, timeout=60)
        answered = httpx.post(f"{url}?embedding=true", content=photo("bee").data, timeout=60)
    assert refused.status_code == 422
    assert refused.json()["detail"] == (
        "hidden_layer has no class activation maps; its outputs: logits, probabilities, embedding"
    )
    assert answered.status_code == 200
    assert len(answered.json()["results"][0]["embedding"]) == 1
