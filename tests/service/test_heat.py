"""Class activation maps, as clients get them."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from service.heat import heat_maps
from service.scores import Maps

VALUES = np.array([[[0, 1, 2], [-4, 3, 4]], [[-3, -2, -1], [-3, -2, -1]]], np.float32)
MAPS = Maps(np.array([7, 3]), VALUES)


def drawn(png: str | None) -> list[list[int]]:
    assert png is not None
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    assert (image.format, image.mode) == ("PNG", "L")
    rows: list[list[int]] = np.asarray(image).tolist()
    return rows


def test_a_png_is_white_at_its_largest_value_and_black_from_0_down() -> None:
    (heat_map,) = heat_maps(MAPS, [7], "png")
    assert (heat_map.index, heat_map.width, heat_map.height) == (7, 3, 2)
    assert heat_map.highest == 4
    assert drawn(heat_map.png) == [[0, 64, 128], [0, 191, 255]]
    assert heat_map.array is None


@pytest.mark.parametrize("values", [VALUES[1:], np.zeros((1, 2, 3), np.float32)])
def test_a_map_that_speaks_against_its_class_everywhere_is_black(values: np.ndarray) -> None:
    (heat_map,) = heat_maps(Maps(np.array([3]), values), [3], "png")
    assert drawn(heat_map.png) == [[0, 0, 0], [0, 0, 0]]
    assert heat_map.highest == values.max()


def test_an_array_has_the_values_themselves() -> None:
    (heat_map,) = heat_maps(MAPS, [3], "array")
    assert heat_map.array == VALUES[1].tolist()
    assert heat_map.png is None


def test_maps_come_in_the_order_asked_for_and_none_is_left_out() -> None:
    assert [heat_map.index for heat_map in heat_maps(MAPS, [3, 7], "array")] == [3, 7]
    assert heat_maps(MAPS, [], "png") == []
    with pytest.raises(KeyError):
        heat_maps(MAPS, [3, 5], "png")
