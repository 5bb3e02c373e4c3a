"""What /openapi.json says is true: schemathesis asks a real server thousands of things."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from pydantic import BaseModel

from service.api.schemas_v1 import ClassifyAnswer, ProblemBody
from tests.e2e.server import Served, Server

# All its checks hold but one, of classify: a schema can say neither which bytes are an image, nor
# which parameters go together (no size with native, no threshold with softmax).
CONFIGURATION = """
[[operations]]
include-method = "POST"
checks.positive_data_acceptance.enabled = false
"""


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{server.url}/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


@pytest.fixture(scope="module")
def controlled(store: Path) -> Iterator[Server]:
    """A server whose models may be loaded and unloaded: a closed route is 403 with any method."""
    with Server(store, "--control-access", "open") as running:
        yield running


def test_schemathesis_finds_nothing(controlled: Server, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml",
        "run", f"{controlled.url}/openapi.json",
        "--phases", "examples,coverage,fuzzing",
        "--max-examples", "25", "--seed", "1", "--generation-deterministic",
        "--continue-on-failure", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def test_an_example_of_the_document_is_answered_as_it_says(
    server: Server, document: dict[str, Any]
) -> None:
    body = document["paths"]["/v1/classify"]["post"]["requestBody"]["content"]
    example = body["application/json"]["examples"]["png"]["value"]
    asked: list[dict[str, Any]] = [{}, {"embedding": True}, {"cam": "png"}, {"cam": "array"}]
    schema = schemathesis.openapi.from_dict(document)
    for query in asked:
        answer = httpx.post(f"{server.url}/v1/classify", json=example, params=query, timeout=60)
        assert answer.status_code == 200
        assert "predictions" in answer.json()["results"][0]
        schema["/v1/classify"]["POST"].validate_response(answer)


def test_every_answer_has_an_example_that_fits_its_schema(document: dict[str, Any]) -> None:
    kinds: dict[str, type[BaseModel]] = {
        "ClassifyAnswer": ClassifyAnswer,
        "ProblemBody": ProblemBody,
    }
    seen = 0
    for operation in operations(document):
        for status, answer in operation["responses"].items():
            for media_type, content in answer.get("content", {}).items():
                kind = content["schema"].get("$ref", "").rpartition("/")[2]
                assert (media_type == "application/problem+json") == (kind == "ProblemBody")
                for example in content.get("examples", {}).values() if kind in kinds else ():
                    kinds[kind].model_validate(example["value"])
                    assert example["value"].get("status", 200) == int(status)
                    seen += 1
    assert seen > 30


def test_names_of_operations_are_short_and_each_is_described(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(document)]
    assert len(set(names)) == len(names)
    assert {"classify", "classify_with_model", "classify_with_version", "models", "model"} <= {
        *names
    }
    for operation in operations(document):
        assert operation["summary"]
        assert operation["description"]
        for answer in operation["responses"].values():
            assert "X-Request-Id" in answer["headers"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/models", "/docs"])
def test_head_is_get_without_a_body(served: Served, path: str) -> None:
    get, head = (
        httpx.get(f"{served.url}{path}", timeout=60),
        httpx.head(f"{served.url}{path}", timeout=60),
    )
    assert head.status_code == get.status_code == 200
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.content == b""


def test_a_wrong_method_is_told_the_right_ones(served: Served) -> None:
    assert httpx.delete(f"{served.url}/v1/models", timeout=60).headers["allow"] == "GET, HEAD"
    head = httpx.head(f"{served.url}/v1/classify", timeout=60)
    assert (head.status_code, head.headers["allow"]) == (405, "POST")
