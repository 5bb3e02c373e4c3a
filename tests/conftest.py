"""Fixtures for every test: a store with real artifacts, exported once a session."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Machines are shared: a slow example is no failure. CI draws the same examples every time.
settings.register_profile("anypool", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("anypool")

PHOTOS = Path(__file__).parent / "photos"


@dataclass(frozen=True, slots=True)
class Photo:
    """A real photo and the ImageNet classes that are right for it."""

    path: Path
    truth: tuple[int, ...]
    width: int
    height: int

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()


def photo(name: str) -> Photo:
    """The photo whose file is called `name`, with or without its suffix."""
    return next(p for p in all_photos() if name in (p.path.name, p.path.stem))


def all_photos() -> list[Photo]:
    """Every photo of the manifest."""
    rows = json.loads((PHOTOS / "manifest.json").read_text(encoding="utf-8"))
    return [Photo(PHOTOS / r["file"], tuple(r["truth"]), *r["size"]) for r in rows]


def anypool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run an `anypool` command to its end."""
    command = [sys.executable, "-P", "-m", "service.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with efficientnet_lite0 and seed_cnn, exported by the real command."""
    root = tmp_path_factory.mktemp("artifacts")
    for name in ("efficientnet_lite0", "seed_cnn"):
        done = anypool("export", name, "--out", root)
        assert done.returncode == 0, done.stderr
    return root
