"""The commands that need no server, run as a user runs them."""

import json
import shutil
from pathlib import Path

import httpx
import pytest

from service import cuda
from tests.conftest import PHOTOS, anypool, photo


def test_files_and_folders_are_classified_without_a_server(store: Path, tmp_path: Path) -> None:
    shutil.copy(photo("panda").path, tmp_path / "b.webp")
    (tmp_path / "sub").mkdir()
    shutil.copy(photo("bee").path, tmp_path / "sub" / "c.JPG")
    (tmp_path / "notes.txt").write_text("not an image")

    done = anypool("classify", tmp_path, photo("cup").path, "--artifacts", store)

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[1].split()[0] for line in lines] == ["giant", "bee", "cup"]


def test_classify_gives_json_and_says_what_failed(store: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(photo("bee").data[:5000])
    done = anypool(
        "classify",
        PHOTOS,
        tmp_path,
        "--artifacts",
        store,
        "--json",
        "--top-k",
        "2",
        "--size",
        "224",
    )
    assert done.returncode == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    files = [path.name for path in PHOTOS.iterdir() if path.suffix in (".webp", ".jpg")]
    assert [Path(row["name"]).name for row in rows] == [*sorted(files), "broken.jpg"]
    assert rows[-1]["error"]["type"] == "undecodable-image"
    assert all(max(row["used"].values()) == 224 for row in rows[:-1])
    assert all(len(row["predictions"]) == 2 for row in rows[:-1])


def test_the_command_and_the_server_answer_alike(store: Path, client: httpx.Client) -> None:
    path = photo("dog").path
    done = anypool("classify", path, "--artifacts", store, "--json")
    answer = client.post("/v1/classify", content=path.read_bytes()).json()
    assert json.loads(done.stdout)["predictions"] == answer["results"][0]["predictions"]


def test_what_is_not_there_is_named(store: Path, tmp_path: Path) -> None:
    missing = anypool("classify", tmp_path / "nothing.jpg", "--artifacts", store)
    assert (missing.returncode, "nothing.jpg" in missing.stderr) == (2, True)
    empty = anypool("classify", photo("cup").path, "--artifacts", tmp_path)
    assert (empty.returncode, "anypool export" in empty.stderr) == (1, True)


def test_an_artifact_is_verified_and_inspected(store: Path, tmp_path: Path) -> None:
    folder = store / "seed_cnn" / "1"
    verified = anypool("verify", folder)
    assert verified.returncode == 0
    assert "comparisons agree on CPUExecutionProvider" in verified.stdout
    inspected = anypool("inspect", folder)
    assert inspected.returncode == 0
    assert "smallest   1×1" in inspected.stdout
    assert json.loads(anypool("inspect", folder, "--json").stdout)["format"] == 1
    assert anypool("inspect", tmp_path).returncode == 1


def test_unknown_commands_and_missing_arguments_end_with_2() -> None:
    assert anypool("frobnicate").returncode == 2
    assert anypool("classify").returncode == 2
    assert anypool().returncode == 2


@pytest.mark.skipif(cuda.problem() is None, reason="there is a GPU")
def test_serve_ends_with_one_line_where_cuda_was_asked_for_in_vain(store: Path) -> None:
    done = anypool("serve", "--provider", "cuda", "--port", "0", "--artifacts", store)
    assert done.returncode == 1
    assert done.stderr == f"anypool serve: --provider cuda: {cuda.problem()}\n"
