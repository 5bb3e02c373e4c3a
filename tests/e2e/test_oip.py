"""Open Inference Protocol v2, asked by the client that people already have: tritonclient."""

import asyncio
import base64
import gzip
import io
import json
import shutil
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.conftest import photo
from tests.e2e.server import Served, Server

MODEL = "efficientnet_lite0"
NAMES = ("panda", "hammer", "bee")


@pytest.fixture
def stock(served: Served) -> Iterator[Any]:
    """The stock client, synchronous."""
    with triton.InferenceServerClient(served.url.removeprefix("http://"), concurrency=4) as made:
        yield made


def files(*data: bytes) -> Any:
    """The input `image`."""
    tensor = triton.InferInput("image", [len(data)], "BYTES")
    tensor.set_data_from_numpy(np.array(data, dtype=object))
    return tensor


def raster(*pictures: np.ndarray) -> Any:
    """The input `pixels`."""
    whole = np.stack(pictures)
    tensor = triton.InferInput("pixels", list(whole.shape), "UINT8")
    tensor.set_data_from_numpy(whole)
    return tensor


def photos() -> list[bytes]:
    """Photos of different sizes, one of them upright."""
    upright = io.BytesIO()
    Image.open(photo("bee").path).convert("RGB").rotate(90, expand=True).save(upright, "PNG")
    return [photo("panda").data, photo("hammer").data, upright.getvalue()]


def top(client: httpx.Client, data: bytes, **query: Any) -> dict[int, float]:
    """Probabilities by class, as REST v1 answers them."""
    query = {"top_k": 100, **query}
    (result,) = client.post("/v1/classify", content=data, params=query).json()["results"]
    return {p["index"]: p["probability"] for p in result["predictions"]}


def check_same(row: np.ndarray, wanted: dict[int, float]) -> None:
    assert row.argmax() == next(iter(wanted))
    for index, probability in wanted.items():
        assert row[index] == pytest.approx(probability, abs=1e-6)


def test_health_and_metadata(stock: Any) -> None:
    assert stock.is_server_live()
    assert stock.is_server_ready()
    assert stock.is_model_ready(MODEL)
    assert stock.is_model_ready(MODEL, "1")
    assert not stock.is_model_ready("nobody")
    assert not stock.is_model_ready(MODEL, "7")
    told = stock.get_server_metadata()
    assert told["name"] == "anypool"
    assert {"binary_tensor_data", "classification", "statistics"} <= set(told["extensions"])
    model = stock.get_model_metadata(MODEL)
    assert model["versions"] == ["1"]
    assert model["inputs"] == [
        {"name": "image", "datatype": "BYTES", "shape": [-1, 1]},
        {"name": "pixels", "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
    ]
    assert model["outputs"] == [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 1000]},
        {"name": "logits", "datatype": "FP32", "shape": [-1, 1000]},
        {"name": "embedding", "datatype": "FP32", "shape": [-1, 1280]},
    ]


def test_files_of_different_sizes_in_one_request(stock: Any, client: httpx.Client) -> None:
    data = photos()
    found = stock.infer(MODEL, [files(*data)], request_id="mine")
    rows = found.as_numpy("probabilities")
    assert found.get_response() | {"outputs": 0} == {
        "model_name": MODEL, "model_version": "1", "id": "mine", "outputs": 0
    }  # fmt: skip
    assert rows.shape == (3, 1000)
    for row, file in zip(rows, data, strict=True):
        check_same(row, top(client, file))


@pytest.mark.parametrize("binary", [True, False])
def test_all_outputs_binary_and_json(stock: Any, client: httpx.Client, binary: bool) -> None:
    outputs = [
        triton.InferRequestedOutput(name, binary_data=binary)
        for name in ("embedding", "logits", "probabilities")
    ]
    found = stock.infer(MODEL, [files(photo("panda").data)], outputs=outputs, model_version="1")
    logits, probabilities = found.as_numpy("logits")[0], found.as_numpy("probabilities")[0]
    powers = np.exp(logits.astype(np.float64) - logits.max())
    assert np.abs(powers / powers.sum() - probabilities).max() < 1e-6
    check_same(probabilities, top(client, photo("panda").data))
    wanted = client.post(
        "/v1/classify", content=photo("panda").data, params={"embedding": "true"}
    ).json()["results"][0]["embedding"]
    assert np.abs(found.as_numpy("embedding")[0] - wanted).max() < 1e-5


@pytest.mark.parametrize("binary", [True, False])
def test_class_count_gives_values_indices_and_labels(stock: Any, binary: bool) -> None:
    wanted = triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=2)
    found = stock.infer(MODEL, [files(*photos())], outputs=[wanted])
    rows = found.as_numpy("probabilities")
    assert rows.shape == (3, 2)
    first = rows[0, 0].decode() if binary else rows[0, 0]
    value, index, label = first.split(":", 2)
    assert (index, label) == ("388", "giant panda")
    assert 0.5 < float(value) < 1


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_bodies(stock: Any, client: httpx.Client, algorithm: str) -> None:
    picture = np.asarray(Image.open(photo("panda").path).convert("RGB").resize((320, 213)))
    tensor = raster(picture)
    found = stock.infer(MODEL, [tensor], request_compression_algorithm=algorithm,
                        response_compression_algorithm=algorithm)  # fmt: skip
    assert found.as_numpy("probabilities")[0].argmax() == 388


def test_a_body_that_inflates_beyond_the_limit_is_413(client: httpx.Client) -> None:
    bomb = gzip.compress(bytes(100_000_000))
    assert len(bomb) < 200_000
    for path in (f"/v2/models/{MODEL}/infer", "/v1/classify"):
        answer = client.post(path, content=bomb, headers={"Content-Encoding": "gzip"})
        assert answer.status_code == 413, path
        assert "may have 64 MB" in answer.text


def test_v1_takes_compressed_bodies_too(client: httpx.Client) -> None:
    data = photo("panda").data
    for encoding, packed in (("gzip", gzip.compress(data)), ("deflate", zlib.compress(data))):
        headers = {"Content-Encoding": encoding}
        answer = client.post("/v1/classify", content=packed, headers=headers)
        assert answer.json()["results"][0]["predictions"][0]["index"] == 388
        answer = client.post("/v1/classify", content=packed[:-9], headers=headers)
        assert answer.status_code == 400
        assert "not whole" in answer.json()["detail"]
    members = gzip.compress(data[:1000]) + gzip.compress(data[1000:])
    for encoding, body in (("gzip", members), ("", data), ("identity", data)):
        answer = client.post("/v1/classify", content=body, headers={"Content-Encoding": encoding})
        assert answer.json()["results"][0]["predictions"][0]["index"] == 388
    many = gzip.compress(b"") * 101
    answer = client.post("/v1/classify", content=many, headers={"Content-Encoding": "gzip"})
    assert "too many members" in answer.json()["detail"]
    answer = client.post("/v1/classify", content=data, headers={"Content-Encoding": "br"})
    assert answer.status_code == 400
    assert "gzip and deflate are" in answer.json()["detail"]


def test_a_portrait_and_a_landscape_of_equal_area_at_once(
    served: Served, client: httpx.Client
) -> None:
    picture = Image.open(photo("panda").path).convert("RGB")
    landscape = np.asarray(picture.resize((160, 96)))
    portrait = np.asarray(picture.resize((96, 160)))
    alone = {}
    for pixels in (landscape, portrait):
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        alone[pixels.shape] = top(client, out.getvalue(), resize="native")

    def ask(pixels: np.ndarray) -> np.ndarray:
        with triton.InferenceServerClient(served.url.removeprefix("http://")) as one:
            row: np.ndarray = one.infer(MODEL, [raster(pixels)]).as_numpy("probabilities")[0]
            return row

    both = [landscape, portrait] * 8
    with ThreadPoolExecutor(4) as pool:
        for pixels, row in zip(both, pool.map(ask, both), strict=True):
            check_same(row, alone[pixels.shape])


def test_asked_asynchronously(stock: Any, served: Served, client: httpx.Client) -> None:
    data = photos()
    wanted = [top(client, file) for file in data]
    pending = [stock.async_infer(MODEL, [files(file)]) for file in data]
    for request, expected in zip(pending, wanted, strict=True):
        check_same(request.get_result().as_numpy("probabilities")[0], expected)

    async def ask() -> Sequence[Any]:
        address = served.url.removeprefix("http://")
        async with triton_aio.InferenceServerClient(address) as asking:
            assert await asking.is_server_ready()
            found = [asking.infer(MODEL, [files(file)]) for file in data]
            return await asyncio.gather(*found)

    for result, expected in zip(asyncio.run(ask()), wanted, strict=True):
        check_same(result.as_numpy("probabilities")[0], expected)


def test_json_alone_and_a_bare_file(client: httpx.Client) -> None:
    data = photo("panda").data
    encoded = base64.b64encode(data).decode()
    asked = {
        "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [encoded]}],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 1}}],
    }
    path = f"/v2/models/{MODEL}/infer"
    answer = client.post(path, json=asked)
    assert answer.headers["content-type"] == "application/json"
    (output,) = answer.json()["outputs"]
    assert output["data"][0].endswith(":388:giant panda")
    headers = {"Inference-Header-Content-Length": "0"}
    bare = client.post(path, content=data, headers=headers).json()
    assert np.argmax(bare["outputs"][0]["data"]) == 388


def test_config_as_perf_analyzer_reads_it(stock: Any) -> None:
    config = stock.get_model_config(MODEL)
    assert config["name"] == MODEL
    assert config["max_batch_size"] == 64
    assert config["input"] == [
        {"name": "image", "data_type": "TYPE_STRING", "dims": [1], "optional": True},
        {"name": "pixels", "data_type": "TYPE_UINT8", "dims": [-1, -1, 3], "optional": True},
    ]
    assert config["output"][0] == {
        "name": "probabilities", "data_type": "TYPE_FP32", "dims": [1000]
    }  # fmt: skip
    assert config["dynamic_batching"] == {}
    metadata = stock.get_model_metadata(MODEL)
    for kind in ("input", "output"):
        for told, configured in zip(metadata[f"{kind}s"], config[kind], strict=True):
            assert told["name"] == configured["name"]
            assert told["shape"] == [-1, *configured["dims"]]


def test_statistics_as_perf_analyzer_reads_them(stock: Any) -> None:
    (before,) = stock.get_inference_statistics(MODEL, "1")["model_stats"]
    stock.infer(MODEL, [files(*photos())])
    with pytest.raises(InferenceServerException):
        stock.infer(MODEL, [files(b"rubbish")])
    (after,) = stock.get_inference_statistics(MODEL)["model_stats"]
    assert (after["name"], after["version"]) == (MODEL, "1")
    assert after["last_inference"] > 1_700_000_000_000
    assert after["inference_count"] - before["inference_count"] == 3
    assert 1 <= after["execution_count"] - before["execution_count"] <= 3

    def grown(name: str, field: str) -> int:
        grew: int = after["inference_stats"][name][field] - before["inference_stats"][name][field]
        return grew

    for name in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert grown(name, "count") == 1, name
    assert grown("fail", "count") == 1
    assert grown("cache_hit", "count") == grown("cache_miss", "count") == 0
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    assert 0 < grown("compute_infer", "ns") < grown("success", "ns")
    assert sum(grown(name, "ns") for name in parts) >= 0.99 * grown("success", "ns")
    runs = sum(entry["compute_infer"]["count"] for entry in after["batch_stats"])
    assert abs(runs - after["execution_count"]) <= 1
    every = stock.get_inference_statistics()["model_stats"]
    assert {entry["name"] for entry in every} == {MODEL, "seed_cnn"}


def test_models_are_loaded_and_unloaded(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store / MODEL, tmp_path / MODEL)
    with (
        Server(tmp_path, "--control-access", "open") as server,
        triton.InferenceServerClient(server.url.removeprefix("http://")) as stock,
    ):
        (ours,) = stock.get_model_repository_index()
        assert ours == {"name": MODEL, "version": "1", "state": "READY", "reason": ""}
        with pytest.raises(InferenceServerException, match="no model is named 'seed_cnn'"):
            stock.load_model("seed_cnn")
        shutil.copytree(store / "seed_cnn", tmp_path / "seed_cnn")
        stock.load_model("seed_cnn")
        assert stock.is_model_ready("seed_cnn")
        assert [entry["name"] for entry in stock.get_model_repository_index()] == [
            MODEL, "seed_cnn"
        ]  # fmt: skip
        stock.unload_model("seed_cnn")
        assert not stock.is_model_ready("seed_cnn")
        states = {e["name"]: e["state"] for e in stock.get_model_repository_index()}
        assert states == {MODEL: "READY", "seed_cnn": "UNAVAILABLE"}
        ready = httpx.post(f"{server.url}/v2/repository/index", json={"ready": True}).json()
        assert [entry["name"] for entry in ready] == [MODEL]
        (tmp_path / "seed_cnn" / "1" / "model.onnx").write_bytes(b"broken")
        with pytest.raises(InferenceServerException, match="not loaded: seed_cnn version 1: "):
            stock.load_model("seed_cnn")
        with pytest.raises(InferenceServerException, match="default model, which cannot be"):
            stock.unload_model(MODEL)
        with pytest.raises(InferenceServerException, match="no parameters are taken"):
            stock.load_model(MODEL, config="{}")
        for rubbish in (b"[]", b"{", b"[" * 50_000):
            answer = httpx.post(f"{server.url}/v2/repository/index", content=rubbish)
            assert answer.status_code == 400


REFUSED: dict[str, tuple[str, dict[str, Any], str, int]] = {
    "no such model": ("nobody", {}, "no model is named 'nobody'", 404),
    "no such version": (MODEL, {"model_version": "7"}, "has no version 7", 404),
}


@pytest.mark.parametrize(("name", "options", "said", "status"), REFUSED.values(), ids=REFUSED)
def test_errors_reach_the_client_as_its_own(
    stock: Any, name: str, options: dict[str, Any], said: str, status: int
) -> None:
    with pytest.raises(InferenceServerException, match=said) as caught:
        stock.infer(name, [files(photo("panda").data)], **options)
    assert caught.value.status() == str(status)


def test_one_bad_image_refuses_the_request_and_is_named(stock: Any) -> None:
    sent = [files(photo("panda").data, b"no image")]
    with pytest.raises(InferenceServerException, match=r"image 1: .*accepted are JPEG") as caught:
        stock.infer(MODEL, sent)
    assert caught.value.status() == "415"
    small = raster(np.zeros((8, 300, 3), np.uint8))
    with pytest.raises(InferenceServerException, match="the network takes 32×32") as caught:
        stock.infer(MODEL, [small])
    assert caught.value.status() == "422"
    wide = raster(np.zeros((40, 2100, 3), np.uint8))
    with pytest.raises(InferenceServerException, match="the limits are 2048 a side") as caught:
        stock.infer(MODEL, [wide])
    assert caught.value.status() == "413"


def test_a_timeout_in_microseconds_is_kept(stock: Any) -> None:
    with pytest.raises(InferenceServerException, match="deadline") as caught:
        stock.infer(MODEL, [files(*photos() * 8)], timeout=1)
    assert caught.value.status() == "504"
    assert stock.infer(MODEL, [files(photos()[0])], timeout=30_000_000, priority=1) is not None


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/systemsharedmemory/status", 404),
        ("GET", f"/v2/models/{MODEL}/infer", 405),
        ("POST", f"/v2/models/{MODEL}", 405),
        ("GET", "/v2/models/nobody/config", 404),
        ("GET", "/v2/models/nobody/stats", 404),
        ("GET", f"/v2/models/{MODEL}/versions/0/ready", 404),
    ],
)
def test_every_error_is_one_line_of_json(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]


def test_a_wrong_length_of_the_header_is_told(client: httpx.Client) -> None:
    for told in ("-1", "x", "1" * 30):
        headers = {"Inference-Header-Content-Length": told}
        answer = client.post(f"/v2/models/{MODEL}/infer", content=b"{}", headers=headers)
        assert answer.status_code == 400
        assert "is a number of bytes" in json.loads(answer.content)["error"]
