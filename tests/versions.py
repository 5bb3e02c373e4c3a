"""Versions of seed_cnn that can be told apart by their answers."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper


def make_version(store: Path, root: Path, number: int, *, name: str = "seed_cnn") -> Path:
    """root/name/number, there at once and whole: for any image its class is `number`, below 10.

    What it is made of is seed_cnn of `store`; golden.npz stays what it was, and is wrong.
    """
    draft = root / f".draft-{name}-{number}"
    shutil.copytree(store / "seed_cnn" / "1", draft)
    for file in ("model.onnx", "ragged.onnx"):
        model = onnx.load(draft / file)
        (bias,) = (t for t in model.graph.initializer if t.name == "network.head.bias")
        values = numpy_helper.to_array(bias).copy()  # (10,)
        values[number] += np.float32(100)
        bias.CopyFrom(numpy_helper.from_array(values, bias.name))
        onnx.save(model, draft / file)
    change_card(draft, name=name, version=number)
    return publish(draft, root / name / str(number))


def publish(draft: Path, target: Path) -> Path:
    """Rename, as the exporter does; what was there before is gone then."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(draft.with_name(f"{draft.name}-before"))
    draft.rename(target)
    shutil.rmtree(draft.with_name(f"{draft.name}-before"), ignore_errors=True)
    return target


def change_card(folder: Path, **changes: object) -> None:
    """Write other values into card.json."""
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    (folder / "card.json").write_text(json.dumps(card | changes), encoding="utf-8")
