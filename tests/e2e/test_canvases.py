"""Pinned canvases, from the option to the answer."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import all_photos, anypool
from tests.e2e.server import Server


def answers(url: str, query: str) -> list[dict[int, float]]:
    """Probabilities by class, for all photos in one request."""
    files = [("files", (photo.path.name, photo.data)) for photo in all_photos()]
    got = httpx.post(f"{url}/v1/classify?top_k=100&{query}", files=files, timeout=120)
    results: list[dict[str, Any]] = got.raise_for_status().json()["results"]
    return [{p["index"]: p["probability"] for p in r["predictions"]} for r in results]


def pinned_runs(url: str) -> float:
    text = httpx.get(f"{url}/metrics").text
    found = re.search(r'anypool_runs_total\{kind="pinned"\} (\S+)', text)
    return float(found[1]) if found else 0.0


def test_photos_on_canvases_are_answered_as_without(
    store: Path, tmp_path: Path, server: Server
) -> None:
    file = tmp_path / "canvases.json"
    file.write_text(json.dumps({"efficientnet_lite0": [[4, 224, 320], [2, 320, 320]]}))
    with Server(store, "--canvases", str(file), "--cores", "1") as pinned:
        runs = [pinned_runs(pinned.url)]
        for size in (320, 200, 400):  # 400 is too large for both canvases
            query = f"resize=fit&size={size}"
            on_canvases, without = answers(pinned.url, query), answers(server.url, query)
            runs.append(pinned_runs(pinned.url))
            for found, expected in zip(on_canvases, without, strict=True):
                # Classes that are about equally improbable may change places at the end of the top.
                both = found.keys() & expected.keys()
                assert len(both) >= 98
                assert {i: found[i] for i in both} == pytest.approx(
                    {i: expected[i] for i in both}, rel=1e-3, abs=1e-6
                )
    assert runs[0] == 0
    assert runs[0] < runs[1] < runs[2] == runs[3]


def test_a_file_of_canvases_that_is_missing_ends_the_command_with_1(
    store: Path, tmp_path: Path
) -> None:
    done = anypool("serve", "--artifacts", store, "--canvases", tmp_path / "missing.json")
    assert done.returncode == 1
    assert f"anypool serve: --canvases: {tmp_path / 'missing.json'} cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_canvases_of_an_unknown_model_end_the_command_with_1(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "canvases.json"
    file.write_text('{"efficientnet": [[4, 64, 64]]}')
    done = anypool("serve", "--artifacts", store, "--canvases", file)
    assert done.returncode == 1
    assert "'efficientnet'; there are: efficientnet_lite0, seed_cnn" in done.stderr


def test_a_canvas_too_small_for_the_network_is_named_by_readyz(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "canvases.json"
    file.write_text('{"efficientnet_lite0": [[4, 16, 64]]}')
    with Server(store, "--canvases", str(file), wait=False) as server:
        server.wait_for_log("not ready:")
        answer = httpx.get(f"{server.url}/readyz")
        assert answer.status_code == 503
        assert "at least 32×32" in answer.json()["detail"]
