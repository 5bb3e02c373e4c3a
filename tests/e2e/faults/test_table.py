"""The README has the suite's rows, and each is tried."""

from pathlib import Path

import pytest

from tests.e2e.faults.table import README, Fault, Row, into, named, table

TESTS = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*"))


def test_the_table_of_the_readme_has_a_row_for_each_fault_and_no_other() -> None:
    assert named(README.read_text(encoding="utf-8")) == list(Fault)


@pytest.mark.parametrize("fault", Fault)
def test_each_fault_is_tried(fault: Fault) -> None:
    assert f"Fault.{fault.name}," in TESTS


def test_a_new_table_takes_the_place_of_the_old_one() -> None:
    row = Row("413", {"right": 7, "reset": 2, "503": 1}, 0.26, 0.0)
    made = table(dict.fromkeys(Fault, row))
    readme = README.read_text(encoding="utf-8")
    once = into(readme, made)
    assert into(once, made) == once
    assert named(once) == list(Fault)
    assert once.partition("<!-- faults")[0] == readme.partition("<!-- faults")[0]
    assert "| SIGTERM | 413 | 7 × right, 1 × 503, 2 × reset | 2 | 0.3 s | at once |" in once
