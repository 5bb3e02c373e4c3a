"""Bodies of the Open Inference Protocol: taken apart, refused with the reason, and written."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.tensors import Tensor, Wanted, best, read, write
from service.classify import Picture, Raster
from service.errors import AnypoolError, BadRequest, BodyTooLarge, TooManyImages

OUTPUTS = ("probabilities", "logits")


def body(*inputs: dict[str, Any], raw: bytes = b"", **more: Any) -> tuple[bytes, int | None]:
    text = json.dumps({"inputs": inputs, **more}).encode()
    return text + raw, len(text) if raw else None


def image(n: int, raw: bytes | None = None, **more: Any) -> dict[str, Any]:
    parameters = {} if raw is None else {"parameters": {"binary_data_size": len(raw)}}
    return {"name": "image", "shape": [n], "datatype": "BYTES", **parameters, **more}


def pixels(*shape: int, size: int | None = None, **more: Any) -> dict[str, Any]:
    parameters = {} if size is None else {"parameters": {"binary_data_size": size}}
    return {"name": "pixels", "shape": [*shape], "datatype": "UINT8", **parameters, **more}


def elements(*files: bytes) -> bytes:
    return b"".join(len(file).to_bytes(4, "little") + file for file in files)


def files(data: bytes, header: int | None, channels: int = 3) -> list[bytes]:
    """The files of a request's input `image`."""
    pictures = read(data, header, channels, OUTPUTS, 64).pictures
    assert all(isinstance(picture, Picture) for picture in pictures)
    return [picture.data for picture in pictures if isinstance(picture, Picture)]


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8))
def test_binary_images_come_out_as_they_went_in(sent: list[bytes]) -> None:
    raw = elements(*sent)
    assert files(*body(image(len(sent), raw), raw=raw)) == sent
    column = image(len(sent), raw) | {"shape": [len(sent), 1]}
    assert files(*body(column, raw=raw)) == sent


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8))
def test_images_in_json_are_base64_flat_or_nested(sent: list[bytes]) -> None:
    texts = [base64.b64encode(data).decode() for data in sent]
    for data in (texts, [[text] for text in texts], [{"b64": text} for text in texts]):
        assert files(*body(image(len(sent), data=data))) == sent


def test_a_body_that_is_one_image_needs_no_json() -> None:
    found = read(b"\xff\xd8...", 0, 3, OUTPUTS, 64)
    assert found.pictures == [Picture(None, b"\xff\xd8...")]
    assert found.outputs == [Wanted("probabilities", False, None)]


@pytest.mark.parametrize("nested", [False, True])
def test_pixels_are_cut_into_images(nested: bool) -> None:
    whole = np.arange(2 * 3 * 4 * 1, dtype=np.uint8).reshape(2, 3, 4, 1)
    data = whole.tolist() if nested else whole.ravel().tolist()
    raw = whole.tobytes()
    for sent in (body(pixels(2, 3, 4, 1, data=data)), body(pixels(2, 3, 4, 1, size=24), raw=raw)):
        for index, raster in enumerate(read(*sent, 1, OUTPUTS, 64).pictures):
            assert isinstance(raster, Raster)
            assert np.array_equal(raster.pixels, whole[index])


RAW = elements(b"abc")
REFUSED: dict[str, tuple[tuple[bytes, int | None], str]] = {
    "no JSON": ((b"{", None), "the request's JSON: body: "),
    "not even text": ((b"\xff\xfe", None), "the request's JSON"),
    "a list": ((b"[]", None), "the request's JSON"),
    "nothing": ((b"", 0), "the body is empty"),
    "too short for its header": ((b"{}", 3), "Content-Length is 3; the body has 2"),
    "no input": (body(), "send exactly one input, 'image' .* sent were: none"),
    "both": (body(image(1, data=["aa"]), pixels(1, 1, 1, 3, data=[1, 2, 3])), "exactly one input"),
    "unknown": (body(image(1, data=["aaaa"]) | {"name": "x"}), "sent were: 'x'"),
    "float pixels": (body(pixels(1, 1, 1, 3) | {"datatype": "FP32"}), "neither data nor"),
    "FP32": (body(pixels(1, 1, 1, 3, data=[1]) | {"datatype": "FP32"}), "it should be UINT8"),
    "image, FP32": (body(image(1, data=["aa"]) | {"datatype": "FP32"}), "it should be BYTES"),
    "image of 2 columns": (body(image(1, data=["aa"]) | {"shape": [1, 2]}), "should be BYTES"),
    "none": (body(image(0, data=[])), "the request has no image"),
    "channels": (body(pixels(1, 2, 2, 1, data=[1, 2, 3, 4])), r"UINT8 \[n, height, width, 3\]"),
    "no height": (body(pixels(1, 0, 2, 3, data=[])), "should be UINT8"),
    "negative": (body(image(1, data=["aa"]) | {"shape": [-1]}), "inputs.0.shape.0"),
    "huge": (body(pixels(1, 2**30, 2**30, 3, data=[1])), "pixels has 1 values; its shape says"),
    "twice the data": (body(image(1, RAW, data=["aa"]), raw=RAW), "send one of them"),
    "wrong size": (body(image(1, RAW), raw=RAW + b"x"), "binary_data_size is 7, and 8 bytes"),
    "forgotten": (body(image(1, data=["aaaa"]), raw=RAW), "binary_data_size is 0, and 7 bytes"),
    "no size": (body(image(1, b"") | {"parameters": {"binary_data_size": "7"}}), "size is 7"),
    "ends early": (body(image(2, RAW), raw=RAW), "the data ends within element 1 of 2"),
    "cut": (body(image(1, RAW[:-1]), raw=RAW[:-1]), "the data ends within element 0 of 1"),
    "left over": (body(image(1, 2 * RAW), raw=2 * RAW), "7 bytes are left after the last of 1"),
    "not base64": (body(image(1, data=["ä"])), "image.data.0 is not base64"),
    "no text": (body(image(1, data=[3])), "a list of texts"),
    "fewer": (body(image(2, data=["aaaa"])), "has 1 elements; its shape says 2"),
    "uneven": (body(image(2, data=[["aaaa"], "aaaa"])), "neither flat nor nested evenly"),
    "256": (body(pixels(1, 1, 1, 3, data=[1, 2, 256])), "whole numbers from 0 to 255"),
    "1.5": (body(pixels(1, 1, 1, 3, data=[1, 2, 1.5])), "whole numbers from 0 to 255"),
    "true": (body(pixels(1, 1, 1, 3, data=[1, 2, True])), "whole numbers from 0 to 255"),
    "shared": (body(image(1) | {"parameters": {"shared_memory_region": "x"}}), "shared memory"),
    "output": (body(image(1, data=["aaaa"]), outputs=[{"name": "x"}]), "no output is named 'x'"),
    "twice": (body(image(1, data=["aaaa"]), outputs=2 * [{"name": "logits"}]), "asked for twice"),
    "classes": (
        body(image(1, data=["aaaa"]),
             outputs=[{"name": "logits", "parameters": {"classification": 0}}]),
        "at least 1",
    ),
    "shared output": (
        body(image(1, data=["aaaa"]),
             outputs=[{"name": "logits", "parameters": {"shared_memory_region": "x"}}]),
        "shared memory",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_wrong_is_said(sent: tuple[bytes, int | None], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        read(*sent, 3, OUTPUTS, 64)


def test_more_images_than_allowed_are_refused() -> None:
    with pytest.raises(TooManyImages):
        read(*body(image(3, data=["aaaa"] * 3)), 3, OUTPUTS, 2)
    with pytest.raises(TooManyImages):
        read(*body(pixels(3, 1, 1, 1, data=[1, 2, 3])), 1, OUTPUTS, 2)


def test_millions_of_values_are_refused_before_they_are_read() -> None:
    with pytest.raises(BodyTooLarge, match="2000000 values here"):
        read(b'{"inputs": [' + b"{}," * 3_000_000 + b"{}]}", None, 3, OUTPUTS, 64)
    with pytest.raises(BadRequest, match=r"inputs\.0\.name: Field required"):
        read(b'{"inputs": [' + b"{}," * 500_000 + b"{}]}", None, 3, OUTPUTS, 64)


@given(st.binary(max_size=200), st.none() | st.integers(0, 250))
def test_rubbish_is_refused_and_nothing_else(data: bytes, header: int | None) -> None:
    try:
        read(data, header, 3, OUTPUTS, 64)
    except AnypoolError:
        pass
    else:
        assert header == 0  # an image of its own: the decoder will judge it


def test_an_output_may_override_how_all_are_sent() -> None:
    asked = [
        {"name": "logits", "parameters": {"binary_data": False, "classification": 3}},
        {"name": "probabilities"},
    ]
    data, header = body(
        image(1, data=["aaaa"]), outputs=asked, parameters={"binary_data_output": True}, id="7"
    )
    found = read(data, header, 3, OUTPUTS, 64)
    assert found.id == "7"
    assert found.outputs == [Wanted("logits", False, 3), Wanted("probabilities", True, None)]


VALUES = np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]], np.float32)
RANKING = np.array([[1, 2, 0], [0, 1, 2]])


def test_the_best_classes_are_value_index_label() -> None:
    rows = best(VALUES, RANKING, ["cat", "dog: small", "cow"], 2)
    assert rows[0] == ["0.699999988:1:dog: small", "0.200000003:2:cow"]
    assert rows[1] == ["0.5:0:cat", "0.25:1:dog: small"]
    assert len(best(VALUES, RANKING, ["a", "b", "c"], 9)[0]) == 3


def test_an_answer_in_json_has_flat_data() -> None:
    text, length = write({"id": "7"}, [Tensor("logits", VALUES, False)])
    assert length is None
    answer = json.loads(text)
    assert answer["id"] == "7"
    (output,) = answer["outputs"]
    assert output | {"data": 0} == {
        "name": "logits",
        "datatype": "FP32",
        "shape": [2, 3],
        "data": 0,
    }
    assert np.array_equal(np.array(output["data"], np.float32), VALUES.ravel())


def test_bytes_follow_the_json_in_the_order_of_the_outputs() -> None:
    rows = [["0.5:0:cat"], ["0.25:1:dog"]]
    tensors = [
        Tensor("a", VALUES, True), Tensor("b", VALUES, False), Tensor("c", rows, True),
        Tensor("d", rows, False),
    ]  # fmt: skip
    sent, length = write({}, tensors)
    assert length is not None
    outputs = {output["name"]: output for output in json.loads(sent[:length])["outputs"]}
    assert outputs["a"]["parameters"]["binary_data_size"] == 24
    assert outputs["c"]["parameters"]["binary_data_size"] == 4 + 9 + 4 + 10
    assert outputs["c"]["shape"] == [2, 1]
    assert outputs["d"]["data"] == ["0.5:0:cat", "0.25:1:dog"]
    assert sent[length:] == VALUES.tobytes() + elements(b"0.5:0:cat", b"0.25:1:dog")
