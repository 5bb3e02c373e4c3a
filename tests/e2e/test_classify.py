"""A photo of any size, classified over HTTP by a real server process."""

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from PIL import Image

from tests.conftest import all_photos, anypool, photo
from tests.e2e.server import Served, Server

# What torch itself answers for the pixels of `gradient()`; pinned, since neither swapped channels
# nor a second normalisation would show in accuracy.
GRADIENT_TOP = [
    (626, 0.039317768),
    (920, 0.020905998),
    (818, 0.018891228),
]


def gradient() -> bytes:
    """A PNG of 64×48 pixels whose red, green and blue differ everywhere."""
    y, x = np.mgrid[0:48, 0:64]
    rgb = np.stack([x * 4, y * 5, 255 - x * 2 - y * 2], axis=-1).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "PNG")
    return out.getvalue()


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def preset(store: Path, name: str, new: str, **changes: Any) -> None:
    """A copy of a model under another name, with changes to its card's preprocessing."""
    shutil.copytree(store / name, store / new)
    path = store / new / "1" / "card.json"
    card = json.loads(path.read_text()) | {"name": new}
    card["preprocessing"] |= changes
    path.write_text(json.dumps(card))


def multi_label(folder: Path) -> None:
    """Make the classes of an artifact independent of each other."""
    path = folder / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"activation": "sigmoid"}))
    for file in ("model.onnx", "ragged.onnx"):
        model = onnx.load(folder / file)
        (last,) = (node for node in model.graph.node if "probabilities" in node.output)
        last.op_type = "Sigmoid"
        del last.attribute[:]
        onnx.save(model, folder / file)


@pytest.fixture(scope="module")
def presets(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with models that crop, and one of many labels that resizes the shortest side."""
    root = tmp_path_factory.mktemp("presets")
    for name in ("efficientnet_lite0", "seed_cnn"):
        shutil.copytree(store / name, root / name)
    crop = {"policy": "crop", "size": 256, "crop": 224, "filter": "bilinear"}
    preset(root, "efficientnet_lite0", "cropped", **crop)
    preset(root, "seed_cnn", "tags", policy="short", size=40)
    multi_label(root / "tags" / "1")
    return root


@pytest.fixture(scope="module")
def preset_client(presets: Path) -> Iterator[httpx.Client]:
    with Server(presets) as running, httpx.Client(base_url=running.url, timeout=60) as connected:
        yield connected


def classify(client: httpx.Client, data: bytes, **query: Any) -> dict[str, Any]:
    return classify_with(client, "efficientnet_lite0", data, **query)


def classify_with(client: httpx.Client, model: str, data: bytes, **query: Any) -> dict[str, Any]:
    answer = client.post(f"/v1/models/{model}/classify", content=data, params=query)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()["results"][0]
    return result


def top(result: dict[str, Any]) -> int:
    index: int = result["predictions"][0]["index"]
    return index


def test_photos_of_mixed_sizes_and_formats_in_one_request_are_all_recognised(
    client: httpx.Client,
) -> None:
    photos = all_photos()
    kinds = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG"]
    files = []
    for index, item in enumerate(photos):
        image = Image.open(item.path).convert("RGB")
        image.thumbnail((1024 - 60 * index,) * 2)
        kind = kinds[index % len(kinds)]
        files.append(("files", (f"{item.path.stem}.{kind.lower()}", encoded(image, kind))))

    answer = client.post("/v1/classify", files=files)

    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [r["name"] for r in results] == [name for _, (name, _) in files]
    assert len({(r["used"]["width"], r["used"]["height"]) for r in results}) > 3
    wrong = [r["name"] for r, p in zip(results, photos, strict=True) if top(r) not in p.truth]
    assert wrong == []


def test_the_whole_path_gives_exactly_these_probabilities(client: httpx.Client) -> None:
    result = classify(client, gradient(), resize="native", top_k=len(GRADIENT_TOP))
    found = [(p["index"], p["probability"]) for p in result["predictions"]]
    assert [index for index, _ in found] == [index for index, _ in GRADIENT_TOP]
    for (_, got), (_, pinned) in zip(found, GRADIENT_TOP, strict=True):
        assert got == pytest.approx(pinned, rel=1e-4)


def test_raw_multipart_and_json_bodies_give_the_same_answer(client: httpx.Client) -> None:
    data = photo("panda").data
    raw = classify(client, data)
    multipart = client.post("/v1/classify", files=[("files", ("p.webp", data))]).json()
    text = base64.b64encode(data).decode()
    as_json = client.post("/v1/classify", json={"images": [{"name": "p", "data": text}]}).json()
    assert raw["name"] is None
    assert multipart["results"][0]["name"] == "p.webp"
    assert as_json["results"][0]["name"] == "p"
    assert (
        raw["predictions"]
        == multipart["results"][0]["predictions"]
        == as_json["results"][0]["predictions"]
    )


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "image/webp", None])
def test_any_other_content_type_is_one_image(served: Served, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = httpx.post(
        f"{served.url}/v1/classify", content=photo("pan").data, headers=headers, timeout=60
    )
    assert top(answer.json()["results"][0]) == 567


@pytest.mark.parametrize(
    ("name", "orientation", "turned_by"),
    [("cow", 6, Image.Transpose.ROTATE_90), ("pan", 8, Image.Transpose.ROTATE_270)],
)
def test_exif_orientation_is_applied(
    client: httpx.Client, name: str, orientation: int, turned_by: Image.Transpose
) -> None:
    item = photo(name)
    upright = Image.open(item.path).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation  # how to turn it to see it upright
    sideways = upright.transpose(turned_by)

    turned = classify(client, encoded(sideways, "JPEG", quality=95, exif=exif))
    untold = classify(client, encoded(sideways, "JPEG", quality=95))

    assert turned["input"] == {"width": item.width, "height": item.height}
    assert top(turned) in item.truth
    assert top(untold) not in item.truth  # else this photo could not show that it was turned


def test_the_answer_says_what_was_used(client: httpx.Client) -> None:
    answer = client.post("/v1/classify?top_k=2", content=photo("panda").data)
    body = answer.json()
    assert (body["model"], body["version"]) == ("efficientnet_lite0", "1")
    assert body["request_id"] == answer.headers["x-request-id"]
    result = body["results"][0]
    assert result["input"] == {"width": 1024, "height": 681}
    assert result["used"] == {"width": 320, "height": 213}
    assert result["resize"] == "fit"
    assert len(result["predictions"]) == 2
    assert set(result["predictions"][0]) == {"index", "id", "label", "probability"}
    assert result["predictions"][0]["label"] == "giant panda"
    assert result["predictions"][0]["id"] == "n02510455"
    assert "embedding" not in result
    timing = answer.headers["server-timing"]
    assert [part.split(";")[0] for part in timing.split(", ")] == ["decode", "queue", "infer"]


@pytest.mark.parametrize(
    ("query", "used"),
    [
        ({"resize": "fit", "size": 100}, (100, 67)),
        ({"resize": "fit", "size": 2000}, None),
        ({"resize": "limit", "size": 640}, (640, 426)),
        ({"resize": "limit", "size": 1100}, (1024, 681)),
        ({"resize": "native"}, (1024, 681)),
        ({"size": 224}, (224, 149)),
        ({"resize": "fit", "size": 33}, (33, 32)),
    ],
)
def test_resize_policies(
    client: httpx.Client, query: dict[str, Any], used: tuple[int, int] | None
) -> None:
    answer = client.post("/v1/classify", content=photo("panda").data, params=query)
    if used is None:
        assert answer.status_code == 413
        assert answer.json()["type"].endswith("/too-many-pixels")
    else:
        assert answer.json()["results"][0]["used"] == {"width": used[0], "height": used[1]}


def test_a_model_that_crops_sees_what_torchvision_would_give_it(
    preset_client: httpx.Client,
) -> None:
    item = photo("koala")
    size, middle = (256, 341), (16, 58, 240, 282)
    image = Image.open(item.path).convert("RGB").resize(size, Image.Resampling.BILINEAR)
    square = encoded(image.crop(middle), "PNG")
    result = classify_with(preset_client, "cropped", item.data, cam="array", top_k=2)
    expected = classify_with(
        preset_client, "cropped", square, cam="array", top_k=2, resize="native"
    )
    assert result["predictions"] == expected["predictions"]
    assert result["cam"] == expected["cam"]
    assert result["input"] == {"width": item.width, "height": item.height}
    assert result["used"] == {"width": 224, "height": 224}
    assert result["resize"] == "crop"
    assert {(heat_map["width"], heat_map["height"]) for heat_map in result["cam"]} == {(7, 7)}


@pytest.mark.parametrize(
    ("model", "query", "policy", "used"),
    [
        ("cropped", {"resize": "fit"}, "fit", (224, 149)),
        ("cropped", {"resize": "limit", "size": 300}, "limit", (300, 200)),
        ("cropped", {"resize": "native"}, "native", (1024, 681)),
        ("tags", {}, "short", (60, 40)),
        ("tags", {"size": 100}, "short", (150, 100)),
        ("tags", {"resize": "fit"}, "fit", (40, 27)),
    ],
)
def test_a_request_overrides_the_preset(
    preset_client: httpx.Client,
    model: str,
    query: dict[str, Any],
    policy: str,
    used: tuple[int, int],
) -> None:
    result = classify_with(preset_client, model, photo("panda").data, **query)
    assert (result["resize"], result["used"]) == (policy, {"width": used[0], "height": used[1]})


@pytest.mark.parametrize(
    ("model", "query", "said"),
    [
        ("cropped", {"size": 300}, "Send resize=fit with size"),
        ("cropped", {"threshold": 0.5}, "use min_probability"),
        ("tags", {"threshold": 1.5}, "threshold"),
        ("tags", {"threshold": "nan"}, "threshold"),
    ],
)
def test_what_a_preset_does_not_allow_is_a_bad_parameter(
    preset_client: httpx.Client, model: str, query: dict[str, Any], said: str
) -> None:
    url = f"/v1/models/{model}/classify"
    answer = preset_client.post(url, content=photo("panda").data, params=query)
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("/bad-parameter")
    assert said in answer.json()["detail"]


def test_an_image_that_would_be_huge_before_its_crop_is_refused(
    preset_client: httpx.Client,
) -> None:
    long = encoded(Image.new("L", (8000, 100)), "PNG")
    answer = preset_client.post("/v1/models/cropped/classify", content=long)
    assert answer.status_code == 413
    assert "before its crop there would be 20480×256 pixels" in answer.json()["detail"]
    way_out = classify_with(preset_client, "cropped", long, resize="limit")
    assert way_out["used"] == {"width": 224, "height": 32}


def test_a_threshold_answers_every_class_that_is_probable_enough(
    preset_client: httpx.Client,
) -> None:
    data = photo("panda").data
    everything = classify_with(preset_client, "tags", data, threshold=0, cam="array")
    probabilities = [p["probability"] for p in everything["predictions"]]
    assert len(probabilities) == 10
    assert sum(probabilities) > 2  # they do not exclude each other
    assert probabilities == sorted(probabilities, reverse=True)

    likely = classify_with(preset_client, "tags", data, threshold=probabilities[6], cam="array")
    assert likely["predictions"] == everything["predictions"][:7]
    assert likely["cam"] == everything["cam"][:7]
    few = classify_with(preset_client, "tags", data, threshold=probabilities[6], top_k=2)
    assert few["predictions"] == everything["predictions"][:2]
    none = classify_with(preset_client, "tags", data, threshold=1, cam="png")
    assert none["predictions"] == none["cam"] == []
    assert len(classify_with(preset_client, "tags", data)["predictions"]) == 5


def test_maps_of_all_likely_classes_of_many_images_are_within_the_limits(
    preset_client: httpx.Client,
) -> None:
    files = [("files", ("x.webp", photo("cup").data))] * 64
    url = "/v1/models/tags/classify?threshold=0&cam=png"
    results = preset_client.post(url, files=files).json()["results"]
    assert [len(result["cam"]) for result in results] == [10] * 64


def test_the_command_knows_presets_too(presets: Path) -> None:
    def run(model: str, *options: str) -> tuple[int, str, str]:
        path = photo("panda").path
        done = anypool("classify", path, "--artifacts", presets, "--model", model, *options)
        return done.returncode, done.stdout, done.stderr

    code, out, _ = run("tags", "--threshold", "0", "--json")
    assert (code, len(json.loads(out)["predictions"])) == (0, 10)
    code, out, _ = run("tags", "--threshold", "0", "--top-k", "3", "--size", "50", "--json")
    assert (code, len(json.loads(out)["predictions"])) == (0, 3)
    assert json.loads(out)["used"] == {"width": 75, "height": 50}
    for options, said in (
        (["--threshold", "0.5"], "use min_probability"),
        (["--size", "300"], "Send resize=fit with size"),
        (["--threshold", "2"], "not between 0 and 1"),
    ):
        code, _, err = run("cropped", *options)
        assert (code, said in err) == (2, True), err


def test_a_card_is_shown_with_its_preset(presets: Path) -> None:
    cropped = anypool("inspect", presets / "cropped" / "1").stdout
    assert "resize     crop to 224 of 256, bilinear\n" in cropped
    assert "activation softmax\n" in cropped
    tags = anypool("inspect", presets / "tags" / "1").stdout
    assert "resize     short to 40, bicubic\n" in tags
    assert "activation sigmoid\n" in tags


def test_top_k_classes_and_min_probability_choose_predictions(client: httpx.Client) -> None:
    data = photo("panda").data
    everything = classify(client, data, top_k=100)["predictions"]
    assert len(everything) == 100
    assert [p["probability"] for p in everything] == sorted(
        (p["probability"] for p in everything), reverse=True
    )
    chosen = classify(client, data, classes="1,388,7")["predictions"]
    assert {p["index"] for p in chosen} == {1, 7, 388}
    assert chosen[0]["index"] == 388
    likely = classify(client, data, min_probability=0.5)["predictions"]
    assert [p["index"] for p in likely] == [388]


def test_more_classes_than_there_are_gives_them_all(client: httpx.Client) -> None:
    answer = client.post("/v1/models/seed_cnn/classify?top_k=100", content=gradient())
    predictions = answer.json()["results"][0]["predictions"]
    assert len(predictions) == 10
    assert sum(p["probability"] for p in predictions) == pytest.approx(1, abs=1e-5)


def test_an_embedding_is_returned_when_asked_for(client: httpx.Client) -> None:
    embedding = classify(client, photo("cup").data, embedding=True)["embedding"]
    assert len(embedding) == 1280
    assert any(value != 0 for value in embedding)


def test_models_can_be_named_with_and_without_version(client: httpx.Client) -> None:
    data = photo("dog").data
    for path in ("models/seed_cnn", "models/seed_cnn/versions/1", "models/efficientnet_lite0"):
        answer = client.post(f"/v1/{path}/classify", content=data)
        assert answer.status_code == 200
        assert answer.json()["model"] == path.split("/")[1]


def test_the_list_of_models_and_a_card_can_be_read(client: httpx.Client) -> None:
    models = client.get("/v1/models").json()["models"]
    assert [(m["name"], m["default"]) for m in models] == [
        ("efficientnet_lite0", True),
        ("seed_cnn", False),
    ]
    body = client.get("/v1/models/efficientnet_lite0").json()
    assert body["card"]["parity"]["worst"] <= 2e-5
    assert body["card"]["limits"] == {"min_height": 32, "min_width": 32, "multiple": 1}
    assert body["limits"]["max_pixels"] == 2_100_000
    assert body["limits"]["max_images"] == 64


def test_operators_see_health_readiness_metrics_and_docs(client: httpx.Client) -> None:
    classify(client, photo("cup").data)
    assert client.get("/healthz").json() == {"status": "alive"}
    ready = client.get("/readyz").json()
    seed = {"name": "seed_cnn", "version": "1", "provider": "CPUExecutionProvider"}
    assert {**seed, "devices": ["cpu"]} in ready["models"]
    metrics = client.get("/metrics").text
    assert 'anypool_images_total{model="efficientnet_lite0",outcome="ok"}' in metrics
    assert client.get("/docs").status_code == 200
    assert "/v1/classify" in client.get("/openapi.json").json()["paths"]


def test_a_request_id_is_kept(client: httpx.Client) -> None:
    kept = client.get("/healthz", headers={"X-Request-Id": "order-66"})
    assert kept.headers.get_list("x-request-id") == ["order-66"]


def test_a_request_id_that_is_not_sane_is_replaced(server: Server) -> None:
    """Not so on Ray, whose proxy gives back whatever it got."""
    replaced = httpx.get(f"{server.url}/healthz", headers={"X-Request-Id": "two words"})
    assert replaced.headers["x-request-id"] != "two words"
