"""Every pooling, exported: equal to torch at any size, equal in any company, maps included."""

from typing import Any

import pytest

from models.pool import POOLS
from tests.export.poolings import WAYS, measure
from tests.export.rewrite.ragged.proof import CONTROL, TOLERANCE

pytestmark = pytest.mark.slow
MAPS = 10  # times the tolerance: maps of maxima move with the last bits, see service/golden.py


@pytest.mark.parametrize(("name", "arguments"), WAYS, ids=lambda value: str(value))
def test_a_pooling_and_its_maps_are_exact_at_any_size_and_in_any_company(
    name: str, arguments: dict[str, Any]
) -> None:
    row = measure(name, arguments)
    assert row.plain <= 2e-5
    assert row.plain_maps <= 2e-5 * MAPS
    assert row.ragged <= TOLERANCE
    assert row.ragged_maps <= TOLERANCE * MAPS
    assert row.control > CONTROL
    assert row.control_maps > CONTROL


def test_every_pooling_is_proven() -> None:
    assert {name for name, _ in WAYS} == set(POOLS)
