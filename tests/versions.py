"""Versions of seed_cnn that can be told apart by their answers."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


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


def make_killer(store: Path, root: Path, number: int) -> Path:
    """A version of seed_cnn that ends the process that runs it: SIGFPE, in ONNX Runtime 1.31.

    Max pooling of a map that is one pixel high leaves none, and the blocks of 16 channels that
    convolutions use are then counted by that none.
    """
    weights = np.ones((16, 1, 1, 1), np.float32), np.ones((16, 10), np.float32)
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["moved"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["moved"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "filters"], ["map"], strides=[32, 1]),
        helper.make_node("MaxPool", ["map"], ["none"], kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["none"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "killer",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", "h", "w", 1])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 10])
            for name in ("logits", "probabilities")
        ],
        [numpy_helper.from_array(w, n) for w, n in zip(weights, ("filters", "head"), strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    draft = root / f".draft-killer-{number}"
    shutil.copytree(store / "seed_cnn" / "1", draft)
    onnx.save(model, draft / "model.onnx")
    plain = {"outputs": ["logits", "probabilities"], "map_stride": None, "embedding_size": None}
    change_card(draft, version=number, **plain)
    return publish(draft, root / "seed_cnn" / str(number))


def make_blind(store: Path, root: Path) -> Path:
    """A model `blind`, version 1: seed_cnn with NaN for images that have a white pixel."""
    draft = root / ".draft-blind"
    shutil.copytree(store / "seed_cnn" / "1", draft)
    for file in ("model.onnx", "ragged.onnx"):
        model = onnx.load(draft / file)
        for node in model.graph.node:
            node.output[:] = ["seen" if name == "probabilities" else name for name in node.output]
        axes = numpy_helper.from_array(np.array([1, 2, 3]), "axes")
        white = numpy_helper.from_array(np.full((), 255, np.float32), "all_white")
        last = numpy_helper.from_array(np.array([1]), "last")
        model.graph.initializer.extend([axes, white, last])
        model.graph.node.extend(
            [
                helper.make_node("Cast", ["pixels"], ["as_float"], to=TensorProto.FLOAT),
                helper.make_node("ReduceMax", ["as_float", "axes"], ["lightest"], keepdims=0),
                helper.make_node("Sub", ["all_white", "lightest"], ["white"]),
                helper.make_node("Div", ["white", "white"], ["one"]),  # (n,), 0 / 0 where white
                helper.make_node("Unsqueeze", ["one", "last"], ["ones"]),
                helper.make_node("Mul", ["seen", "ones"], ["probabilities"]),
            ]
        )
        onnx.save(model, draft / file)
    change_card(draft, name="blind", version=1)
    return publish(draft, root / "blind" / "1")


def make_fragile(store: Path, root: Path) -> Path:
    """A model `fragile`, version 1: seed_cnn that fails to run images 400 or more pixels wide."""
    draft = root / ".draft-fragile"
    shutil.copytree(store / "seed_cnn" / "1", draft)
    model = onnx.load(draft / "model.onnx")
    short = numpy_helper.from_array(np.zeros(400, np.float32), "short")
    for node in model.graph.node:
        node.input[:] = ["as_wide" if name == "embedding" else name for name in node.input]
    model.graph.initializer.append(short)
    gemm = next(i for i, node in enumerate(model.graph.node) if "as_wide" in node.input)
    for node in reversed(
        [
            helper.make_node("Shape", ["pixels"], ["width"], start=2, end=3),
            helper.make_node("Gather", ["short", "width"], ["nothing"]),
            helper.make_node("Add", ["embedding", "nothing"], ["as_wide"]),
        ]
    ):
        model.graph.node.insert(gemm, node)
    onnx.save(model, draft / "model.onnx")
    change_card(draft, name="fragile")
    return publish(draft, root / "fragile" / "1")


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
