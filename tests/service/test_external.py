"""No artifact makes ONNX Runtime read another file, wherever in the graph it asks for one."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from service.engine import Engine
from service.external import Malformed, has_external_data
from service.failures import EngineError
from tests.versions import make_version

ONES = np.ones(256, np.float32)


def outside(location: str = "weights.bin") -> TensorProto:
    """256 ones that lie in another file."""
    tensor = numpy_helper.from_array(ONES, "weights")
    set_external_data(tensor, location, offset=0, length=ONES.nbytes)
    tensor.ClearField("raw_data")
    return tensor


def constant(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["y"], value=tensor)


def graph(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(
        nodes, "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [256])]
    )


def in_initializer(tensor: TensorProto) -> onnx.ModelProto:
    made = graph(helper.make_node("Identity", ["weights"], ["y"]))
    made.initializer.append(tensor)
    return helper.make_model(made)


def in_attribute(tensor: TensorProto) -> onnx.ModelProto:
    return helper.make_model(graph(constant(tensor)))


def in_branch(tensor: TensorProto) -> onnx.ModelProto:
    branch = graph(constant(tensor))
    node = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    return helper.make_model(graph(node))


def in_function(tensor: TensorProto) -> onnx.ModelProto:
    opset = [helper.make_opsetid("", 18)]
    function = helper.make_function("ours", "f", [], ["y"], [constant(tensor)], opset)
    node = helper.make_node("f", [], ["y"], domain="ours")
    return helper.make_model(graph(node), functions=[function])


def in_sparse(tensor: TensorProto) -> onnx.ModelProto:
    model = helper.make_model(graph())
    indices = numpy_helper.from_array(np.arange(256), "")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor, indices, [256]))
    return model


def in_training(tensor: TensorProto) -> onnx.ModelProto:
    model = helper.make_model(graph())
    model.training_info.add().algorithm.CopyFrom(graph(constant(tensor)))
    return model


PLACES = (in_initializer, in_attribute, in_branch, in_function, in_sparse, in_training)


@pytest.mark.parametrize("place", PLACES)
def test_data_in_another_file_is_found_wherever_it_is_asked_for(
    tmp_path: Path, place: Callable[[TensorProto], onnx.ModelProto]
) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(place(outside()).SerializeToString())
    assert has_external_data(file)
    file.write_bytes(place(numpy_helper.from_array(ONES, "weights")).SerializeToString())
    assert not has_external_data(file)


def test_either_of_the_two_fields_that_say_so_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    for field in ("data_location", "external_data"):
        tensor = outside()
        tensor.ClearField(field)
        file.write_bytes(in_initializer(tensor).SerializeToString())
        assert has_external_data(file)


@pytest.mark.parametrize("name", ["model.onnx", "ragged.onnx"])
@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "absolute"])
def test_an_artifact_with_data_in_another_file_is_refused_though_the_file_is_there(
    store: Path, tmp_path: Path, name: str, location: str
) -> None:
    folder = make_version(store, tmp_path, 2)
    model = onnx.load(folder / name)
    (bias,) = (t for t in model.graph.initializer if t.name == "network.head.bias")
    raw = bias.raw_data
    places = {"absolute": str(tmp_path / "weights.bin")}
    set_external_data(bias, places.get(location, location), offset=0, length=len(raw))
    bias.ClearField("raw_data")
    (folder / name).write_bytes(model.SerializeToString())
    for beside in (folder, folder.parent, tmp_path):
        (beside / "weights.bin").write_bytes(raw)
    with pytest.raises(EngineError, match="weights from other files"):
        Engine(folder, "cpu", batching="mixed")


def test_a_whole_file_is_walked_over_its_weights_and_a_cut_one_is_refused(
    store: Path, tmp_path: Path
) -> None:
    whole = (store / "seed_cnn" / "1" / "model.onnx").read_bytes()
    file = tmp_path / "model.onnx"
    file.write_bytes(whole)
    assert not has_external_data(file)
    for kept in (1, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:kept])
        with pytest.raises(Malformed):
            has_external_data(file)


@given(st.binary(max_size=64))
def test_any_bytes_are_walked_to_their_end_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.onnx"
    file.write_bytes(data)
    with suppress(Malformed):
        assert has_external_data(file) in (True, False)


def test_a_field_number_that_readers_would_cut_to_another_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(bytes([0xBA, 0x80, 0x80, 0x80, 0x10, 0]))  # 7, with bit 32 set
    with pytest.raises(Malformed):
        has_external_data(file)
