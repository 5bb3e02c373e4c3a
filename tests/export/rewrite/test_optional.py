"""Maps are computed only when they are asked for."""

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from service.engine import Engine

NETWORKS = ("efficientnet_lite0", "seed_cnn")


def executed(store: Path, name: str, classes: list[list[int]], tmp_path: Path) -> list[str]:
    """The operators that ONNX Runtime ran, by its own profile."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = ort.InferenceSession(store / name / "1" / "model.onnx", options)
    channels = Engine(store / name / "1", "cpu").card.preprocessing.channels
    pixels = np.zeros((len(classes), 64, 64, channels), np.uint8)
    wanted = np.array(classes, np.int64).reshape(len(classes), -1)
    session.run(["logits"], {"pixels": pixels, "classes": wanted})
    events = json.loads(Path(session.end_profiling()).read_text())
    return [event["args"]["op_name"] for event in events if "op_name" in event.get("args", {})]


@pytest.mark.parametrize("name", NETWORKS)
def test_what_only_maps_need_is_not_run_when_no_class_is_named(
    store: Path, name: str, tmp_path: Path
) -> None:
    nobody = executed(store, name, [[], []], tmp_path)
    somebody = executed(store, name, [[-1], [3]], tmp_path)
    assert "If" in nobody
    assert not {"TopK", "GatherND"} & set(nobody)
    assert {"TopK", "GatherND"} <= set(somebody)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_class_gives_no_map(store: Path, name: str) -> None:
    session = ort.InferenceSession(store / name / "1" / "ragged.onnx")
    channels = Engine(store / name / "1", "cpu").card.preprocessing.channels
    feed = {
        "pixels": np.zeros((3, 64, 80, channels), np.uint8),
        "sizes": np.array([[64, 80], [40, 50], [33, 64]]),
        "classes": np.empty((3, 0), np.int64),
    }
    maps, classes = session.run(["cam", "cam_classes"], feed)
    assert maps.shape[:2] == classes.shape == (3, 0)
